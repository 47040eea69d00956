/* report.c - a tree of values: objects, lists, numbers, texts. */
#include "lib/base/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct mopt_report {
    enum mopt_kind kind;
    char *key, *text;
    int64_t i;
    double x;
    struct mopt_report **items;
    size_t n_items, room;
    struct mopt_report *root; /* whose is_broken counts */
    bool is_broken;           /* of the root: an addition found no memory */
};

struct mopt_report *mo_report_new(void)
{
    struct mopt_report *report = mo_mem_new(1, sizeof *report);
    if (report) {
        report->kind = MOPT_OBJECT;
        report->root = report;
    }
    return report;
}

bool mo_report_ok(const struct mopt_report *report)
{
    return report && !report->root->is_broken;
}

void mopt_report_free(struct mopt_report *report)
{
    if (!report)
        return;
    for (size_t i = 0; i < report->n_items; i++)
        mopt_report_free(report->items[i]);
    mo_mem_free(report->items);
    mo_mem_free(report->key);
    mo_mem_free(report->text);
    mo_mem_free(report);
}

static char *copy_text(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = mo_mem_new(n, 1);
    return copy ? memcpy(copy, text, n) : NULL;
}

static struct mopt_report *find(const struct mopt_report *object, const char *key, size_t n_key)
{
    for (size_t i = 0; i < object->n_items; i++)
        if (object->items[i]->key && !strncmp(object->items[i]->key, key, n_key) && !object->items[i]->key[n_key])
            return object->items[i];
    return NULL;
}

static void empty(struct mopt_report *item)
{
    for (size_t i = 0; i < item->n_items; i++)
        mopt_report_free(item->items[i]);
    mo_mem_free(item->items);
    mo_mem_free(item->text);
    item->items = NULL;
    item->text = NULL;
    item->n_items = item->room = 0;
}

static bool make_room(struct mopt_report *parent)
{
    if (parent->n_items < parent->room)
        return true;
    size_t room = parent->room ? 2 * parent->room : 8, each = sizeof *parent->items;
    struct mopt_report **items = mo_mem_grow(parent->items, parent->n_items * each, room * each);
    if (!items)
        return false;
    parent->items = items;
    parent->room = room;
    return true;
}

static struct mopt_report *put(struct mopt_report *parent, const char *key, enum mopt_kind kind)
{
    if (!parent)
        return NULL;
    struct mopt_report *item = key ? find(parent, key, strlen(key)) : NULL;
    if (item) {
        empty(item);
        item->kind = kind;
        return item;
    }
    item = mo_mem_new(1, sizeof *item);
    if (!item || (key && !(item->key = copy_text(key))) || !make_room(parent)) {
        parent->root->is_broken = true;
        mopt_report_free(item);
        return NULL;
    }
    item->kind = kind;
    item->root = parent->root;
    parent->items[parent->n_items++] = item;
    return item;
}

struct mopt_report *mo_report_object(struct mopt_report *report, const char *key)
{
    return put(report, key, MOPT_OBJECT);
}

struct mopt_report *mo_report_list(struct mopt_report *report, const char *key)
{
    return put(report, key, MOPT_LIST);
}

void mo_report_set_int(struct mopt_report *report, const char *key, int64_t value)
{
    struct mopt_report *item = put(report, key, MOPT_INT);
    if (item)
        item->i = value;
}

void mo_report_set_number(struct mopt_report *report, const char *key, double value)
{
    struct mopt_report *item = put(report, key, isfinite(value) ? MOPT_NUMBER : MOPT_NULL);
    if (item)
        item->x = value;
}

void mo_report_set_bool(struct mopt_report *report, const char *key, bool value)
{
    struct mopt_report *item = put(report, key, MOPT_BOOL);
    if (item)
        item->i = value;
}

void mo_report_set_text(struct mopt_report *report, const char *key, const char *value)
{
    struct mopt_report *item = put(report, key, value ? MOPT_TEXT : MOPT_NULL);
    if (item && value && !(item->text = copy_text(value))) {
        item->kind = MOPT_NULL;
        item->root->is_broken = true;
    }
}

void mo_report_set_null(struct mopt_report *report, const char *key)
{
    put(report, key, MOPT_NULL);
}

/* ---- reading ------------------------------------------------------------------ */

const struct mopt_report *mopt_report_at(const struct mopt_report *report, const char *path)
{
    while (report && *path) {
        size_t n = strcspn(path, ".");
        if (report->kind == MOPT_LIST) {
            char *end;
            unsigned long i = strtoul(path, &end, 10);
            report = end == path + n && n ? mopt_report_item(report, i) : NULL;
        } else
            report = find(report, path, n);
        path += n + (path[n] == '.');
    }
    return report;
}

enum mopt_kind mopt_report_kind(const struct mopt_report *report)
{
    return report ? report->kind : MOPT_NULL;
}

double mopt_report_number(const struct mopt_report *report, double otherwise)
{
    switch (mopt_report_kind(report)) {
    case MOPT_NUMBER:
        return report->x;
    case MOPT_INT:
    case MOPT_BOOL:
        return (double)report->i;
    default:
        return otherwise;
    }
}

int64_t mopt_report_int(const struct mopt_report *report, int64_t otherwise)
{
    switch (mopt_report_kind(report)) {
    case MOPT_INT:
    case MOPT_BOOL:
        return report->i;
    case MOPT_NUMBER:
        return fabs(report->x) < 0x1p62 ? (int64_t)report->x : otherwise;
    default:
        return otherwise;
    }
}

const char *mopt_report_text(const struct mopt_report *report, const char *otherwise)
{
    return mopt_report_kind(report) == MOPT_TEXT ? report->text : otherwise;
}

size_t mopt_report_count(const struct mopt_report *report)
{
    return report ? report->n_items : 0;
}

const struct mopt_report *mopt_report_item(const struct mopt_report *report, size_t i)
{
    return report && i < report->n_items ? report->items[i] : NULL;
}

const char *mopt_report_key(const struct mopt_report *report, size_t i)
{
    const struct mopt_report *item = mopt_report_item(report, i);
    return item && item->key ? item->key : NULL;
}

/* sources.c - the table of data formats, and the grammar of a data spec. */
#include "formats/sources.h"

#include <stdio.h>
#include <string.h>

extern const struct mo_source_format mo_format_cifar, mo_format_csv, mo_format_idx, mo_format_imagefolder, mo_format_npy,
    mo_format_npz, mo_format_onnx_testdata, mo_format_svmlight;

static const struct mo_source_format *const formats[] = {
    &mo_format_cifar,
    &mo_format_csv,
    &mo_format_idx,
    &mo_format_imagefolder,
    &mo_format_npy,
    &mo_format_npz,
    &mo_format_onnx_testdata,
    &mo_format_svmlight,
};

const struct mo_source_format *mo_source_format_at(size_t i)
{
    return i < MO_COUNT(formats) ? formats[i] : NULL;
}

static enum mopt_status no_such_format(struct mopt_ctx *ctx, const char *spec, const char *name)
{
    const char *names[MO_COUNT(formats)];
    char list[256];
    size_t used = 0;
    for (size_t i = 0; i < MO_COUNT(formats); i++) {
        names[i] = formats[i]->name;
        int n = snprintf(list + used, sizeof list - used, "%s%s:", i ? ", " : "", names[i]);
        used = MO_MIN(used + (size_t)MO_MAX(n, 0), sizeof list - 1);
    }
    if (!name)
        return mo_fail(ctx, MOPT_USAGE, "data '%s' does not say its format: put one of %s in front of the path", spec,
                       list);
    const char *near = mo_nearest(name, names, MO_COUNT(formats));
    return near ? mo_fail(ctx, MOPT_USAGE, "there is no data format '%s'; did you mean '%s:'?", name, near)
                : mo_fail(ctx, MOPT_USAGE, "there is no data format '%s'; there are %s", name, list);
}

static bool is_key(const char *keys, const char *word, size_t n, bool wants_list)
{
    for (const char *at = keys; at && *at;) {
        size_t len = strcspn(at, "|");
        size_t own = len - (len && at[len - 1] == '*');
        if (own == n && !memcmp(at, word, n) && (!wants_list || own < len))
            return true;
        at += len + (at[len] == '|');
    }
    return false;
}

static enum mopt_status no_such_key(struct mopt_ctx *ctx, const struct mo_source_format *format, const char *word)
{
    const char *names[MO_SPEC_MAX_KEYS];
    char all[256];
    size_t n = 0;
    snprintf(all, sizeof all, "%s", format->keys ? format->keys : "");
    for (char *save = NULL, *k = strtok_r(all, "|*", &save); k && n < MO_COUNT(names); k = strtok_r(NULL, "|*", &save))
        names[n++] = k;
    const char *near = mo_nearest(word, names, n);
    if (near)
        return mo_fail(ctx, MOPT_USAGE, "data format '%s' has no key '%s'; did you mean '%s'?", format->name, word, near);
    return mo_fail(ctx, MOPT_USAGE, "data format '%s' has no key '%s': it is %s:%s", format->name, word, format->name,
                   format->grammar);
}

/* Ends the item at *at with a 0, takes the backslashes out, and moves *at to the next one. */
static char *next_item(char **at)
{
    char *item = *at, *to = item, *from = item;
    for (; *from && *from != ','; from++) {
        if (*from == '\\' && from[1] == ',')
            from++;
        *to++ = *from;
    }
    *at = *from ? from + 1 : NULL;
    *to = 0;
    return item;
}

static enum mopt_status add_item(struct mopt_ctx *ctx, struct mo_source_spec *spec, char *item)
{
    const struct mo_source_format *format = spec->format;
    char *equals = spec->n_paths ? strchr(item, '=') : NULL;
    if (equals && is_key(format->keys, item, (size_t)(equals - item), false)) {
        *equals = 0;
        if (mo_spec_value(spec, item))
            return mo_fail(ctx, MOPT_USAGE, "data key '%s' is given twice", item);
        if (spec->n_keys == MO_SPEC_MAX_KEYS)
            return mo_fail(ctx, MOPT_USAGE, "data has more than %d keys", MO_SPEC_MAX_KEYS);
        spec->key[spec->n_keys] = item;
        spec->value[spec->n_keys++] = equals + 1;
        return MOPT_OK;
    }
    if (equals) {
        *equals = 0;
        return no_such_key(ctx, format, item);
    }
    char *last = spec->n_keys ? (char *)(uintptr_t)spec->key[spec->n_keys - 1] : NULL;
    if (last && is_key(format->keys, last, strlen(last), true)) { /* one more of a list: put the comma back */
        char *end = last + strlen(last) + 1;
        end += strlen(end);
        *end = ',';
        memmove(end + 1, item, strlen(item) + 1);
        return MOPT_OK;
    }
    if (spec->n_paths >= format->max_paths)
        return mo_fail(ctx, MOPT_USAGE, "'%s' is one path too many for %s:%s", item, format->name, format->grammar);
    if (!*item)
        return mo_fail(ctx, MOPT_USAGE, "data format '%s' needs a path: %s:%s", format->name, format->name,
                       format->grammar);
    spec->path[spec->n_paths++] = item;
    return MOPT_OK;
}

static enum mopt_status parse(struct mopt_ctx *ctx, const char *text, struct mo_source_spec *spec)
{
    const char *colon = strchr(text, ':');
    char name[32];
    if (!colon || (size_t)(colon - text) >= sizeof name)
        return no_such_format(ctx, text, NULL);
    snprintf(name, sizeof name, "%.*s", (int)(colon - text), text);
    for (size_t i = 0; i < MO_COUNT(formats); i++)
        if (!strcmp(formats[i]->name, name))
            spec->format = formats[i];
    if (!spec->format)
        return no_such_format(ctx, text, name);
    size_t n = strlen(colon);
    spec->text = mo_mem_new(n, 1);
    if (!spec->text)
        return mo_no_memory(ctx, n, "a data spec");
    memcpy(spec->text, colon + 1, n);
    for (char *at = spec->text; at;)
        MO_TRY(add_item(ctx, spec, next_item(&at)));
    return MOPT_OK;
}

enum mopt_status mo_source_open(struct mopt_ctx *ctx, const char *text, enum mo_part part, const char *schema,
                                struct mo_source **source)
{
    struct mo_source_spec spec = {0};
    *source = NULL;
    enum mopt_status s = parse(ctx, text, &spec);
    if (!s)
        s = spec.format->open(ctx, &spec, part, schema, source);
    mo_mem_free(spec.text);
    return s;
}

/* ---- for formats ------------------------------------------------------------- */

const char *mo_spec_value(const struct mo_source_spec *spec, const char *key)
{
    for (int i = 0; i < spec->n_keys; i++)
        if (!strcmp(spec->key[i], key))
            return spec->value[i];
    return NULL;
}

enum mopt_status mo_spec_choice(struct mopt_ctx *ctx, const struct mo_source_spec *spec, const char *key,
                                const char *choices, int otherwise, int *value)
{
    const char *said = mo_spec_value(spec, key), *at = choices;
    *value = otherwise;
    if (!said)
        return MOPT_OK;
    for (int i = 0; *at; i++) {
        size_t n = strcspn(at, "|");
        if (strlen(said) == n && !memcmp(at, said, n)) {
            *value = i;
            return MOPT_OK;
        }
        at += n + (at[n] == '|');
    }
    return mo_fail(ctx, MOPT_USAGE, "data key '%s': '%s' is none of %s", key, said, choices);
}

enum mopt_status mo_spec_bool(struct mopt_ctx *ctx, const struct mo_source_spec *spec, const char *key, bool otherwise,
                              bool *value)
{
    int which;
    MO_TRY(mo_spec_choice(ctx, spec, key, "0|1|false|true|no|yes", otherwise, &which));
    *value = which % 2;
    return MOPT_OK;
}

enum mopt_status mo_source_fits(struct mopt_ctx *ctx, const char *path, uint64_t bytes)
{
    if (ctx->max_memory_bytes && bytes > ctx->max_memory_bytes)
        return mo_fail(ctx, MOPT_LIMIT, "%s: needs %llu bytes, more than the limit of %llu", path,
                       (unsigned long long)bytes, (unsigned long long)ctx->max_memory_bytes);
    return MOPT_OK;
}

/* report_json.c - the report tree as JSON text and back, through cJSON. */
#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#include "formats/formats.h"

enum { MAX_DEPTH = 64 };

/* cJSON keeps numbers as doubles: whole ones to 2^53 come out exactly. */
static cJSON *to_json(const struct mopt_report *r)
{
    switch (mopt_report_kind(r)) {
    case MOPT_NULL:
        return cJSON_CreateNull();
    case MOPT_BOOL:
        return cJSON_CreateBool(mopt_report_int(r, 0) != 0);
    case MOPT_INT:
    case MOPT_NUMBER:
        return cJSON_CreateNumber(mopt_report_number(r, 0));
    case MOPT_TEXT:
        return cJSON_CreateString(mopt_report_text(r, ""));
    case MOPT_LIST:
    case MOPT_OBJECT:
        break;
    }
    bool is_list = mopt_report_kind(r) == MOPT_LIST;
    cJSON *json = is_list ? cJSON_CreateArray() : cJSON_CreateObject();
    for (size_t i = 0; json && i < mopt_report_count(r); i++) {
        cJSON *item = to_json(mopt_report_item(r, i));
        bool ok = item && (is_list ? cJSON_AddItemToArray(json, item)
                                   : cJSON_AddItemToObject(json, mopt_report_key(r, i), item));
        if (!ok) {
            cJSON_Delete(item);
            cJSON_Delete(json);
            return NULL;
        }
    }
    return json;
}

char *mopt_report_json(const struct mopt_report *report)
{
    cJSON *json = to_json(report);
    char *printed = json ? cJSON_Print(json) : NULL;
    cJSON_Delete(json);
    size_t n = printed ? strlen(printed) : 0;
    char *text = printed ? mo_mem_new(n + 2, 1) : NULL;
    if (text) {
        memcpy(text, printed, n);
        text[n] = '\n';
    }
    cJSON_free(printed);
    return text;
}

void mopt_text_free(char *text)
{
    mo_mem_free(text);
}

static void from_json(const cJSON *json, struct mopt_report *parent, const char *key, int depth)
{
    if (cJSON_IsBool(json))
        mo_report_set_bool(parent, key, cJSON_IsTrue(json));
    else if (cJSON_IsNumber(json) && json->valuedouble == floor(json->valuedouble) && fabs(json->valuedouble) < 0x1p53)
        mo_report_set_int(parent, key, (int64_t)json->valuedouble);
    else if (cJSON_IsNumber(json))
        mo_report_set_number(parent, key, json->valuedouble);
    else if (cJSON_IsString(json))
        mo_report_set_text(parent, key, json->valuestring);
    else if ((cJSON_IsArray(json) || cJSON_IsObject(json)) && depth < MAX_DEPTH) {
        struct mopt_report *here = cJSON_IsArray(json) ? mo_report_list(parent, key) : mo_report_object(parent, key);
        for (const cJSON *item = json->child; item; item = item->next)
            from_json(item, here, cJSON_IsArray(json) ? NULL : item->string, depth + 1);
    } else
        mo_report_set_null(parent, key);
}

enum mopt_status mo_report_parse(struct mopt_ctx *ctx, const char *text, struct mopt_report **report)
{
    *report = NULL;
    cJSON *json = cJSON_Parse(text);
    if (!cJSON_IsObject(json)) {
        cJSON_Delete(json);
        return mo_fail(ctx, MOPT_DATA, "this is no JSON object");
    }
    struct mopt_report *root = mo_report_new();
    for (const cJSON *item = json->child; root && item; item = item->next)
        from_json(item, root, item->string, 1);
    cJSON_Delete(json);
    if (!root || !mo_report_ok(root)) {
        mopt_report_free(root);
        return mo_no_memory(ctx, strlen(text), "a report");
    }
    *report = root;
    return MOPT_OK;
}

enum mopt_status mo_read_report(struct mopt_ctx *ctx, const char *path, struct mopt_report **report)
{
    char *text;
    size_t n;
    MO_TRY(mopt_file_read(ctx, path, &text, &n));
    enum mopt_status s = mo_report_parse(ctx, text, report);
    if (s)
        mo_blame(ctx, "'%s'", path);
    mo_mem_free(text);
    return s;
}

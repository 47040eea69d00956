/* create_json.c - the JSON text that describes a new model (docs/CREATE.md) to a spec. */
#include <math.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "lib/passes/create.h"

enum { MAX_NESTING = 8, MAX_LAYERS = 10000 };

struct reader { struct mopt_ctx *ctx; struct mo_arena arena; };

static enum mopt_status no_room(struct reader *r)
{
    return mo_no_memory(r->ctx, r->arena.total_bytes, "a spec");
}

static enum mopt_status whole(struct reader *r, const cJSON *item, int64_t least, int64_t *x)
{
    if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble) || item->valuedouble < (double)least ||
        item->valuedouble > INT32_MAX)
        return mo_fail(r->ctx, MOPT_USAGE, "'%s' is not a whole number from %lld on",
                       item->string ? item->string : "item",
                       (long long)least);
    *x = (int64_t)item->valuedouble;
    return MOPT_OK;
}

/* 3 or [3, 5]. */
static enum mopt_status pair(struct reader *r, const cJSON *item, int64_t least, int64_t *x)
{
    if (!cJSON_IsArray(item)) {
        MO_TRY(whole(r, item, least, &x[0]));
        x[1] = x[0];
        return MOPT_OK;
    }
    if (cJSON_GetArraySize(item) != 2)
        return mo_fail(r->ctx, MOPT_USAGE, "'%s' is a number or two of them", item->string);
    MO_TRY(whole(r, cJSON_GetArrayItem(item, 0), least, &x[0]));
    return whole(r, cJSON_GetArrayItem(item, 1), least, &x[1]);
}

static enum mopt_status text(struct reader *r, const cJSON *item, const char **out)
{
    if (!cJSON_IsString(item) || !item->valuestring[0])
        return mo_fail(r->ctx, MOPT_USAGE, "'%s' is not a text", item->string);
    *out = mo_arena_text(&r->arena, item->valuestring);
    return *out ? MOPT_OK : no_room(r);
}

static enum mopt_status unknown_key(struct reader *r, const char *key, const char *const *keys, size_t n)
{
    const char *nearest = mo_nearest(key, keys, n);
    return mo_fail(r->ctx, MOPT_USAGE, "there is no key '%s'%s%s%s", key, nearest ? "; '" : "", nearest ? nearest : "",
                   nearest ? "' is near" : "");
}

static enum mopt_status read_layers(struct reader *r, const cJSON *list, int depth, struct mo_layer_spec **layers,
                                    uint32_t *n);

static enum mopt_status read_rate(struct reader *r, const cJSON *item, double *rate)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble > 0 && item->valuedouble < 1))
        return mo_fail(r->ctx, MOPT_USAGE, "'rate' is not a number between 0 and 1");
    *rate = item->valuedouble;
    return MOPT_OK;
}

static enum mopt_status read_key(struct reader *r, const cJSON *item, int depth, struct mo_layer_spec *l)
{
    static const char *const keys[] = { "type", "name", "out", "kernel", "stride", "pad", "group", "bias", "rate",
                                        "layers", "shortcut" };
    const char *key = item->string;
    if (!strcmp(key, "type"))
        return text(r, item, &l->type);
    if (!strcmp(key, "name"))
        return text(r, item, &l->name);
    if (!strcmp(key, "out"))
        return whole(r, item, 1, &l->out);
    if (!strcmp(key, "kernel"))
        return pair(r, item, 1, l->kernel);
    if (!strcmp(key, "stride"))
        return pair(r, item, 1, l->stride);
    if (!strcmp(key, "pad"))
        return pair(r, item, 0, l->pad);
    if (!strcmp(key, "group"))
        return whole(r, item, 1, &l->group);
    if (!strcmp(key, "bias") && !cJSON_IsBool(item))
        return mo_fail(r->ctx, MOPT_USAGE, "'bias' is not true or false");
    if (!strcmp(key, "bias")) {
        l->no_bias = cJSON_IsFalse(item);
        return MOPT_OK;
    }
    if (!strcmp(key, "rate"))
        return read_rate(r, item, &l->rate);
    if (!strcmp(key, "layers"))
        return read_layers(r, item, depth + 1, &l->layers, &l->n_layers);
    if (!strcmp(key, "shortcut"))
        return read_layers(r, item, depth + 1, &l->shortcut, &l->n_shortcut);
    return unknown_key(r, key, keys, MO_COUNT(keys));
}

static enum mopt_status read_layers(struct reader *r, const cJSON *list, int depth, struct mo_layer_spec **layers,
                                    uint32_t *n)
{
    int count = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;
    if (count < 0 || count > MAX_LAYERS || depth > MAX_NESTING)
        return mo_fail(r->ctx, MOPT_USAGE, "'layers' is a list of at most %d objects, nested at most %d times",
                       MAX_LAYERS, MAX_NESTING);
    *layers = mo_arena_new(&r->arena, (size_t)count + 1, sizeof **layers);
    if (!*layers)
        return no_room(r);
    const cJSON *layer, *item;
    cJSON_ArrayForEach(layer, list)
    {
        struct mo_layer_spec *l = &(*layers)[(*n)++];
        enum mopt_status status = MOPT_OK;
        cJSON_ArrayForEach(item, layer) if (!status) status = item->string ? read_key(r, item, depth, l) : MOPT_USAGE;
        if (!status && !l->type)
            status = mo_fail(r->ctx, MOPT_USAGE, "a layer has no type");
        if (!status)
            continue;
        mo_fail(r->ctx, status, "a layer is an object with keys");
        mo_blame(r->ctx, "layer %u", *n);
        return status;
    }
    return MOPT_OK;
}

static enum mopt_status read_input(struct reader *r, const cJSON *item, struct mo_shape *shape)
{
    int n = cJSON_IsArray(item) ? cJSON_GetArraySize(item) : 0;
    if (n < 1 || n >= MO_MAX_RANK)
        return mo_fail(r->ctx, MOPT_USAGE, "'input' is a list of sizes, like [1, 28, 28]");
    *shape = (struct mo_shape){ .rank = n };
    for (int i = 0; i < n; i++)
        MO_TRY(whole(r, cJSON_GetArrayItem(item, i), 1, &shape->dim[i]));
    return MOPT_OK;
}

/* Numbers are the widths of an mlp, objects a chain. */
static enum mopt_status read_list(struct reader *r, const cJSON *item, struct mo_create_spec *spec)
{
    int n = cJSON_IsArray(item) ? cJSON_GetArraySize(item) : 0;
    if (n && !cJSON_IsNumber(cJSON_GetArrayItem(item, 0))) {
        struct mo_layer_spec *layers;
        MO_TRY(read_layers(r, item, 0, &layers, &spec->n_layers));
        spec->layers = layers;
        return MOPT_OK;
    }
    if (!n || n > MAX_LAYERS)
        return mo_fail(r->ctx, MOPT_USAGE, "'layers' is a list of widths or of objects");
    int64_t *widths = mo_arena_new(&r->arena, (size_t)n, sizeof *widths);
    if (!widths)
        return no_room(r);
    for (int i = 0; i < n; i++)
        MO_TRY(whole(r, cJSON_GetArrayItem(item, i), 1, &widths[i]));
    spec->widths = widths;
    spec->n_widths = (uint32_t)n;
    return MOPT_OK;
}

static enum mopt_status read_spec(struct reader *r, const cJSON *json, struct mo_create_spec *spec)
{
    static const char *const keys[] = { "family", "name", "input", "classes", "width", "layers" };
    const cJSON *item;
    if (!cJSON_IsObject(json))
        return mo_fail(r->ctx, MOPT_USAGE, "a spec is a JSON object, like {\"family\": \"lenet5\"}");
    cJSON_ArrayForEach(item, json)
    {
        if (!strcmp(item->string, "family"))
            MO_TRY(text(r, item, &spec->family));
        else if (!strcmp(item->string, "name"))
            MO_TRY(text(r, item, &spec->name));
        else if (!strcmp(item->string, "input"))
            MO_TRY(read_input(r, item, &spec->input));
        else if (!strcmp(item->string, "classes"))
            MO_TRY(whole(r, item, 1, &spec->classes));
        else if (!strcmp(item->string, "layers"))
            MO_TRY(read_list(r, item, spec));
        else if (strcmp(item->string, "width"))
            return unknown_key(r, item->string, keys, MO_COUNT(keys));
        else if (!cJSON_IsNumber(item) || !(item->valuedouble > 0))
            return mo_fail(r->ctx, MOPT_USAGE, "'width' is not a number above 0");
        else
            spec->width = item->valuedouble;
    }
    if (!spec->family == !spec->n_layers)
        return mo_fail(r->ctx, MOPT_USAGE, "a spec has a family, or layers that are objects");
    if (!spec->family && (spec->classes || spec->width > 0))
        return mo_fail(r->ctx, MOPT_USAGE, "classes and width are for families; the layers say it all");
    return MOPT_OK;
}

enum mopt_status mopt_model_create(struct mopt_ctx *ctx, const char *spec_json, uint64_t seed,
                                   struct mopt_model **model)
{
    *model = NULL;
    struct reader r = { .ctx = ctx };
    struct mo_create_spec spec = { .input.rank = MO_UNKNOWN };
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithOpts(spec_json, &end, true);
    enum mopt_status status = MOPT_OK;
    if (!json)
        status = mo_fail(ctx, MOPT_USAGE, "the spec is no JSON near '%.20s'", end ? end : "");
    if (!status)
        status = read_spec(&r, json, &spec);
    if (!status)
        status = mo_create(ctx, &spec, seed, model);
    cJSON_Delete(json);
    mo_arena_release(&r.arena);
    return status;
}

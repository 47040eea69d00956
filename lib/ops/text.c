/* text.c - see text.h. */
#include "lib/ops/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum mopt_status mo_text_in(struct mo_host *h, uint32_t k, int64_t i, const char **text, size_t *n_bytes)
{
    *text = mo_texts_at(h->run->options.texts, ((const int64_t *)h->in[k])[i], n_bytes);
    return *text ? MOPT_OK : mo_fail(h->run->ctx, MOPT_FAILED, "element %lld of input %u is no text", (long long)i, k);
}

enum mopt_status mo_text_number(struct mo_host *h, const char *text, size_t n_bytes, int64_t *number)
{
    return mo_texts_number(h->run->ctx, h->run->options.texts, text, n_bytes, number);
}

enum mopt_status mo_text_attr(struct mo_run *r, const struct mo_attr *a, int64_t **numbers, size_t *n)
{
    bool is_tensor = a->kind == MO_ATTR_TENSOR && a->tensors && a->tensors[0].strings;
    *n = is_tensor ? (size_t)mo_shape_elems(&a->tensors[0].shape) : a->n;
    *numbers = NULL;
    if (!is_tensor && a->kind != MO_ATTR_STRINGS)
        return mo_fail(r->ctx, MOPT_DATA, "%s should be a list of strings", a->name);
    *numbers = mo_mem_new(*n + 1, sizeof **numbers);
    if (!*numbers)
        return mo_no_memory(r->ctx, *n * sizeof **numbers, "a list of strings");
    return mo_texts_numbers(r->ctx, r->options.texts, is_tensor ? a->tensors[0].strings : a->strings, *n, *numbers);
}

enum mopt_status mo_check_texts(struct mopt_ctx *ctx, const struct mo_value *v)
{
    if (v->dtype == MO_STRING || v->dtype == MO_UNDEFINED)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "'%s' is %s, it should be string", v->name, mo_dtype_name(v->dtype));
}

enum mopt_status mo_text_each(struct mo_run *r, const struct mo_node *n, mo_text_fn *fn)
{
    struct mo_host h;
    size_t n_elems = mo_run_out_elems(r, n, 0), bytes = (size_t)mo_elem_bytes(mo_run_out_type(r, n, 0));
    void *y = mo_mem_new(n_elems + 1, MO_MAX(bytes, (size_t)1));
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && !y)
        status = mo_no_memory(r->ctx, n_elems * bytes, "a result");
    for (size_t i = 0; !status && i < n_elems; i++)
        status = fn(&h, (int64_t)i, (char *)y + i * bytes);
    if (!status)
        mo_host_put(&h, 0, y);
    mo_mem_free(y);
    mo_host_close(&h);
    return status;
}

/* ---- numbers ---- */

/* The fewest digits that give the number back, as numpy and the specification's tests write it. */
static void write_float(enum mo_dtype dtype, double x, char *text, size_t room)
{
    int least = dtype == MO_F64 ? 15 : 6;
    if (x != x || x - x != 0) {
        snprintf(text, room, "%s", x != x ? "NaN" : x > 0 ? "INF" : "-INF");
        return;
    }
    for (int digits = least; digits <= 17; digits++) {
        snprintf(text, room, "%.*g", digits, x);
        double back = strtod(text, NULL);
        if (dtype == MO_F64 ? back == x : (float)back == (float)x)
            return;
    }
}

static enum mopt_status number_to_text(struct mo_host *h, int64_t i, void *to)
{
    enum mo_dtype dtype = mo_run_in_type(h->run, h->node, 0);
    char text[64];
    if (dtype == MO_F32 || dtype == MO_F64)
        write_float(dtype, dtype == MO_F64 ? ((const double *)h->in[0])[i] : (double)((const float *)h->in[0])[i], text,
                    sizeof text);
    else if (mo_dtype_is_half(dtype))
        write_float(MO_F32, (double)(dtype == MO_F16 ? mo_f16_to_f32 : mo_bf16_to_f32)(((const uint16_t *)h->in[0])[i]), text,
                    sizeof text);
    else if (dtype == MO_BOOL)
        snprintf(text, sizeof text, "%d", ((const uint8_t *)h->in[0])[i] != 0);
    else if (dtype == MO_U64)
        snprintf(text, sizeof text, "%" PRIu64, ((const uint64_t *)h->in[0])[i]);
    else
        snprintf(text, sizeof text, "%" PRId64, mo_host_int(dtype, h->in[0], i));
    return mo_text_number(h, text, strlen(text), to);
}

static enum mopt_status no_number(struct mo_host *h, const char *text)
{
    return mo_fail(h->run->ctx, MOPT_DATA, "the text '%.60s' is no %s", text,
                   mo_dtype_name(mo_run_out_type(h->run, h->node, 0)));
}

static enum mopt_status text_to_int(struct mo_host *h, const char *text, enum mo_dtype dtype, void *to)
{
    char *end;
    errno = 0;
    int64_t x = dtype == MO_U64 ? (int64_t)strtoull(text, &end, 10) : strtoll(text, &end, 10);
    if (end == text || *end || errno) {         /* 1e3, 2.0: numbers as well, cut to whole ones as other casts do */
        double y = strtod(text, &end);
        if (end == text || *end || !(y > -9.3e18 && y < 9.2e18))
            return no_number(h, text);
        x = (int64_t)y;
    }
    switch (mo_dtype_bits(dtype)) {
    case 64: memcpy(to, &x, 8); break;
    case 32: *(int32_t *)to = (int32_t)x; break;
    case 16: *(int16_t *)to = (int16_t)x; break;
    default: *(uint8_t *)to = dtype == MO_BOOL ? x != 0 : (uint8_t)x;
    }
    return MOPT_OK;
}

static enum mopt_status text_to_number(struct mo_host *h, int64_t i, void *to)
{
    enum mo_dtype dtype = mo_run_out_type(h->run, h->node, 0);
    const char *text;
    char *end;
    MO_TRY(mo_text_in(h, 0, i, &text, NULL));
    if (dtype == MO_BOOL && (!strcasecmp(text, "true") || !strcasecmp(text, "false"))) {
        *(uint8_t *)to = text[0] == 't' || text[0] == 'T';
        return MOPT_OK;
    }
    if (dtype != MO_F32 && dtype != MO_F64 && !mo_dtype_is_half(dtype))
        return text_to_int(h, text, dtype, to);
    double x = strtod(text, &end);
    if (end == text || *end)
        return no_number(h, text);
    if (dtype == MO_F64)
        *(double *)to = x;
    else if (mo_dtype_is_half(dtype))
        *(uint16_t *)to = (dtype == MO_F16 ? mo_f32_to_f16 : mo_f32_to_bf16)(strtof(text, NULL));
    else
        *(float *)to = strtof(text, NULL);      /* not by way of double, which would round twice */
    return MOPT_OK;
}

enum mopt_status mo_text_cast(struct mo_run *r, const struct mo_node *n)
{
    static const enum mo_dtype plain[] = { MO_F32, MO_F64, MO_I64, MO_I32, MO_I16, MO_I8, MO_U64, MO_U32, MO_U16, MO_U8,
                                           MO_BOOL, MO_F16, MO_BF16 };
    enum mo_dtype from = mo_run_in_type(r, n, 0), to = mo_run_out_type(r, n, 0), other = from == MO_STRING ? to : from;
    bool is_plain = false;
    for (size_t i = 0; i < MO_COUNT(plain); i++)
        is_plain |= other == plain[i];
    if (from == MO_STRING && to == MO_STRING) {
        mo_copy(r, sizeof(int64_t), (int64_t)mo_run_in_elems(r, n, 0), mo_run_in(r, n, 0), mo_run_out(r, n, 0));
        return MOPT_OK;
    }
    if (!is_plain)
        return mo_fail(r->ctx, MOPT_UNSUPPORTED, "a cast from %s to %s", mo_dtype_name(from), mo_dtype_name(to));
    return mo_text_each(r, n, from == MO_STRING ? text_to_number : number_to_text);
}

/* Shapes: a rank and dimensions, any of which may be unknown. */
#include "lib/graph/graph.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct mo_shape mo_shape_of(int rank, ...)
{
    struct mo_shape shape = { .rank = rank };
    va_list args;
    va_start(args, rank);
    for (int i = 0; i < rank && i < MO_MAX_RANK; i++)
        shape.dim[i] = va_arg(args, int64_t);
    va_end(args);
    return shape;
}

bool mo_shape_known(const struct mo_shape *shape)
{
    if (shape->rank < 0)
        return false;
    for (int i = 0; i < shape->rank; i++)
        if (shape->dim[i] < 0)
            return false;
    return true;
}

int64_t mo_shape_elems(const struct mo_shape *shape)
{
    if (!mo_shape_known(shape))
        return MO_UNKNOWN;
    int64_t n = 1;
    bool overflow = false;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] == 0)
            return 0;
        overflow |= __builtin_mul_overflow(n, shape->dim[i], &n);
    }
    return overflow ? MO_UNKNOWN : n;
}

bool mo_shape_equal(const struct mo_shape *a, const struct mo_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

const char *mo_shape_text(const struct mo_shape *shape, char *buf, size_t buf_bytes)
{
    if (shape->rank <= 0) {
        snprintf(buf, buf_bytes, "%s", shape->rank < 0 ? "any shape" : "scalar");
        return buf;
    }
    size_t at = 0;
    for (int i = 0; i < shape->rank && at < buf_bytes; i++) {
        const char *x = i ? "x" : "";
        int n = shape->dim[i] < 0 ? snprintf(buf + at, buf_bytes - at, "%s?", x)
                                  : snprintf(buf + at, buf_bytes - at, "%s%" PRId64, x, shape->dim[i]);
        at += n > 0 ? (size_t)n : 0;
    }
    return buf;
}

bool mo_shape_broadcast(const struct mo_shape *a, const struct mo_shape *b, struct mo_shape *out)
{
    if (a->rank < 0 || b->rank < 0) {
        *out = (struct mo_shape){ .rank = MO_UNKNOWN };
        return true;
    }
    struct mo_shape result = { .rank = MO_MAX(a->rank, b->rank) };
    for (int i = 1; i <= result.rank; i++) {
        int64_t p = i <= a->rank ? a->dim[a->rank - i] : 1;
        int64_t q = i <= b->rank ? b->dim[b->rank - i] : 1;
        int64_t *d = &result.dim[result.rank - i];
        if (p == 1 || p == q)
            *d = q;
        else if (q == 1)
            *d = p;
        else if (p < 0 || q < 0)
            *d = MO_MAX(p, q);      /* the unknown one must be this, or 1 */
        else
            return false;
    }
    *out = result;
    return true;
}

/* loop.c - see loop.h. */
#include "kernels/cpu/loop.h"

static bool behind_each_other(const struct mo_loop *l, int last, const int64_t *const *strides, int axis, int64_t size)
{
    for (int k = 0; k < l->n_operands; k++)
        if (l->stride[k][last] != strides[k][axis] * size)
            return false;
    return true;
}

void mo_loop_init(struct mo_loop *l, int rank, const int64_t *dims, int n_operands, const int64_t *const *strides)
{
    l->rank = 0;
    l->n_operands = n_operands;
    for (int axis = 0; axis < rank; axis++) {
        if (dims[axis] == 1)
            continue;
        int at = l->rank;
        if (at > 0 && behind_each_other(l, at - 1, strides, axis, dims[axis]))
            l->dims[--at] *= dims[axis];
        else
            l->dims[at] = dims[axis];
        for (int k = 0; k < n_operands; k++)
            l->stride[k][at] = strides[k][axis];
        l->rank = at + 1;
    }
    if (l->rank == 0) {
        l->rank = 1;
        l->dims[0] = 1;
        for (int k = 0; k < n_operands; k++)
            l->stride[k][0] = 1;
    }
    l->n_rows = 1;
    for (int axis = 0; axis < l->rank - 1; axis++)
        l->n_rows *= l->dims[axis];
    l->row = l->dims[l->rank - 1];
    if (l->row == 0)
        l->n_rows = 0;
}

void mo_loop_seek(const struct mo_loop *l, int64_t i, int64_t *index, int64_t *offset)
{
    for (int k = 0; k < l->n_operands; k++)
        offset[k] = 0;
    for (int axis = l->rank - 2; axis >= 0; axis--) {
        int64_t dim = l->dims[axis] ? l->dims[axis] : 1;    /* an empty walk is never stepped */
        index[axis] = i % dim;
        i /= dim;
        for (int k = 0; k < l->n_operands; k++)
            offset[k] += index[axis] * l->stride[k][axis];
    }
}

void mo_loop_next(const struct mo_loop *l, int64_t *index, int64_t *offset)
{
    for (int axis = l->rank - 2; axis >= 0; axis--) {
        for (int k = 0; k < l->n_operands; k++)
            offset[k] += l->stride[k][axis];
        if (++index[axis] < l->dims[axis])
            return;
        for (int k = 0; k < l->n_operands; k++)
            offset[k] -= l->dims[axis] * l->stride[k][axis];
        index[axis] = 0;
    }
}

/* host.c - see host.h. */
#include "lib/ops/host.h"

enum mopt_status mo_host_open(struct mo_host *h, struct mo_run *r, const struct mo_node *n)
{
    *h = (struct mo_host){ .run = r, .node = n };
    for (uint32_t i = 0; i < n->n_in && i < MO_HOST_INPUTS; i++) {
        const struct mo_value *v = mo_in(r->graph, n, i);
        h->in[i] = mo_run_in(r, n, i);
        if (!v || !h->in[i] || r->be->is_host)
            continue;
        size_t bytes = mo_dtype_bytes(v->dtype, mo_value_elems(v));
        h->copies[i] = mo_mem_new(MO_MAX(bytes, (size_t)1), 1);
        if (!h->copies[i])
            return mo_no_memory(r->ctx, bytes, "an input in host memory");
        r->be->download(r->dev, h->copies[i], h->in[i], bytes);
        h->in[i] = h->copies[i];
    }
    return MOPT_OK;
}

void mo_host_close(struct mo_host *h)
{
    for (int i = 0; i < MO_HOST_INPUTS; i++)
        mo_mem_free(h->copies[i]);
}

void mo_host_put(struct mo_host *h, uint32_t k, const void *data)
{
    void *to = mo_run_out(h->run, h->node, k);
    size_t bytes = to ? mo_value_bytes(mo_out(h->run->graph, h->node, k)) : 0;
    if (bytes)
        h->run->be->upload(h->run->dev, to, data, bytes);
}

enum mopt_status mo_host_make(struct mo_host *h, uint32_t k, enum mo_dtype dtype, const struct mo_shape *shape,
                              const void *data)
{
    if (k >= h->node->n_out || h->node->out[k] == MO_NONE)
        return MOPT_OK;
    if (!mo_run_make_out(h->run, h->node, k, dtype, shape))
        return h->run->ctx->status;
    mo_host_put(h, k, data);
    return MOPT_OK;
}

int64_t mo_host_int(enum mo_dtype dtype, const void *data, int64_t i)
{
    switch (dtype) {
    case MO_I64: case MO_U64: case MO_STRING: return ((const int64_t *)data)[i];
    case MO_I32: return ((const int32_t *)data)[i];
    case MO_U32: return ((const uint32_t *)data)[i];
    case MO_I16: return ((const int16_t *)data)[i];
    case MO_U16: return ((const uint16_t *)data)[i];
    case MO_I8: return ((const int8_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
    }
}

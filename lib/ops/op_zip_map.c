/* ZipMap of ai.onnx.ml: rows of scores as maps from classes to scores. A map is kept here as the list of its values, in the
 * order of the classes in the attribute; so the result is a sequence of them, one a row. */
#include "lib/ops/ml.h"
#include "lib/ops/sequence.h"

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_ml_labels labels;
    MO_TRY(mo_ml_read_labels(ctx, n, &labels));
    int64_t width = x->shape.rank < 1 ? MO_UNKNOWN : x->shape.dim[x->shape.rank - 1];
    if ((x->shape.rank != MO_UNKNOWN && x->shape.rank != 1 && x->shape.rank != 2) ||
        (width != MO_UNKNOWN && width != (int64_t)labels.n))
        return mo_fail(ctx, MOPT_DATA, "rows of %lld scores for %zu classes", (long long)width, labels.n);
    mo_set_out_list(g, n, 0, MO_SEQUENCE, x->dtype);
    return MOPT_OK;
}

static enum mopt_status zip(struct mo_host *h)
{
    const struct mo_value *x = mo_in(h->run->graph, h->node, 0);
    int64_t rows = x->shape.rank == 2 ? x->shape.dim[0] : 1, width = x->shape.dim[x->shape.rank - 1];
    size_t stride = (size_t)width * mo_elem_bytes(x->dtype);
    struct mo_item *items = mo_mem_new((size_t)rows + 1, sizeof *items);
    if (!items)
        return mo_no_memory(h->run->ctx, (uint64_t)rows * sizeof *items, "a sequence");
    for (int64_t i = 0; i < rows; i++)
        items[i] = (struct mo_item){ x->dtype, mo_shape_of(1, width), (const char *)h->in[0] + (size_t)i * stride };
    enum mopt_status status = mo_sequence_put(h, 0, MO_SEQUENCE, items, rows);
    mo_mem_free(items);
    return status;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status)
        status = zip(&h);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_zip_map = {
    .type = "ZipMap", .domain = "ai.onnx.ml",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer, .forward = forward,
    .macs = mo_macs_zero,
};

/* ArrayFeatureExtractor, Binarizer of ai.onnx.ml: what pipelines of scikit-learn put before and behind a model. */
#include "lib/ops/tensor.h"

/* ---- ArrayFeatureExtractor: columns of the last axis by number ---- */

static enum mopt_status infer_extractor(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0), *index = mo_in(g, n, 1);
    struct mo_shape y = x->shape;
    MO_TRY(mo_check_movable(ctx, x->dtype));
    if (index->dtype != MO_I64 && index->dtype != MO_UNDEFINED)
        return mo_fail(ctx, MOPT_DATA, "the columns are %s, they should be int64", mo_dtype_name(index->dtype));
    if (y.rank == 0)
        return mo_fail(ctx, MOPT_DATA, "its input has no columns");
    if (y.rank == 1) {
        y.rank = 2;
        y.dim[0] = 1;
    }
    if (y.rank > 0)
        y.dim[y.rank - 1] = mo_value_elems(index);
    mo_set_out(g, n, 0, x->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status forward_extractor(struct mo_run *r, const struct mo_node *n)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    int last = x->shape.rank - 1;
    r->be->gather(r->dev, mo_elem_bytes(x->dtype), mo_dims_product(&x->shape, 0, last), x->shape.dim[last],
                  mo_value_elems(mo_in(r->graph, n, 1)), 1, mo_run_in(r, n, 0), mo_run_in(r, n, 1), mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_array_feature_extractor = {
    .type = "ArrayFeatureExtractor",
    .domain = "ai.onnx.ml",
    .since_opset = 1,
    .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
    .infer = infer_extractor, .forward = forward_extractor,
    .macs = mo_macs_zero,
};

/* ---- Binarizer: 1 where x is above the threshold, else 0 ---- */

static enum mopt_status prepare_binarizer(struct mo_run *r, const struct mo_node *n)
{
    enum mo_dtype dtype = mo_in(r->graph, n, 0)->dtype;
    if (dtype == MO_F32 || dtype == MO_F64 || dtype == MO_I64 || dtype == MO_I32)
        return MOPT_OK;
    return mo_fail(r->ctx, MOPT_DATA, "its input is %s, it should be a number", mo_dtype_name(dtype));
}

/* Scratch: x as float64 (threshold and integers fit), the bytes, the threshold. */
static size_t scratch_binarizer(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    size_t n_x = mo_run_in_elems(r, n, 0);
    return backward ? 0 : mo_part_bytes(n_x * sizeof(double)) + mo_part_bytes(n_x) + MO_ALIGN_BYTES;
}

static enum mopt_status forward_binarizer(struct mo_run *r, const struct mo_node *n)
{
    const int dtype = (int)mo_in(r->graph, n, 0)->dtype;
    const size_t n_x = mo_run_in_elems(r, n, 0);
    const int64_t dim = (int64_t)n_x, one = 1, still = 0;
    const double threshold = (double)mo_node_float(n, "threshold", 0);
    char *wide = mo_run_scratch(r, n), *above = wide + mo_part_bytes(n_x * sizeof(double));
    char *limit = above + mo_part_bytes(n_x);
    r->be->cast(r->dev, dtype, MO_F64, n_x, mo_run_in(r, n, 0), wide);
    r->be->fill(r->dev, sizeof threshold, 1, &threshold, limit);
    r->be->binary(r->dev, MO_GREATER, MO_F64, 1, &dim, &one, &still, wide, limit, above);
    r->be->cast(r->dev, MO_BOOL, dtype, n_x, above, mo_run_out(r, n, 0));
    return MOPT_OK;
}

const struct mo_op mo_op_binarizer = {
    .type = "Binarizer",
    .domain = "ai.onnx.ml",
    .since_opset = 1,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_ELEMENTWISE,
    .infer = mo_infer_like_input, .prepare = prepare_binarizer, .forward = forward_binarizer,
    .scratch_bytes = scratch_binarizer,
    .macs = mo_macs_zero,
};

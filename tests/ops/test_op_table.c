/* The table of operators: its order, its rows, and that no operator falls over a
 * node that a file could hold. Each is given random inputs and attributes, of
 * which most do not fit; what fits is run. Whatever happens must be a status. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/graph/op.h"
#include "lib/run/run.h"

#define N_TRIES 150
#define MAX_RUN_ELEMS 20000

START_TEST(rows_are_whole)
{
    for (size_t i = 0; mo_op_at(i); i++) {
        const struct mo_op *op = mo_op_at(i);
        bool is_view = op->flags & MO_OP_VIEW;
        ck_assert_msg(op->type && op->infer, "row %zu", i);
        ck_assert_msg(op->since_opset >= 1 && op->min_in >= 0 && op->min_out >= 0, "%s", op->type);
        ck_assert_msg(op->max_in < 0 || op->max_in >= op->min_in, "%s", op->type);
        ck_assert_msg(op->max_out < 0 || op->max_out >= op->min_out, "%s", op->type);
        ck_assert_msg(!op->backward || op->forward || is_view, "%s goes backward only", op->type);
        ck_assert_msg(!op->unprepare || op->prepare, "%s unprepares only", op->type);
        ck_assert_msg(!op->expand || (!op->forward && !is_view), "%s is run twice", op->type);
        ck_assert_msg(!op->couple || mo_op_runs(op), "%s is pruned but not run", op->type);
        ck_assert_ptr_eq(mo_op_find(op->type, op->domain, op->since_opset), op);
        const struct mo_op *older = mo_op_find(op->type, op->domain, op->since_opset - 1);
        ck_assert_msg(!older || older->since_opset < op->since_opset, "%s", op->type);
    }
}
END_TEST

START_TEST(the_list_is_sorted)
{
    FILE *f = fopen("lib/ops/ops.def", "r");
    char before[128] = "", line[128];
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "OP(", 3))
            continue;
        ck_assert_msg(strcmp(before, line) < 0, "%s comes after %s", line, before);
        snprintf(before, sizeof before, "%s", line);
    }
    fclose(f);
}
END_TEST

/* ---- hostile nodes ---- */

static const char *const int_attrs[] = {
    "axis", "group", "keepdims", "num_groups", "q_num_heads", "kv_num_heads", "is_causal", "transA", "transB", "p",
    "size", "blocksize", "ceil_mode", "storage_order", "k", "to", "allowzero", "num_outputs", "batch_dims", "start",
    "end", "largest", "sorted", "count_include_pad", "training_mode", "select_last_index", "exclusive", "reverse",
    "noop_with_empty_axes", "upper", "block_size", "dtype", "hidden_size", "axis_w", "qk_matmul_output_mode",
};
static const char *const list_attrs[] = {
    "kernel_shape", "strides", "pads", "dilations", "perm", "axes", "split", "starts", "ends", "output_padding",
    "output_shape", "shape", "scales", "repeats", "value_ints",
};
static const char *const text_attrs[] = {"auto_pad", "mode", "reduction", "direction", "equation", "approximate"};
static const char *const texts[] = {"SAME_UPPER", "VALID", "constant", "reflect", "edge", "wrap", "nearest", "linear",
                                    "cubic", "add", "max", "DCR", "nonsense", "ij,jk->ik", ""};

struct fuzz {
    struct mopt_ctx *ctx;
    struct mopt_model *model;
    struct mo_graph *g;
    struct mo_rng rng;
};

static int64_t below(struct fuzz *f, int64_t n)
{
    return mo_rng_below(&f->rng, (uint32_t)n);
}

/* Mostly small, sometimes far off. */
static int64_t some_int(struct fuzz *f)
{
    static const int64_t odd[] = {INT64_MAX, INT64_MIN, INT32_MAX, INT32_MIN, -1, 0, 1 << 30, 1000000007};
    return below(f, 12) ? below(f, 7) - 2 : odd[below(f, (int64_t)MO_COUNT(odd))];
}

static void add_attrs(struct fuzz *f, mo_node_id node)
{
    int64_t ints[8];
    for (int64_t i = below(f, 6); i > 0; i--) {
        size_t n = (size_t)below(f, 7);
        for (size_t k = 0; k < n; k++)
            ints[k] = some_int(f);
        switch (below(f, 3)) {
        case 0: mo_node_set_int(f->g, node, int_attrs[below(f, MO_COUNT(int_attrs))], some_int(f)); break;
        case 1: mo_node_set_ints(f->g, node, list_attrs[below(f, MO_COUNT(list_attrs))], ints, n); break;
        default:
            mo_node_set_text(f->g, node, text_attrs[below(f, MO_COUNT(text_attrs))], texts[below(f, MO_COUNT(texts))]);
        }
    }
}

static mo_value_id add_input(struct fuzz *f)
{
    static const enum mo_dtype types[] = {MO_F32, MO_F32, MO_F32, MO_F32, MO_I64, MO_I64, MO_BOOL, MO_U8, MO_I32, MO_F64};
    enum mo_dtype dtype = types[below(f, MO_COUNT(types))];
    static const int ranks[] = {4, 4, 3, 2, 1, 1, 0, 5, 6};
    struct mo_shape shape = {.rank = ranks[below(f, MO_COUNT(ranks))]};
    for (int i = 0; i < shape.rank; i++)
        shape.dim[i] = below(f, 15) ? 1 + below(f, 3) : 0;
    if (below(f, 12) == 0)
        return MO_NONE;
    if (below(f, 2)) {
        mo_value_id v = mo_graph_add_value(f->g, "x", dtype, &shape);
        ck_assert(mo_graph_add_input(f->g, v));
        return v;
    }
    mo_value_id v = mo_graph_add_const(f->g, "c", dtype, &shape, NULL);
    for (int64_t i = 0; i < mo_shape_elems(&shape); i++) {
        if (dtype == MO_I64)
            ((int64_t *)f->g->values[v].data)[i] = some_int(f);
        else if (dtype == MO_F32)
            ((float *)f->g->values[v].data)[i] = 2 * mo_rng_float(&f->rng) - 1;
    }
    return v;
}

static void build(struct fuzz *f, const struct mo_op *op)
{
    mo_value_id in[8], out[8];
    uint32_t n_in = (uint32_t)op->min_in, n_out = (uint32_t)(op->min_out ? op->min_out : 1);
    int64_t most = op->max_in < 0 ? op->min_in + 3 : op->max_in;
    n_in += (uint32_t)below(f, (most < 8 ? most : 7) - op->min_in + 1);
    for (uint32_t i = 0; i < n_in; i++)
        in[i] = add_input(f);
    if (op->max_out > (int)n_out && below(f, 3) == 0)
        n_out = (uint32_t)(op->max_out < 8 ? op->max_out : 8);
    for (uint32_t i = 0; i < n_out; i++)
        out[i] = mo_graph_add_value(f->g, "y", MO_UNDEFINED, &(struct mo_shape){.rank = MO_UNKNOWN});
    mo_node_id node = mo_graph_add_node(f->g, op->type, op->domain, "node", in, n_in, out, n_out);
    add_attrs(f, node);
    for (uint32_t i = 0; i < n_out; i++)
        ck_assert(mo_graph_add_output(f->g, out[i]));
}

/* Everything known and small? */
static bool may_run(const struct mo_graph *g)
{
    for (uint32_t i = 0; i < g->n_values; i++) {
        int64_t elems = mo_shape_elems(&g->values[i].shape);
        if (elems < 0 || elems > MAX_RUN_ELEMS)
            return false;
    }
    return true;
}

static void ask(const struct mo_graph *g)
{
    const struct mo_node *n = &g->nodes[0];
    if (n->op->macs)
        ck_assert_int_ge(n->op->macs(g, n), MO_UNKNOWN);
}

/* Runs what can be run; the status does not matter, the sanitizers and this process do. */
static bool run_it(struct fuzz *f, bool train)
{
    struct mo_run_options options = {.train = train};
    struct mo_run *run = NULL;
    struct mo_shape shapes[8];
    uint32_t n = 0;
    if (mo_run_new(f->ctx, f->g, &options, &run))
        return false;
    for (uint32_t i = 0; i < f->g->n_inputs; i++)
        shapes[n++] = f->g->values[f->g->inputs[i]].shape;
    bool is_ok = !mo_run_shape(run, shapes, n);
    for (uint32_t i = 0; is_ok && i < n; i++) {
        size_t bytes = mo_value_bytes(mo_run_input(run, i));
        char *zeros = calloc(bytes + 1, 1);
        is_ok = !mo_run_set_input(run, i, zeros, bytes);
        free(zeros);
    }
    run->is_training = train;
    is_ok = is_ok && !mo_run_forward(run);
    for (uint32_t i = 0; is_ok && train && i < mo_run_n_outputs(run); i++) {
        float *dy = mo_run_output_grad(run, i);
        if (dy)
            memset(dy, 0, (size_t)mo_value_elems(mo_run_output(run, i)) * sizeof *dy);
    }
    is_ok = is_ok && (!train || !mo_run_backward(run, false));
    mo_run_free(run);
    return is_ok;
}

START_TEST(no_node_is_a_crash)
{
    const struct mo_op *op = mo_op_at((size_t)_i);
    if (op->flags & MO_OP_INTERNAL)
        return;
    for (uint64_t t = 0; t < N_TRIES; t++) {
        struct fuzz f = {.ctx = mopt_open("cpu", 1), .model = mo_model_new(), .rng = mo_rng_new(t, MO_RNG_TEST, (uint64_t)_i)};
        static const int opsets[] = {7, 9, 11, 13, 17, 18, 21, 23, 25};
        f.g = &f.model->graph;
        ck_assert(mo_model_set_opset(f.model, "", opsets[below(&f, MO_COUNT(opsets))]));
        if (op->domain && op->domain[0])
            mo_model_set_opset(f.model, op->domain, op->since_opset);
        build(&f, op);
        bool is_known = !mo_graph_sort(f.ctx, f.g) && f.g->nodes[0].op && !mo_infer(f.ctx, f.g, NULL, 0);
        if (is_known)
            ask(f.g);
        mopt_clear(f.ctx);
        if (is_known && may_run(f.g)) {
            run_it(&f, false);
            mopt_clear(f.ctx);
            run_it(&f, true);
        }
        mopt_model_free(f.model);
        mopt_close(f.ctx);
    }
}
END_TEST

Suite *suite_op_table(void);
Suite *suite_op_table(void)
{
    Suite *suite = suite_create("op_table");
    TCase *table = tcase_create("table"), *hostile = tcase_create("hostile");
    int n = 0;
    while (mo_op_at((size_t)n))
        n++;
    tcase_add_test(table, rows_are_whole);
    tcase_add_test(table, the_list_is_sorted);
    tcase_add_loop_test(hostile, no_node_is_a_crash, 0, n);
    tcase_set_timeout(hostile, 30);
    suite_add_tcase(suite, table);
    suite_add_tcase(suite, hostile);
    return suite;
}

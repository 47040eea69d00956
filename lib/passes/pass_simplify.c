/* pass_simplify.c - simplify: rules that keep what a model computes, again and again until none applies.
 *
 * Each rule is one row, with a flag to leave it out. The driver runs the model before and after. */
#include <math.h>
#include <string.h>

#include "lib/graph/large.h"
#include "lib/graph/op.h"
#include "lib/graph/private.h"
#include "lib/passes/quantize.h"
#include "lib/passes/rewrite.h"
#include "lib/run/run.h"

enum { MAX_ROUNDS = 50 };
/* Constants may grow to this many bytes in all before folding stops: a file that others still read, since protobuf ends
 * at 2 GB. */
#define LEAST_FOLD_BYTES ((uint64_t)1000000000)

enum rule_id {
    INLINE_FUNCTIONS, FREE_INITIALIZERS, LIFT_CONSTANTS, FOLD_CONSTANTS, FOLD_SHAPES, ATTENTION, DROP_IDENTITY, DROP_STATES, MERGE_RESHAPES,
    KEEP_DIMS,
    CANCEL_TRANSPOSES, FOLD_BATCHNORM, FOLD_ARITHMETIC, FOLD_PAD, MAKE_GEMM, ADD_IN_GEMM, TIDY_GEMM, COMPOSE, MERGE_CONSTANTS, MERGE_NODES, DROP_UNUSED,
    N_RULES
};

struct simplify_options { bool on[N_RULES]; double fold_limit; };
#define RULE(id, words, text) \
    { words, MOPT_OPT_BOOL, offsetof(struct simplify_options, on) + (id) * sizeof(bool), .def = 1, .help = text }
static const struct mopt_option options[] = {
    { "inline-functions", MOPT_OPT_BOOL, offsetof(struct simplify_options, on) + INLINE_FUNCTIONS * sizeof(bool),
      .help = "calls of the model's own functions become their nodes" },
    RULE(FREE_INITIALIZERS, "free-initializers", "weights that old files also list as inputs are constants"),
    RULE(LIFT_CONSTANTS, "lift-constants", "Constant nodes become initializers"),
    RULE(FOLD_CONSTANTS, "fold-constants", "what depends on constants alone is computed"),
    RULE(FOLD_SHAPES, "fold-shapes", "targets of Reshape computed from shapes become constants"),
    RULE(ATTENTION, "attention", "MatMul, scale, mask, Softmax, MatMul become Attention (opset 23)"),
    RULE(DROP_IDENTITY, "drop-identity", "nodes that give out what they read"),
    RULE(DROP_STATES, "drop-zero-states", "first states of LSTM, GRU, RNN that are zero"),
    RULE(MERGE_RESHAPES, "merge-reshapes", "Reshape, Squeeze, Unsqueeze, Flatten in a row become one, or none"),
    RULE(KEEP_DIMS, "keep-dims", "Squeeze, Unsqueeze behind a Reduce become its keepdims"),
    RULE(CANCEL_TRANSPOSES, "cancel-transposes", "Transposes that undo one another"),
    RULE(FOLD_BATCHNORM, "fold-batchnorm", "BatchNormalization into the Conv or Gemm before it"),
    RULE(FOLD_ARITHMETIC, "fold-arithmetic", "constant Mul, Div, Add, Sub into the Conv, Gemm or BatchNormalization before it"),
    RULE(FOLD_PAD, "fold-pad", "Pad into the Conv or pool behind it"),
    RULE(MAKE_GEMM, "make-gemm", "MatMul and Add of a constant row become Gemm"),
    RULE(ADD_IN_GEMM, "add-in-gemm", "MatMul and Add of what is computed become Gemm"),
    RULE(TIDY_GEMM, "tidy-gemm", "alpha and beta of Gemm into its constants"),
    RULE(COMPOSE, "compose", "LayerNormalization, RMSNormalization, Gelu, HardSigmoid, HardSwish out of their parts"),
    RULE(MERGE_CONSTANTS, "merge-constants", "constants with the same elements"),
    RULE(MERGE_NODES, "merge-nodes", "nodes that compute the same"),
    RULE(DROP_UNUSED, "drop-unused", "nodes and initializers that nobody reads"),
    { "fold-limit", MOPT_OPT_FLOAT, offsetof(struct simplify_options, fold_limit), .def = NAN, .min = 0, .max = 1e6,
      .word = "MB", .needs = "fold-constants",
      .help = "how much folding may add; by default constants may double, or grow to 1 GB in all" },
    { 0 }
};

struct simplify {
    struct mo_job *job;
    struct mopt_model *model;       /* the job's, or a copy for a dry run */
    const struct simplify_options *options;
    struct mo_rewrite r;
    size_t may_fold_bytes;          /* left of what folding may make */
    uint32_t n_changes[N_RULES];
};

/* ---- rules over the whole graph ---------------------------------------------------------- */

static enum mopt_status lift_constants(struct simplify *s)
{
    struct mo_graph *g = s->r.g;
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        struct mo_node *n = &g->nodes[i];
        const struct mo_value *v = mo_out(g, n, 0);
        if (n->is_dead || !mo_node_is(n, "Constant") || n->n_out != 1 || !v || !v->data || v->is_output)
            continue;
        n->is_dead = true;
        s->r.n_changes++;
    }
    mo_graph_sweep(g);
    return MOPT_OK;
}

static enum mopt_status fold_constants(struct simplify *s)
{
    struct mo_graph *g = s->r.g;
    uint32_t before = g->n_nodes;
    enum mopt_status status = mo_fold_constants(s->r.ctx, g, SIZE_MAX, &s->may_fold_bytes);
    s->r.n_changes += before - g->n_nodes;
    return status;
}

static enum mopt_status drop_unused(struct simplify *s)
{
    struct mo_graph *g = s->r.g;
    uint32_t before = g->n_nodes + g->n_initializers;
    mo_graph_drop_unused(g);
    s->r.n_changes += before - (g->n_nodes + g->n_initializers);
    return MOPT_OK;
}

static enum mopt_status inline_functions(struct simplify *s)
{
    return mo_model_inline(s->r.ctx, s->model, &s->r.n_changes);
}

static enum mopt_status free_initializers(struct simplify *s)
{
    uint32_t before = s->r.g->n_inputs;
    if (before)
        mo_quant_free_initializers(s->model);
    s->r.n_changes += before - s->r.g->n_inputs;
    return MOPT_OK;
}

static enum mopt_status merge_constants(struct simplify *s) { return mo_rewrite_equal_constants(&s->r); }
static enum mopt_status merge_nodes(struct simplify *s) { return mo_rewrite_equal_nodes(&s->r); }

/* A row has one of the two. */
static const struct rule {
    const char *name;
    enum mopt_status (*whole)(struct simplify *s);
    mo_rewrite_fn *node;
} rules[N_RULES] = {
    [INLINE_FUNCTIONS] = { "inline-functions", inline_functions, NULL },
    [FREE_INITIALIZERS] = { "free-initializers", free_initializers, NULL },
    [LIFT_CONSTANTS] = { "lift-constants", lift_constants, NULL },
    [FOLD_CONSTANTS] = { "fold-constants", fold_constants, NULL },
    [FOLD_SHAPES] = { "fold-shapes", NULL, mo_rewrite_reshape },
    [ATTENTION] = { "attention", NULL, mo_rewrite_attention },
    [DROP_IDENTITY] = { "drop-identity", NULL, mo_rewrite_identity },
    [DROP_STATES] = { "drop-zero-states", NULL, mo_rewrite_zero_state },
    [MERGE_RESHAPES] = { "merge-reshapes", NULL, mo_rewrite_movers },
    [KEEP_DIMS] = { "keep-dims", NULL, mo_rewrite_keepdims },
    [CANCEL_TRANSPOSES] = { "cancel-transposes", NULL, mo_rewrite_transpose },
    [FOLD_BATCHNORM] = { "fold-batchnorm", NULL, mo_rewrite_batchnorm },
    [FOLD_ARITHMETIC] = { "fold-arithmetic", NULL, mo_rewrite_arithmetic },
    [FOLD_PAD] = { "fold-pad", NULL, mo_rewrite_pad },
    [MAKE_GEMM] = { "make-gemm", NULL, mo_rewrite_make_gemm },
    [ADD_IN_GEMM] = { "add-in-gemm", NULL, mo_rewrite_gemm_add },
    [TIDY_GEMM] = { "tidy-gemm", NULL, mo_rewrite_tidy_gemm },
    [COMPOSE] = { "compose", NULL, mo_rewrite_compose },
    [MERGE_CONSTANTS] = { "merge-constants", merge_constants, NULL },
    [MERGE_NODES] = { "merge-nodes", merge_nodes, NULL },
    [DROP_UNUSED] = { "drop-unused", drop_unused, NULL },
};

/* ---- rounds --------------------------------------------------------------------------------- */

static enum mopt_status apply_rule(struct simplify *s, const struct rule *rule)
{
    struct mo_graph *g = s->r.g;
    if (rule->whole)
        return rule->whole(s);
    uint32_t n_nodes = g->n_nodes;
    for (mo_node_id i = 0; i < n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (n->is_dead || !mo_is_selected(s->job, n->name, NULL))
            continue;
        enum mopt_status status = rule->node(&s->r, i);
        char label[200];
        if (status) {
            mo_blame(s->r.ctx, "%s", mo_node_label(g, &g->nodes[i], label, sizeof label));
            return status;
        }
    }
    bool has_new = g->n_nodes > n_nodes;        /* they stand behind their readers */
    mo_graph_sweep(g);
    return has_new ? mo_graph_sort(s->r.ctx, g) : MOPT_OK;
}

static enum mopt_status one_round(struct simplify *s, uint32_t *n_changes)
{
    *n_changes = 0;
    for (int k = 0; k < N_RULES; k++) {
        if (!s->options->on[k])
            continue;
        MO_TRY(mo_stopped(s->r.ctx));
        MO_TRY(mo_infer(s->r.ctx, s->r.g, NULL, 0));
        s->r.n_changes = 0;
        enum mopt_status status = apply_rule(s, &rules[k]);
        if (status) {
            mo_blame(s->r.ctx, "rule %s", rules[k].name);
            return status;
        }
        s->n_changes[k] += s->r.n_changes;
        *n_changes += s->r.n_changes;
    }
    return MOPT_OK;
}

/* Weights that a caller may override are no constants while the rules work: their data is put aside. */
struct aside { mo_value_id id; void *data; enum mo_data_owner owner; };

static enum mopt_status put_aside(struct mo_job *job, struct mo_graph *g, struct aside **list, uint32_t *n)
{
    *n = 0;
    *list = mo_arena_new(job->scratch, g->n_inputs + 1, sizeof **list);
    if (!*list)
        return mo_no_memory(job->ctx, g->n_inputs * sizeof **list, "inputs");
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        struct mo_value *v = &g->values[g->inputs[i]];
        if (!v->is_initializer)
            continue;
        (*list)[(*n)++] = (struct aside){ g->inputs[i], v->data, v->owner };
        v->data = NULL;
        v->owner = MO_DATA_BORROWED;
    }
    return MOPT_OK;
}

static void put_back(struct mo_graph *g, const struct aside *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        g->values[list[i].id].data = list[i].data;
        g->values[list[i].id].owner = list[i].owner;
    }
}

/* ---- a model in which no rule found anything ------------------------------------------------- */

/* What the file said of a value, which inference has since said better. */
struct said { enum mo_dtype dtype; struct mo_shape shape; const char **dim_names; const struct mo_kept *kept_dims; bool has_info; };

static struct said *note_said(struct mo_job *job, const struct mo_graph *g)
{
    struct said *said = mo_arena_new(job->scratch, g->n_values + 1u, sizeof *said);
    for (mo_value_id v = 0; said && v < g->n_values; v++) {
        const struct mo_value *value = &g->values[v];
        said[v] = (struct said){ value->dtype, value->shape, value->dim_names, value->kept_dims, value->has_info };
    }
    return said;
}

/* It is written as it came. */
static void say_again(struct mo_graph *g, const struct said *said)
{
    for (mo_value_id v = 0; v < g->n_values; v++) {
        struct mo_value *value = &g->values[v];
        value->dtype = said[v].dtype;
        value->shape = said[v].shape;
        value->dim_names = said[v].dim_names;
        value->kept_dims = said[v].kept_dims;
        value->has_info = said[v].has_info;
        value->known = NULL;
    }
}

static bool has_changed(const struct simplify *s)
{
    for (int k = 0; k < N_RULES; k++)
        if (s->n_changes[k])
            return true;
    return false;
}

static enum mopt_status simplify(struct simplify *s)
{
    struct mo_graph *g = s->r.g;
    const struct said *said = note_said(s->job, g);
    if (!said)
        return mo_no_memory(s->job->ctx, g->n_values * sizeof *said, "shapes of values");
    struct aside *aside = NULL;
    uint32_t n_aside = 0, n_changes = 1;
    if (!s->options->on[FREE_INITIALIZERS])
        MO_TRY(put_aside(s->job, g, &aside, &n_aside));
    enum mopt_status status = mo_graph_index(s->r.ctx, g);
    for (int round = 0; !status && n_changes && round < MAX_ROUNDS; round++)
        status = one_round(s, &n_changes);
    put_back(g, aside, n_aside);
    if (!status && !has_changed(s))
        say_again(g, said);
    return status || !has_changed(s) ? status : mo_infer(s->r.ctx, g, NULL, 0);
}

static enum mopt_status run(struct mo_job *job)
{
    struct simplify s = { .job = job, .model = job->model, .options = job->options };
    s.r = (struct mo_rewrite){ .ctx = job->ctx, .g = &s.model->graph };
    s.may_fold_bytes = (size_t)(s.options->fold_limit * 1e6);
    if (isnan(s.options->fold_limit)) {
        uint64_t bytes = mo_graph_constant_bytes(s.r.g);
        s.may_fold_bytes = (size_t)(bytes < LEAST_FOLD_BYTES / 2 ? LEAST_FOLD_BYTES - bytes : bytes);
    }
    uint32_t n_before = s.r.g->n_nodes;
    enum mopt_status status = simplify(&s);
    struct mopt_report *list = mo_report_list(job->report, "rules");
    for (int k = 0; k < N_RULES && !status; k++) {
        struct mopt_report *row = mo_report_object(list, NULL);
        mo_report_set_text(row, "rule", rules[k].name);
        mo_report_set_bool(row, "applied", s.options->on[k]);
        mo_report_set_int(row, "changes", s.n_changes[k]);
    }
    mo_report_set_int(job->report, "nodes_before", n_before);
    mo_report_set_int(job->report, "nodes_after", s.r.g->n_nodes);
    return status;
}

const struct mo_pass mo_pass_simplify = {
    .name = "simplify",
    .help = "exact clean-up: fold, merge, drop",
    .options = options,
    .options_bytes = sizeof(struct simplify_options),
    .flags = MO_PASS_EXACT | MO_PASS_SELECTS,
    .run = run,
};

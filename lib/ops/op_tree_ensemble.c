/* TreeEnsemble, TreeEnsembleRegressor, TreeEnsembleClassifier of ai.onnx.ml: decision trees over the features of a row.
 * From the root, x[feature] is compared with the node's value and the branch taken, until a leaf adds its weights to its
 * targets; the trees' weights are summed (averaged, least, largest), base values added and a last function applied.
 *
 * Forms of the file (a table of nodes with tree and node numbers; since version 5 indices) become one list of nodes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/ops/ml.h"

enum tree_mode { LEQ, LESS, GTE, GREATER, EQUAL, NOT_EQUAL, MEMBER, LEAF };
enum tree_sum { SUM_AVERAGE, SUM_SUM, SUM_MIN, SUM_MAX };

struct tree_node {
    enum tree_mode mode;
    bool missing_is_true;
    int64_t feature;
    double value;
    int64_t yes, no;                    /* indices of nodes */
    int64_t first, count;               /* of weights (a leaf), of members (MEMBER) */
};
struct tree_weight { int64_t target; double weight; };

struct ensemble {
    struct tree_node *nodes;
    struct tree_weight *weights;
    double *members, *base;
    int64_t *roots, n_nodes, n_weights, n_roots, n_targets, n_features;     /* n_features: at least so many are read */
    size_t n_base;
    enum tree_sum sum;
    enum mo_ml_post post;
    bool is_classifier, is_binary, is_positive;     /* is_binary: two classes, weights of one alone */
};

static enum mopt_status wrong_table(struct mopt_ctx *ctx, const char *what)
{
    return mo_fail(ctx, MOPT_DATA, "its trees are broken: %s", what);
}

/* ---- lists of the file ---- */

static enum mopt_status ints_of(struct mopt_ctx *ctx, const struct mo_node *n, const char *name, int64_t want,
                                const int64_t **ints)
{
    size_t count = 0;
    *ints = mo_node_ints(n, name, &count);
    if (want >= 0 && count != (size_t)want)
        return mo_fail(ctx, MOPT_DATA, "%s has %zu entries, not %lld", name, count, (long long)want);
    return MOPT_OK;
}

static size_t count_of(const struct mo_node *n, const char *name)
{
    size_t count = 0;
    mo_node_ints(n, name, &count);
    return count;
}

static enum mopt_status check_branches(struct mopt_ctx *ctx, struct ensemble *e)
{
    for (int64_t i = 0; i < e->n_nodes; i++) {
        const struct tree_node *t = &e->nodes[i];
        if (t->mode == LEAF)
            continue;
        if (t->yes < 0 || t->no < 0 || t->yes >= e->n_nodes || t->no >= e->n_nodes || t->feature < 0)
            return wrong_table(ctx, "a branch leads nowhere, or reads no feature");
        e->n_features = MO_MAX(e->n_features, t->feature + 1);
    }
    for (int64_t i = 0; i < e->n_weights; i++)
        if (e->weights[i].target < 0 || e->weights[i].target >= e->n_targets)
            return wrong_table(ctx, "a leaf adds to a target that is not there");
    return MOPT_OK;
}

/* ---- version 5: nodes and leaves by index ---- */

static enum mopt_status read_members(struct mopt_ctx *ctx, const struct mo_node *n, struct ensemble *e)
{
    size_t count = 0, at = 0;
    MO_TRY(mo_ml_numbers(ctx, n, "membership_values", NULL, &e->members, &count));
    for (int64_t i = 0; i < e->n_nodes; i++) {
        if (e->nodes[i].mode != MEMBER)
            continue;
        e->nodes[i].first = (int64_t)at;
        while (at < count && !isnan(e->members[at]))
            at++;
        e->nodes[i].count = (int64_t)at - e->nodes[i].first;
        at++;
    }
    return MOPT_OK;
}

static enum mopt_status read_indexed(struct mopt_ctx *ctx, const struct mo_node *n, struct ensemble *e)
{
    const int64_t *feature, *yes, *no, *yes_leaf, *no_leaf, *missing, *targets, *roots;
    double *modes = NULL, *splits = NULL, *weights = NULL;
    int64_t inner = (int64_t)count_of(n, "nodes_featureids"), leaves = (int64_t)count_of(n, "leaf_targetids");
    size_t n_modes = 0, n_splits = 0, n_weights = 0;
    MO_TRY(ints_of(ctx, n, "nodes_featureids", inner, &feature));
    MO_TRY(ints_of(ctx, n, "nodes_truenodeids", inner, &yes));
    MO_TRY(ints_of(ctx, n, "nodes_falsenodeids", inner, &no));
    MO_TRY(ints_of(ctx, n, "nodes_trueleafs", inner, &yes_leaf));
    MO_TRY(ints_of(ctx, n, "nodes_falseleafs", inner, &no_leaf));
    MO_TRY(ints_of(ctx, n, "nodes_missing_value_tracks_true",
                   mo_node_attr(n, "nodes_missing_value_tracks_true") ? inner : -1, &missing));
    MO_TRY(ints_of(ctx, n, "leaf_targetids", leaves, &targets));
    MO_TRY(ints_of(ctx, n, "tree_roots", -1, &roots));
    enum mopt_status status = mo_ml_numbers(ctx, n, "nodes_modes", NULL, &modes, &n_modes);
    if (!status)
        status = mo_ml_numbers(ctx, n, "nodes_splits", NULL, &splits, &n_splits);
    if (!status)
        status = mo_ml_numbers(ctx, n, "leaf_weights", NULL, &weights, &n_weights);
    if (!status && (n_modes != (size_t)inner || n_splits != (size_t)inner || n_weights != (size_t)leaves))
        status = wrong_table(ctx, "its lists are of different lengths");
    e->n_nodes = inner + leaves;
    e->n_weights = leaves;
    e->n_roots = (int64_t)count_of(n, "tree_roots");
    e->nodes = mo_mem_new((size_t)e->n_nodes + 1, sizeof *e->nodes);
    e->weights = mo_mem_new((size_t)leaves + 1, sizeof *e->weights);
    e->roots = mo_mem_new((size_t)e->n_roots + 1, sizeof *e->roots);
    if (!status && (!e->nodes || !e->weights || !e->roots))
        status = mo_no_memory(ctx, (size_t)e->n_nodes * sizeof *e->nodes, "trees");
    for (int64_t i = 0; !status && i < inner; i++) {
        int mode = (int)modes[i];
        if (mode < LEQ || mode > MEMBER)
            status = mo_fail(ctx, MOPT_DATA, "a node's mode is %d, it should be 0 to 6", mode);
        else
            e->nodes[i] = (struct tree_node){ .mode = (enum tree_mode)mode, .missing_is_true = missing && missing[i],
                                              .feature = feature[i], .value = splits[i],
                                              .yes = yes[i] + (yes_leaf[i] ? inner : 0),
                                              .no = no[i] + (no_leaf[i] ? inner : 0) };
    }
    for (int64_t i = 0; !status && i < leaves; i++) {
        e->nodes[inner + i] = (struct tree_node){ .mode = LEAF, .first = i, .count = 1 };
        e->weights[i] = (struct tree_weight){ targets[i], weights[i] };
    }
    for (int64_t i = 0; !status && i < e->n_roots; i++) {
        e->roots[i] = roots[i];
        if (roots[i] < 0 || roots[i] >= inner)
            status = wrong_table(ctx, "a tree begins nowhere");
    }
    mo_mem_free(modes);
    mo_mem_free(splits);
    mo_mem_free(weights);
    if (!status)
        status = read_members(ctx, n, e);
    return status;
}

/* ---- versions 1 and 3: nodes and weights by (tree, node) ---- */

struct key { int64_t tree, node, index; };

static int by_key(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    if (x->tree != y->tree)
        return x->tree < y->tree ? -1 : 1;
    return (x->node > y->node) - (x->node < y->node);
}

static int64_t find_node(const struct key *keys, int64_t n, int64_t tree, int64_t node)
{
    const struct key want = { tree, node, 0 }, *found = bsearch(&want, keys, (size_t)n, sizeof want, by_key);
    return found ? found->index : -1;
}

static int mode_of(const char *text)
{
    static const char *const names[] = { "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ",
                                         "BRANCH_MEMBER", "LEAF" };
    for (size_t i = 0; i < MO_COUNT(names); i++)
        if (!strcmp(text, names[i]) && i != MEMBER)
            return (int)i;
    return -1;
}

/* Weights by target in the file's order become those of the leaves, side by side. */
static enum mopt_status read_weights(struct mopt_ctx *ctx, struct ensemble *e, const struct key *keys, const int64_t *tree,
                                     const int64_t *node, const int64_t *target, const double *weight)
{
    int64_t *leaf = mo_mem_new((size_t)e->n_weights + 1, sizeof *leaf), at = 0;
    if (!leaf)
        return mo_no_memory(ctx, (size_t)e->n_weights * sizeof *leaf, "trees");
    enum mopt_status status = MOPT_OK;
    for (int64_t i = 0; !status && i < e->n_weights; i++) {
        leaf[i] = find_node(keys, e->n_nodes, tree[i], node[i]);
        if (leaf[i] < 0)
            status = wrong_table(ctx, "a weight is of a node that is not there");
        else
            e->nodes[leaf[i]].count++;
    }
    for (int64_t i = 0; !status && i < e->n_nodes; i++) {
        e->nodes[i].first = at;
        at += e->nodes[i].count;
        e->nodes[i].count = 0;
    }
    for (int64_t i = 0; !status && i < e->n_weights; i++) {
        struct tree_node *t = &e->nodes[leaf[i]];
        e->weights[t->first + t->count++] = (struct tree_weight){ target[i], weight[i] };
    }
    mo_mem_free(leaf);
    return status;
}

/* The first node of each tree in the file is its root. */
static enum mopt_status read_table(struct mopt_ctx *ctx, const struct mo_node *n, struct ensemble *e)
{
    const char *kind = e->is_classifier ? "class" : "target";
    char name[4][32];
    const char *const parts[] = { "treeids", "nodeids", "ids", "weights" };
    for (int k = 0; k < 4; k++)
        snprintf(name[k], sizeof name[k], "%s_%s", kind, parts[k]);
    const struct mo_attr *modes = mo_node_attr(n, "nodes_modes");
    const int64_t *tree, *node, *feature, *yes, *no, *missing, *weight_tree, *weight_node, *weight_target;
    double *values = NULL, *weights = NULL;
    size_t n_values = 0, n_weights = 0;
    e->n_nodes = (int64_t)count_of(n, "nodes_treeids");
    e->n_weights = (int64_t)count_of(n, name[0]);
    if (!modes || modes->kind != MO_ATTR_STRINGS || modes->n != (size_t)e->n_nodes)
        return wrong_table(ctx, "nodes_modes are missing");
    MO_TRY(ints_of(ctx, n, "nodes_treeids", e->n_nodes, &tree));
    MO_TRY(ints_of(ctx, n, "nodes_nodeids", e->n_nodes, &node));
    MO_TRY(ints_of(ctx, n, "nodes_featureids", e->n_nodes, &feature));
    MO_TRY(ints_of(ctx, n, "nodes_truenodeids", e->n_nodes, &yes));
    MO_TRY(ints_of(ctx, n, "nodes_falsenodeids", e->n_nodes, &no));
    MO_TRY(ints_of(ctx, n, "nodes_missing_value_tracks_true",
                   count_of(n, "nodes_missing_value_tracks_true") ? e->n_nodes : -1, &missing));
    MO_TRY(ints_of(ctx, n, name[1], e->n_weights, &weight_node));
    MO_TRY(ints_of(ctx, n, name[2], e->n_weights, &weight_target));
    MO_TRY(ints_of(ctx, n, name[0], e->n_weights, &weight_tree));
    char as_tensor[64];
    snprintf(as_tensor, sizeof as_tensor, "%s_as_tensor", name[3]);
    struct key *keys = mo_mem_new((size_t)e->n_nodes + 1, sizeof *keys);
    e->nodes = mo_mem_new((size_t)e->n_nodes + 1, sizeof *e->nodes);
    e->weights = mo_mem_new((size_t)e->n_weights + 1, sizeof *e->weights);
    e->roots = mo_mem_new((size_t)e->n_nodes + 1, sizeof *e->roots);
    enum mopt_status status = keys && e->nodes && e->weights && e->roots
                                  ? MOPT_OK : mo_no_memory(ctx, (size_t)e->n_nodes * sizeof *e->nodes, "trees");
    if (!status)
        status = mo_ml_numbers(ctx, n, "nodes_values", "nodes_values_as_tensor", &values, &n_values);
    if (!status)
        status = mo_ml_numbers(ctx, n, name[3], as_tensor, &weights, &n_weights);
    if (!status && (n_values != (size_t)e->n_nodes || n_weights != (size_t)e->n_weights))
        status = wrong_table(ctx, "its lists are of different lengths");
    for (int64_t i = 0; !status && i < e->n_nodes; i++)
        keys[i] = (struct key){ tree[i], node[i], i };
    if (!status)
        qsort(keys, (size_t)e->n_nodes, sizeof *keys, by_key);
    for (int64_t i = 0; !status && i < e->n_nodes; i++) {
        int mode = mode_of(modes->strings[i]);
        if (mode < 0)
            status = mo_fail(ctx, MOPT_DATA, "the mode '%.40s' of a node is not known", modes->strings[i]);
        e->nodes[i] = (struct tree_node){ .mode = (enum tree_mode)mode, .missing_is_true = missing && missing[i],
                                          .feature = feature[i], .value = values[i],
                                          .yes = find_node(keys, e->n_nodes, tree[i], yes[i]),
                                          .no = find_node(keys, e->n_nodes, tree[i], no[i]) };
        bool is_first = true;
        for (int64_t k = 0; is_first && k < e->n_roots; k++)
            is_first = tree[e->roots[e->n_roots - 1 - k]] != tree[i];
        if (is_first)
            e->roots[e->n_roots++] = i;
    }
    if (!status)
        status = read_weights(ctx, e, keys, weight_tree, weight_node, weight_target, weights);
    mo_mem_free(keys);
    mo_mem_free(values);
    mo_mem_free(weights);
    return status;
}

/* ---- reading, once for a plan ---- */

static void release(struct ensemble *e)
{
    if (!e)
        return;
    mo_mem_free(e->nodes);
    mo_mem_free(e->weights);
    mo_mem_free(e->members);
    mo_mem_free(e->base);
    mo_mem_free(e->roots);
    mo_mem_free(e);
}

static bool is_v5(const struct mo_node *n)
{
    return !strcmp(n->type, "TreeEnsemble");
}

static enum mopt_status read_sum(struct mopt_ctx *ctx, const struct mo_node *n, enum tree_sum *sum)
{
    static const char *const names[] = { "AVERAGE", "SUM", "MIN", "MAX" };
    int64_t number = is_v5(n) ? mo_node_int(n, "aggregate_function", SUM_SUM) : 0;
    const char *text = is_v5(n) ? NULL : mo_node_text(n, "aggregate_function", "SUM");
    while (text && number < 4 && strcmp(text, names[number]))
        number++;
    if (number < 0 || number > 3)
        return mo_fail(ctx, MOPT_DATA, "aggregate_function should be AVERAGE, SUM, MIN or MAX");
    *sum = (enum tree_sum)number;
    return MOPT_OK;
}

/* Two classes of which the leaves weigh one alone: the other's score follows from it. */
static void look_for_binary(struct ensemble *e)
{
    e->is_binary = e->n_targets == 2 && e->n_weights > 0;
    e->is_positive = true;
    for (int64_t i = 0; i < e->n_weights; i++) {
        e->is_binary = e->is_binary && e->weights[i].target == e->weights[0].target;
        e->is_positive = e->is_positive && e->weights[i].weight >= 0;
    }
}

static enum mopt_status read_ensemble(struct mopt_ctx *ctx, const struct mo_node *n, struct ensemble *e)
{
    struct mo_ml_labels labels;
    e->is_classifier = !strcmp(n->type, "TreeEnsembleClassifier");
    MO_TRY(read_sum(ctx, n, &e->sum));
    MO_TRY(mo_ml_read_post(ctx, n, &e->post));
    if (e->is_classifier)
        MO_TRY(mo_ml_read_labels(ctx, n, &labels));
    e->n_targets = e->is_classifier ? (int64_t)labels.n : mo_node_int(n, "n_targets", 1);
    if (e->n_targets < 1 || e->n_targets > 1 << 24)
        return mo_fail(ctx, MOPT_DATA, "%lld targets", (long long)e->n_targets);
    MO_TRY(mo_ml_numbers(ctx, n, "base_values", "base_values_as_tensor", &e->base, &e->n_base));
    if (e->n_base > (size_t)e->n_targets)
        return wrong_table(ctx, "more base values than targets");
    MO_TRY(is_v5(n) ? read_indexed(ctx, n, e) : read_table(ctx, n, e));
    look_for_binary(e);
    return check_branches(ctx, e);
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    struct ensemble *e = mo_mem_new(1, sizeof *e);
    MO_TRY(mo_ml_check_input(r->ctx, mo_in(r->graph, n, 0)));
    if (!e)
        return mo_no_memory(r->ctx, sizeof *e, "trees");
    *mo_run_handle(r, n) = e;
    MO_TRY(read_ensemble(r->ctx, n, e));
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    if (x->dim[x->rank - 1] < e->n_features)
        return mo_fail(r->ctx, MOPT_DATA, "its trees read feature %lld, the input has %lld", (long long)e->n_features - 1,
                       (long long)x->dim[x->rank - 1]);
    return MOPT_OK;
}

static void unprepare(struct mo_run *r, const struct mo_node *n)
{
    release(*mo_run_handle(r, n));
    *mo_run_handle(r, n) = NULL;
}

/* ---- walking ---- */

static bool is_member(const struct ensemble *e, const struct tree_node *t, double x)
{
    for (int64_t i = 0; i < t->count; i++)
        if (e->members[t->first + i] == x)
            return true;
    return false;
}

static bool takes(const struct ensemble *e, const struct tree_node *t, double x)
{
    if (isnan(x) && t->missing_is_true)
        return true;
    switch (t->mode) {
    case LEQ: return x <= t->value;
    case LESS: return x < t->value;
    case GTE: return x >= t->value;
    case GREATER: return x > t->value;
    case EQUAL: return x == t->value;
    case NOT_EQUAL: return x != t->value;
    case MEMBER: return is_member(e, t, x);
    default: return false;
    }
}

/* NULL: it goes in a circle. */
static const struct tree_node *find_leaf(const struct ensemble *e, int64_t root, const double *x)
{
    const struct tree_node *t = &e->nodes[root];
    for (int64_t steps = 0; t->mode != LEAF; steps++) {
        if (steps > e->n_nodes)
            return NULL;
        t = &e->nodes[takes(e, t, x[t->feature]) ? t->yes : t->no];
    }
    return t;
}

/* score, is_there: n_targets. */
static enum mopt_status add_trees(struct mopt_ctx *ctx, const struct ensemble *e, const double *x, double *score,
                                  bool *is_there)
{
    memset(score, 0, (size_t)e->n_targets * sizeof *score);
    memset(is_there, 0, (size_t)e->n_targets * sizeof *is_there);
    for (int64_t k = 0; k < e->n_roots; k++) {
        const struct tree_node *leaf = find_leaf(e, e->roots[k], x);
        if (!leaf)
            return wrong_table(ctx, "a tree goes in a circle");
        for (int64_t i = 0; i < leaf->count; i++) {
            const struct tree_weight *w = &e->weights[leaf->first + i];
            double *s = &score[w->target];
            if (e->sum == SUM_MIN || e->sum == SUM_MAX)
                *s = !is_there[w->target] ? w->weight : e->sum == SUM_MIN ? MO_MIN(*s, w->weight) : MO_MAX(*s, w->weight);
            else
                *s += w->weight;
            is_there[w->target] = true;
        }
    }
    for (int64_t t = 0; e->sum == SUM_AVERAGE && t < e->n_targets; t++)
        score[t] /= (double)MO_MAX(e->n_roots, 1);
    return MOPT_OK;
}

/* Which class it is. Where the leaves weigh one of two classes, the other's score follows, as ONNX Runtime reads what the
 * specification leaves open (scores are compared as the floats that they come out as: shares of 0.1 from half of ten trees are
 * a tie): shares (no weight is negative) s and 1 - s, above 0.5; margins s and -s, above 0. */
static int64_t decide(const struct ensemble *e, double *score, enum mo_ml_post *post)
{
    int64_t best = 0;
    *post = e->post;
    for (size_t t = 0; t < e->n_base && !(e->is_binary && e->weights[0].target == 0); t++)
        score[t] += e->base[t];
    if (e->is_binary && e->weights[0].target == 0) {
        double s = score[0] + (e->n_base ? e->base[e->n_base - 1] : 0);
        score[1] = s;
        score[0] = e->is_positive ? 1 - s : -s;
        *post = !e->is_positive && e->post == MO_ML_LOGISTIC ? MO_ML_LOGISTIC : MO_ML_NONE;
    }
    if (e->is_binary)
        return e->is_positive ? (float)score[1] > 0.5f : score[1] > 0;
    for (int64_t t = 1; t < e->n_targets; t++)
        best = (float)score[t] > (float)score[best] ? t : best;
    return best;
}

static enum mopt_status compute(struct mo_run *r, const struct mo_node *n, const struct ensemble *e, struct mo_host *h,
                                double *row, double *score, bool *is_there)
{
    const struct mo_value *x = mo_in(r->graph, n, 0);
    int64_t width = x->shape.dim[x->shape.rank - 1], rows = x->shape.rank > 1 ? x->shape.dim[0] : 1;
    uint32_t at = e->is_classifier ? 1 : 0;
    enum mo_dtype type = mo_out(r->graph, n, at) ? mo_out(r->graph, n, at)->dtype : MO_F32;
    struct mo_ml_result result;
    MO_TRY(mo_ml_open_result(r, &result, n, rows, e->n_targets, type, e->is_classifier));
    enum mopt_status status = MOPT_OK;
    for (int64_t i = 0; !status && i < rows; i++) {
        for (int64_t k = 0; k < width; k++)
            row[k] = mo_ml_number(x->dtype, h->in[0], i * width + k);
        status = i % 256 ? MOPT_OK : mo_stopped(r->ctx);
        if (!status)
            status = add_trees(r->ctx, e, row, score, is_there);
        int64_t class = 0;
        enum mo_ml_post post = e->post;
        if (e->is_classifier)
            class = decide(e, score, &post);
        for (size_t t = 0; !e->is_classifier && t < e->n_base; t++)
            score[t] += e->base[t];
        if (!status)
            mo_ml_store(&result, i, class, post, score);
    }
    if (!status)
        mo_ml_put_result(&result, h, at);
    mo_ml_close_result(&result);
    return status;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct ensemble *e = *mo_run_handle(r, n);
    const struct mo_shape *x = &mo_in(r->graph, n, 0)->shape;
    struct mo_host h;
    double *row = mo_mem_new((size_t)x->dim[x->rank - 1] + 1, sizeof *row);
    double *score = mo_mem_new((size_t)e->n_targets + 1, sizeof *score);
    bool *is_there = mo_mem_new((size_t)e->n_targets + 1, sizeof *is_there);
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status && (!row || !score || !is_there))
        status = mo_no_memory(r->ctx, (size_t)e->n_targets * sizeof *score, "scores");
    if (!status)
        status = compute(r, n, e, &h, row, score, is_there);
    mo_mem_free(row);
    mo_mem_free(score);
    mo_mem_free(is_there);
    mo_host_close(&h);
    return status;
}

/* ---- shapes ---- */

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    struct mo_ml_labels labels = { 0 };
    bool is_classifier = !strcmp(n->type, "TreeEnsembleClassifier");
    if (is_classifier)
        MO_TRY(mo_ml_read_labels(ctx, n, &labels));
    int64_t width = is_classifier ? (int64_t)labels.n : mo_node_int(n, "n_targets", 1);
    enum mo_dtype type = is_v5(n) ? x->dtype : MO_F32;
    return mo_ml_set_outs(ctx, g, n, is_classifier ? &labels : NULL, type, width);
}

#define TREE_OP(name, text, since, outs)                                            \
    const struct mo_op mo_op_##name = {                                             \
        .type = text, .domain = "ai.onnx.ml", .since_opset = since,                 \
        .min_in = 1, .max_in = 1, .min_out = 1, .max_out = outs,                    \
        .infer = infer, .prepare = prepare, .unprepare = unprepare, .forward = forward, \
        .macs = mo_macs_zero,                                                       \
    };
TREE_OP(tree_ensemble, "TreeEnsemble", 1, 1)
TREE_OP(tree_ensemble_regressor, "TreeEnsembleRegressor", 1, 1)
TREE_OP(tree_ensemble_classifier, "TreeEnsembleClassifier", 1, 2)

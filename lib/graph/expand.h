/* expand.h - operators that are formulas of other operators. Such an operator has
 * `expand` instead of forward and backward: lowering calls it once the shapes are
 * known, and what it made is run, differentiated and folded in the operator's
 * place. The helpers below make one node each and let a failure pass through, so
 * that a formula reads like one. What a formula makes is read by the rules of the
 * graph's opset: it may use operators that are older than itself only. */
#ifndef MO_EXPAND_H
#define MO_EXPAND_H

#include "lib/graph/graph.h"

struct mo_expand {
    struct mopt_ctx *ctx;
    struct mo_graph *g;
    const struct mo_node *node;     /* the operator, as it stands in the graph; valid until nodes are made: hold copies */
    const char *name;               /* of its nodes */
    mo_node_id last;                /* the node made last, for its attributes */
    bool is_full;                   /* out of memory */
};

/* A new value that operator `type` makes of one to three inputs (MO_NONE: left out, at the end not there at all). */
mo_value_id mo_expand_op(struct mo_expand *e, const char *type, mo_value_id a, mo_value_id b, mo_value_id c);
/* The same into `out`, a value that is there already. */
void mo_expand_into(struct mo_expand *e, mo_value_id out, const char *type, mo_value_id a, mo_value_id b, mo_value_id c);
/* The same with any number of inputs. */
void mo_expand_node(struct mo_expand *e, const char *type, const mo_value_id *in, uint32_t n_in, mo_value_id out);
/* Attributes of the node made last. */
void mo_expand_int(struct mo_expand *e, const char *name, int64_t value);
void mo_expand_ints(struct mo_expand *e, const char *name, const int64_t *values, size_t n);
/* Constants: one number in that type (a float or an integer type), a list of int64. */
mo_value_id mo_expand_scalar(struct mo_expand *e, enum mo_dtype dtype, double x);
mo_value_id mo_expand_list(struct mo_expand *e, const int64_t *values, int64_t n);
/* The nodes of a graph inside the operator, which reads in[] as its inputs; out[] become its outputs. In half precision it
 * is made float32, as lowering has done around it. */
MOPT_MUST_CHECK enum mopt_status mo_expand_graph_of(struct mo_expand *e, const struct mo_graph *body, const mo_value_id *in,
                                                    mo_value_id *out);
/* Fails for types that the formulas of real numbers have no operators for. */
MOPT_MUST_CHECK enum mopt_status mo_expand_check_float(struct mo_expand *e, enum mo_dtype dtype);

/* Replaces every such node of a graph whose shapes are inferred, and infers again. */
MOPT_MUST_CHECK enum mopt_status mo_expand_graph(struct mopt_ctx *ctx, struct mo_graph *g);

#endif

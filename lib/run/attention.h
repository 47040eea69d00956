/* attention.h - attention as exporters write it: MatMul, a scale, a mask, Softmax, MatMul. Running makes one node of it, and
 * so does simplify; both look for it here. */
#ifndef MO_ATTENTION_H
#define MO_ATTENTION_H

#include "lib/graph/graph.h"

/* An operand behind the Transposes before it: logical axis i is axis[i] of v. */
struct mo_attention_operand { mo_value_id v; int64_t axis[4]; };

/* P = softmax(scale Q K^T + mask), Y = P V, of rank 3 or 4. Q and Y: batch ... queries x size; K, V: batch ... keys x size. */
struct mo_attention_parts {
    struct mo_attention_operand q, k, v;
    mo_value_id mask, y;            /* mask MO_NONE: none */
    int rank;
    double scale;
    mo_node_id mix;                 /* the node that makes Y; one of the parts */
    mo_node_id parts[32];           /* nodes that nobody else needs */
    int n_parts;
};

/* Whether this Softmax is the middle of one. Sizes are not compared, nor types; the last axis of each operand is the last
 * one of its v. */
bool mo_attention_find(const struct mo_graph *g, mo_node_id softmax, struct mo_attention_parts *f);
/* The node of that type that makes v, which nobody else reads; the one node that reads v. NULL: there is none. */
const struct mo_node *mo_attention_maker(const struct mo_graph *g, mo_value_id v, const char *type);
const struct mo_node *mo_attention_reader(const struct mo_graph *g, mo_value_id v, const char *type);
/* False: too many. */
bool mo_attention_note(const struct mo_graph *g, struct mo_attention_parts *f, const struct mo_node *n);

#endif

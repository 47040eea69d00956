/* private.h - what lib/graph's files and the readers in formats/ share. */
#ifndef MO_GRAPH_PRIVATE_H
#define MO_GRAPH_PRIVATE_H

#include "lib/graph/graph.h"

/* Room for one more item behind n; the array moves when it must. NULL: no memory. */
void *mo_graph_grow(struct mo_arena *arena, void *items, uint32_t n, uint32_t *cap, size_t item_bytes);
/* A new value of that name, which the caller knows to be free; the text is not copied. */
mo_value_id mo_graph_new_value(struct mo_graph *g, const char *name);
/* Appends a constant to the list of initializers. */
bool mo_graph_make_initializer(struct mo_graph *g, mo_value_id id);
/* Producers and uses anew; a constant that nothing produces becomes an initializer. The first value
 * with two producers, or MO_NONE. */
mo_value_id mo_graph_recount(struct mo_graph *g);
/* copy.c: functions of a model, for its deep copy. */
MOPT_MUST_CHECK enum mopt_status mo_functions_copy(struct mopt_ctx *ctx, struct mopt_model *dst,
                                                   const struct mopt_model *src);
/* A subgraph knows an outer value by name: its readers of `from` read `to` instead. */
void mo_graph_rename_capture(struct mo_graph *sub, const char *from, const char *to);
/* mo_op_find by the node's type, domain and the graph's opset. */
const struct mo_op *mo_graph_find_op(const struct mo_graph *g, const struct mo_node *n);
/* Whether the node has as many inputs and outputs as the operator may have. Where it has not, indexing takes the operator
 * for one that is not known: kept, a wall to passes, refused when it must run. So passes may count on inputs. */
bool mo_op_takes(const struct mo_op *op, const struct mo_node *n);

/* ---- names to values, for graphs of any size ---- */

struct mo_names {
    mo_value_id *slots; uint32_t n_slots, n_used;   /* slots: id + 1, 0 free; a power of two of them */
};
/* The id of that name or MO_NONE. */
mo_value_id mo_names_find(const struct mo_names *names, const struct mo_graph *g, const char *name);
/* False: no memory. The name must not be there yet. */
bool mo_names_add(struct mo_names *names, const struct mo_graph *g, mo_value_id id);
void mo_names_release(struct mo_names *names);

/* inline.c: the nodes of a graph inside a node of g are written into g: in[] are what its inputs are there, out[] gets what
 * its outputs are. What it captures is found by name; its constants are borrowed. names: of all values of g, kept so. */
MOPT_MUST_CHECK enum mopt_status mo_graph_splice(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_names *names,
                                                 const struct mo_graph *body, const char *prefix, const mo_value_id *in,
                                                 mo_value_id *out);

#endif

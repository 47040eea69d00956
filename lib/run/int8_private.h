/* int8_private.h - what the files of the lowering to bytes share (int8.c). */
#ifndef MO_RUN_INT8_PRIVATE_H
#define MO_RUN_INT8_PRIVATE_H

#include "lib/run/int8.h"
#include "lib/run/private.h"

#define MO_INT8_CHAIN 8     /* operators between a DQ and a Q */

struct mo_int8 {
    struct mopt_ctx *ctx;
    struct mo_graph *g;
};

/* Bytes with one scale and one zero point. */
struct mo_bytes {
    mo_value_id value, scale_id, zero_id;
    enum mo_dtype type;
    float scale;
    int32_t zero;
};

/* The end of an operator: limits, then a Q. */
struct mo_int8_end {
    struct mo_bytes y;          /* what the Q gives */
    int32_t low, high;
    mo_node_id nodes[MO_INT8_CHAIN];
    int n_nodes;
};

enum mopt_status mo_int8_full(struct mo_int8 *l);
bool mo_int8_is_byte(enum mo_dtype type);
/* Is v a DQ of bytes with one scale? */
bool mo_int8_is_dequantized(const struct mo_graph *g, mo_value_id v, struct mo_bytes *b);
/* Is n a Q with one scale? b->value is what it gives. */
bool mo_int8_is_quantizer(const struct mo_graph *g, const struct mo_node *n, struct mo_bytes *b);
bool mo_int8_same_params(const struct mo_bytes *a, const struct mo_bytes *b);
/* The node that makes v, or NULL. */
struct mo_node *mo_int8_producer(const struct mo_graph *g, mo_value_id v);
void mo_int8_kill(struct mo_graph *g, mo_node_id id);
/* Node id, and what only it needed. */
void mo_int8_kill_unused(struct mo_graph *g, mo_node_id id);
mo_node_id mo_int8_sole_reader(const struct mo_graph *g, mo_value_id v);
bool mo_int8_find_end(const struct mo_graph *g, mo_value_id v, struct mo_int8_end *e);
/* Is n a Relu or a Clip by numbers? */
bool mo_int8_is_limit(const struct mo_graph *g, const struct mo_node *n);
/* Narrows what e gives to what it would be with that limit in front. */
void mo_int8_take_limit(const struct mo_graph *g, const struct mo_node *n, struct mo_int8_end *e);
void mo_int8_kill_end(struct mo_graph *g, const struct mo_int8_end *e);
bool mo_int8_set_result(struct mo_int8 *l, mo_node_id id, const struct mo_int8_end *e);

/* y = Q(DQ(x)) by a table, y and x of other scales (int8_function.c). */
enum mopt_status mo_int8_add_rescale(struct mo_int8 *l, const struct mo_bytes *x, mo_node_id dq, mo_node_id q, mo_value_id y);
/* A Conv of few channels in float, a MaxPool and a Q behind it (int8_first.c). */
enum mopt_status mo_int8_first(struct mo_int8 *l, mo_node_id id);
/* A Q whose input is computed from one tensor of bytes, element by element. */
enum mopt_status mo_int8_function(struct mo_int8 *l, mo_node_id id);

#endif

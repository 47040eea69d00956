/* body.h - graphs inside a node: If, Loop, Scan, SequenceMap.
 *
 * A body is made runnable by itself: a copy in which what it reads from around it
 * is an input. It runs once for each turn, its own shapes planned as they come.
 * Correct, not fast; bodies read host memory, so the device must be one. For
 * training they are unrolled instead (lib/run/unroll.c). */
#ifndef MO_OPS_BODY_H
#define MO_OPS_BODY_H

#include "lib/ops/tensor.h"

struct mo_body {
    struct mo_run *outer;
    const struct mo_node *node;
    struct mo_arena arena;
    struct mo_graph graph;
    struct mo_run *run;
    uint32_t first;                     /* the node's input that is its first: Scan had one before it up to opset 8 */
    uint32_t n_formal;                  /* inputs that are the body's own; captured values follow */
    bool is_list[2];                    /* its first two inputs are declared as lists of one (Loop's turn, condition) */
};

/* What the runner needs to know of one input. */
struct mo_feed { const void *data; enum mo_dtype dtype; struct mo_shape shape; };

/* The body in attribute `attr` of n; on failure nothing is left to close. */
MOPT_MUST_CHECK enum mopt_status mo_body_open(struct mo_body *b, struct mo_run *r, const struct mo_node *n, const char *attr);
void mo_body_close(struct mo_body *b);
/* One turn with these formal inputs. */
MOPT_MUST_CHECK enum mopt_status mo_body_turn(struct mo_body *b, const struct mo_feed *feeds);
/* Output k of the node is what the body gave at `from`. */
MOPT_MUST_CHECK enum mopt_status mo_body_hand_out(struct mo_body *b, uint32_t k, uint32_t from);
/* For infer: types of outputs from the body's, from its output `first` on; shapes come while running. */
MOPT_MUST_CHECK enum mopt_status mo_body_infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n, const char *attr,
                                               uint32_t first);

/* ---- values kept from turn to turn, and values collected ---- */

/* A tensor of its own; data from mo_mem_new. */
struct mo_held { void *data; size_t bytes; enum mo_dtype dtype; struct mo_shape shape; };
MOPT_MUST_CHECK enum mopt_status mo_hold(struct mopt_ctx *ctx, struct mo_held *h, const void *data, enum mo_dtype dtype,
                                         const struct mo_shape *shape);
/* The node's first n outputs are what is held after the last turn. */
MOPT_MUST_CHECK enum mopt_status mo_body_give_held(struct mo_body *b, const struct mo_held *held, uint32_t n);

/* Equal tensors, in a list. */
struct mo_collected { struct mo_held of; int64_t count; size_t room; };
/* One more. */
MOPT_MUST_CHECK enum mopt_status mo_collect(struct mopt_ctx *ctx, struct mo_collected *c, const void *data,
                                            const struct mo_value *v);
/* The collected tensors become output k, stacked along `axis`, in reverse order when asked; element: what the body says of
 * them, for when there are none. */
MOPT_MUST_CHECK enum mopt_status mo_body_stack(struct mo_body *b, uint32_t k, const struct mo_collected *c,
                                               const struct mo_value *element, int axis, bool reversed);

#endif

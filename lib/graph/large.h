/* large.h - models whose weights are not touched without need. */
#ifndef MO_LARGE_H
#define MO_LARGE_H

#include "lib/graph/graph.h"

/* Initializers from here on may lie at any address of the mapped file after reading. */
#define MO_LAZY_BYTES ((size_t)1 << 20)
/* Models with more bytes of constants are described without reading these, unless one asks for it. */
#define MO_LARGE_BYTES ((uint64_t)256 << 20)

/* Bytes of all constants, subgraphs included. */
uint64_t mo_graph_constant_bytes(const struct mo_graph *g);
/* Of these, what memory of our own holds: the others lie in a mapped file. */
uint64_t mo_graph_heap_bytes(const struct mo_graph *g);
/* Constants of the model's graph, or of one below it, that do not lie as their type wants are copied to where they do; the
 * file's pages are given back. Before any step that reads weights. */
MOPT_MUST_CHECK enum mopt_status mo_graph_align(struct mopt_ctx *ctx, const struct mopt_model *model, struct mo_graph *g);
/* The elements of a constant have been read and are not needed soon: pages of the model's file leave the process. */
void mo_constant_forget(const struct mopt_ctx *ctx, const struct mopt_model *model, const struct mo_value *v);
/* mo_count without reading constants: nonzero is MO_UNKNOWN. */
MOPT_MUST_CHECK enum mopt_status mo_count_unread(struct mopt_ctx *ctx, const struct mo_graph *g,
                                                 struct mo_counts *counts);

#endif

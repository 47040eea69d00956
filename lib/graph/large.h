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
/* Constants that do not lie as their type wants are copied to where they do. Before any step that reads weights. */
MOPT_MUST_CHECK enum mopt_status mo_graph_align(struct mopt_ctx *ctx, struct mo_graph *g);
/* mo_count without reading constants: nonzero is MO_UNKNOWN. */
MOPT_MUST_CHECK enum mopt_status mo_count_unread(struct mopt_ctx *ctx, const struct mo_graph *g,
                                                 struct mo_counts *counts);

#endif

/* draw.h - the graph as a picture: a layered drawing (Sugiyama, Tagawa and Toda 1981) as SVG, or as DOT for others to
 * lay out. Weights and constants are not drawn; their shapes stand in the boxes of those that read them. */
#ifndef MO_DRAW_H
#define MO_DRAW_H

#include "lib/base/text.h"
#include "lib/graph/graph.h"

enum mo_vertex_kind { MO_VERTEX_INPUT, MO_VERTEX_NODE, MO_VERTEX_OUTPUT, MO_VERTEX_BEND };

struct mo_vertex {
    enum mo_vertex_kind kind;
    uint32_t id;            /* value of an end, node of a node */
    uint32_t layer, place;  /* from above, from the left */
    double x, width;        /* of its middle */
};
struct mo_edge { uint32_t from, to; uint32_t bend, n_bends; };     /* the bends follow each other */

struct mo_drawing {
    const struct mo_graph *g;
    struct mo_arena *arena;
    struct mo_vertex *vertices; uint32_t n_vertices, n_boxes;       /* boxes first, then bends */
    struct mo_edge *edges; uint32_t n_edges;
    uint32_t **layers, *n_in_layer, n_layers;                       /* vertices from the left */
};

/* Nodes in topological order. MOPT_LIMIT where the drawing would be larger than anybody looks at. */
MOPT_MUST_CHECK enum mopt_status mo_draw_new(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mo_graph *g,
                                             struct mo_drawing *drawing);
/* Layers filled, neighbours brought together, places found (draw_layout.c). */
MOPT_MUST_CHECK enum mopt_status mo_draw_layout(struct mopt_ctx *ctx, struct mo_drawing *drawing);

void mo_draw_svg(const struct mo_drawing *drawing, struct mo_text *out);
void mo_draw_dot(const struct mo_drawing *drawing, struct mo_text *out);

#endif

/* draw.c - boxes and edges of a graph, and the two texts that show them. */
#include "lib/passes/draw.h"

#include <stdio.h>
#include <string.h>

#include "lib/graph/op.h"

enum { BOX_H = 46, ROW_H = 84, MARGIN = 16, LINE_BYTES = 200, NAME_CHARS = 30 };
#define CHAR_W 6.6

/* ---- the graph ---- */

static bool is_drawn(const struct mo_graph *g, mo_value_id v)
{
    return v != MO_NONE && !g->values[v].data && !g->values[v].is_initializer;
}

static void add_vertex(struct mo_drawing *d, enum mo_vertex_kind kind, uint32_t id)
{
    d->vertices[d->n_boxes++] = (struct mo_vertex){.kind = kind, .id = id};
}

/* An edge to the vertex last added, one for each pair. */
static void add_edge(struct mo_drawing *d, const uint32_t *maker, mo_value_id v)
{
    uint32_t to = d->n_boxes - 1, from = is_drawn(d->g, v) ? maker[v] : MO_NONE;
    if (from == MO_NONE)
        return;
    for (uint32_t e = d->n_edges; e-- > 0 && d->edges[e].to == to;)
        if (d->edges[e].from == from)
            return;
    d->edges[d->n_edges++] = (struct mo_edge){.from = from, .to = to};
    d->vertices[to].layer = MO_MAX(d->vertices[to].layer, d->vertices[from].layer + 1);
}

static void add_boxes(struct mo_drawing *d, uint32_t *maker)
{
    const struct mo_graph *g = d->g;
    for (mo_value_id v = 0; v < g->n_values; v++)
        maker[v] = MO_NONE;
    for (uint32_t i = 0; i < g->n_inputs; i++)
        if (is_drawn(g, g->inputs[i])) {
            maker[g->inputs[i]] = d->n_boxes;
            add_vertex(d, MO_VERTEX_INPUT, g->inputs[i]);
        }
    for (mo_node_id i = 0; i < g->n_nodes; i++) {
        const struct mo_node *n = &g->nodes[i];
        if (n->is_dead || mo_node_is(n, "Constant"))
            continue;
        add_vertex(d, MO_VERTEX_NODE, i);
        for (uint32_t k = 0; k < n->n_in; k++)
            add_edge(d, maker, n->in[k]);
        for (uint32_t k = 0; k < n->n_captures; k++)
            add_edge(d, maker, n->captures[k]);
        for (uint32_t k = 0; k < n->n_out; k++)
            if (n->out[k] != MO_NONE)
                maker[n->out[k]] = d->n_boxes - 1;
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        add_vertex(d, MO_VERTEX_OUTPUT, g->outputs[i]);
        add_edge(d, maker, g->outputs[i]);
    }
}

/* ---- words in the boxes ---- */

struct label { char line[3][LINE_BYTES]; const char *name; };   /* what it is, its name, its shape */

static void value_label(const struct mo_graph *g, mo_value_id v, const char *what, struct label *l)
{
    char shape[LINE_BYTES - 24];
    snprintf(l->line[0], LINE_BYTES, "%s", what);
    snprintf(l->line[2], LINE_BYTES, "%s %s", mo_dtype_name(g->values[v].dtype),
             mo_shape_text(&g->values[v].shape, shape, sizeof shape));
    l->name = g->values[v].name;
}

/* The first weight that the node reads, or NULL. */
static const struct mo_value *weight_of(const struct mo_graph *g, const struct mo_node *n)
{
    for (uint32_t k = 0; k < n->n_in && k < 32 && n->op; k++)
        if (n->op->params_in >> k & 1 && mo_in(g, n, k) && mo_in(g, n, k)->data)
            return mo_in(g, n, k);
    return NULL;
}

/* Conv 20x1x5x5: the shape of the weight beside the operator's name. */
static void node_label(const struct mo_graph *g, const struct mo_node *n, struct label *l)
{
    char shape[LINE_BYTES - 80] = "";
    if (weight_of(g, n))
        mo_shape_text(&weight_of(g, n)->shape, shape, sizeof shape);
    snprintf(l->line[0], LINE_BYTES, "%.60s%s%s", n->type, shape[0] ? " " : "", shape);
    const struct mo_value *out = mo_out(g, n, 0);
    if (out)
        mo_shape_text(&out->shape, l->line[2], LINE_BYTES);
    l->name = n->name[0] ? n->name : out ? out->name : "";
}

/* The end of a long name tells more than its start. */
static void make_label(const struct mo_graph *g, const struct mo_vertex *v, struct label *l)
{
    memset(l, 0, sizeof *l);
    if (v->kind == MO_VERTEX_NODE)
        node_label(g, &g->nodes[v->id], l);
    else
        value_label(g, v->id, v->kind == MO_VERTEX_INPUT ? "input" : "output", l);
    size_t n = strlen(l->name);
    const char *tail = n > NAME_CHARS ? l->name + n - NAME_CHARS + 2 : l->name;
    while (tail > l->name && ((unsigned char)*tail & 0xc0) == 0x80) /* not inside a character */
        tail++;
    snprintf(l->line[1], LINE_BYTES, "%s%s", tail > l->name ? ".." : "", tail);
}

static double width_of(const struct label *l)
{
    size_t n = 8;
    for (int i = 0; i < 3; i++)
        n = MO_MAX(n, strlen(l->line[i]));
    return CHAR_W * (double)n + 16;
}

enum mopt_status mo_draw_new(struct mopt_ctx *ctx, struct mo_arena *arena, const struct mo_graph *g,
                             struct mo_drawing *d)
{
    *d = (struct mo_drawing){.g = g, .arena = arena};
    size_t n_boxes = (size_t)g->n_inputs + g->n_nodes + g->n_outputs, n_edges = g->n_outputs;
    for (mo_node_id i = 0; i < g->n_nodes; i++)
        n_edges += g->nodes[i].n_in + g->nodes[i].n_captures;
    uint32_t *maker = mo_arena_new(arena, (size_t)g->n_values + 1, sizeof *maker);
    d->vertices = mo_arena_new(arena, n_boxes + 1, sizeof *d->vertices);
    d->edges = mo_arena_new(arena, n_edges + 1, sizeof *d->edges);
    if (!maker || !d->vertices || !d->edges)
        return mo_no_memory(ctx, n_boxes * sizeof *d->vertices, "a drawing");
    add_boxes(d, maker);
    d->n_vertices = d->n_boxes;
    for (uint32_t i = 0; i < d->n_boxes; i++) {
        struct label l;
        make_label(g, &d->vertices[i], &l);
        d->vertices[i].width = width_of(&l);
    }
    return MOPT_OK;
}

/* ---- how a box looks ---- */

static const char *class_of(const struct mo_graph *g, const struct mo_vertex *v)
{
    if (v->kind != MO_VERTEX_NODE)
        return "end";
    const struct mo_node *n = &g->nodes[v->id];
    return !n->op ? "unknown" : weight_of(g, n) ? "weighted" : "plain";
}

/* ---- SVG ---- */

static double y_of(const struct mo_vertex *v)
{
    return MARGIN + BOX_H / 2.0 + ROW_H * (double)v->layer;
}

static void svg_edge(const struct mo_drawing *d, const struct mo_edge *e, struct mo_text *out)
{
    const struct mo_vertex *from = &d->vertices[e->from];
    double x = from->x + MARGIN, y = y_of(from) + BOX_H / 2.0;
    mo_text_put(out, "<path d=\"M%.1f %.1f", x, y);
    for (uint32_t k = 0; k <= e->n_bends; k++) {
        const struct mo_vertex *to = &d->vertices[k < e->n_bends ? e->bend + k : e->to];
        double to_x = to->x + MARGIN, top = y_of(to) - BOX_H / 2.0, middle = (y + top) / 2;
        mo_text_put(out, "C%.1f %.1f %.1f %.1f %.1f %.1f", x, middle, to_x, middle, to_x, top);
        x = to_x;
        y = k < e->n_bends ? top + BOX_H : top;
        if (k < e->n_bends)
            mo_text_put(out, "V%.1f", y);
    }
    mo_text_put(out, "\" marker-end=\"url(#tip)\"/>\n");
}

static void svg_box(const struct mo_drawing *d, const struct mo_vertex *v, struct mo_text *out)
{
    struct label l;
    double x = v->x + MARGIN, top = y_of(v) - BOX_H / 2.0;
    make_label(d->g, v, &l);
    mo_text_put(out, "<g class=\"%s\"><title>", class_of(d->g, v));
    mo_text_xml(out, l.name);
    mo_text_put(out, "</title><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"%d\"/>", x - v->width / 2, top,
                v->width, BOX_H, v->kind == MO_VERTEX_NODE ? 4 : BOX_H / 2);
    static const char *const classes[] = {"what", "name", "shape"};
    for (int i = 0; i < 3; i++) {
        if (!l.line[i][0])
            continue;
        mo_text_put(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", classes[i], x, top + 14 + 13 * i);
        mo_text_xml(out, l.line[i]);
        mo_text_put(out, "</text>");
    }
    mo_text_put(out, "</g>\n");
}

void mo_draw_svg(const struct mo_drawing *d, struct mo_text *out)
{
    double width = 0;
    for (uint32_t i = 0; i < d->n_vertices; i++)
        width = MO_MAX(width, d->vertices[i].x + d->vertices[i].width / 2);
    double height = d->n_layers ? ROW_H * (double)(d->n_layers - 1) + BOX_H : 0;
    mo_text_put(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\">\n", width + 2 * MARGIN,
                height + 2 * MARGIN);
    mo_text_put(out, "<style>text{font:11px monospace;text-anchor:middle;fill:#333}.what{font-weight:bold}.shape{fill:#777}"
                "rect{fill:#fff;stroke:#888}.weighted rect{fill:#dbe7f5;stroke:#2563a8}.end rect{fill:#eef5e6;stroke:#5b8c2a}"
                ".unknown rect{fill:#f7e0e0;stroke:#a11;stroke-dasharray:4 2}path{fill:none;stroke:#999}#tip path{fill:#999}"
                "</style>\n<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" "
                "markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n");
    for (uint32_t e = 0; e < d->n_edges; e++)
        svg_edge(d, &d->edges[e], out);
    for (uint32_t i = 0; i < d->n_boxes; i++)
        svg_box(d, &d->vertices[i], out);
    mo_text_put(out, "</svg>\n");
}

/* ---- DOT ---- */

void mo_draw_dot(const struct mo_drawing *d, struct mo_text *out)
{
    mo_text_put(out, "digraph \"");
    mo_text_quoted(out, d->g->name ? d->g->name : "");
    mo_text_put(out, "\" {\n    node [shape=box, fontname=monospace, fontsize=10, style=filled, fillcolor=white];\n");
    for (uint32_t i = 0; i < d->n_boxes; i++) {
        struct label l;
        const char *class = class_of(d->g, &d->vertices[i]);
        make_label(d->g, &d->vertices[i], &l);
        mo_text_put(out, "    n%u [label=\"", i);
        mo_text_quoted(out, l.line[0]);
        mo_text_put(out, "\\n");
        mo_text_quoted(out, l.name);
        mo_text_put(out, "\\n");
        mo_text_quoted(out, l.line[2]);
        mo_text_put(out, "\"%s];\n", !strcmp(class, "weighted")  ? ", fillcolor=\"#dbe7f5\""
                                     : !strcmp(class, "end")     ? ", shape=oval, fillcolor=\"#eef5e6\""
                                     : !strcmp(class, "unknown") ? ", style=\"filled,dashed\", fillcolor=\"#f7e0e0\""
                                                                 : "");
    }
    for (uint32_t e = 0; e < d->n_edges; e++)
        mo_text_put(out, "    n%u -> n%u;\n", d->edges[e].from, d->edges[e].to);
    mo_text_put(out, "}\n");
}

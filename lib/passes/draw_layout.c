/* draw_layout.c - layers by the longest way from an input, edges bent where they pass a layer, few crossings by
 * barycentres, and places by least squares: of all placements in a given order that leave room between neighbours, the
 * one nearest to where each vertex wants to be is an isotonic regression (pool adjacent violators). */
#include <stdlib.h>

#include "lib/passes/draw.h"

enum { N_ORDER_SWEEPS = 12, N_PLACE_SWEEPS = 10, MAX_VERTICES = 1 << 19 };
#define GAP 24.0

/* Neighbours of each vertex in the layer above (0) and below (1). */
struct near { uint32_t *start[2], *to[2]; };
struct wish { double key; uint32_t vertex, place; };
struct pool { double sum; uint32_t n; };

struct layout {
    struct mopt_ctx *ctx;
    struct mo_drawing *d;
    struct near near;
    struct wish *wish;      /* of one layer */
    struct pool *pool;
};

static enum mopt_status no_room(const struct layout *l)
{
    return mo_no_memory(l->ctx, l->d->n_vertices * sizeof(struct mo_vertex), "a drawing");
}

/* ---- bends ---- */

static enum mopt_status add_bends(struct layout *l)
{
    struct mo_drawing *d = l->d;
    uint64_t n = d->n_boxes;
    for (uint32_t e = 0; e < d->n_edges; e++)
        n += d->vertices[d->edges[e].to].layer - d->vertices[d->edges[e].from].layer - 1;
    if (n > MAX_VERTICES)
        return mo_fail(l->ctx, MOPT_LIMIT, "the graph is too large to draw: %llu boxes and bends",
                       (unsigned long long)n);
    struct mo_vertex *all = mo_arena_new(d->arena, (size_t)n + 1, sizeof *all);
    if (!all)
        return no_room(l);
    for (uint32_t i = 0; i < d->n_boxes; i++)
        all[i] = d->vertices[i];
    d->vertices = all;
    d->n_vertices = d->n_boxes;
    for (uint32_t e = 0; e < d->n_edges; e++) {
        struct mo_edge *edge = &d->edges[e];
        uint32_t first = all[edge->from].layer + 1;
        edge->bend = d->n_vertices;
        edge->n_bends = all[edge->to].layer - first;
        for (uint32_t k = 0; k < edge->n_bends; k++)
            all[d->n_vertices++] = (struct mo_vertex){.kind = MO_VERTEX_BEND, .id = e, .layer = first + k, .width = 4};
    }
    return MOPT_OK;
}

/* The k-th vertex on the way of an edge: its start, the bends, its end. */
static uint32_t on_the_way(const struct mo_edge *e, uint32_t k)
{
    return !k ? e->from : k <= e->n_bends ? e->bend + k - 1 : e->to;
}

static enum mopt_status find_near(struct layout *l)
{
    const struct mo_drawing *d = l->d;
    size_t n_steps = 0;
    for (uint32_t e = 0; e < d->n_edges; e++)
        n_steps += d->edges[e].n_bends + 1;
    for (int side = 0; side < 2; side++) {
        uint32_t *start = l->near.start[side] = mo_arena_new(d->arena, (size_t)d->n_vertices + 2, sizeof *start);
        uint32_t *to = l->near.to[side] = mo_arena_new(d->arena, n_steps + 1, sizeof *to);
        if (!start || !to)
            return no_room(l);
        for (int fill = 0; fill < 2; fill++) {
            for (uint32_t e = 0; e < d->n_edges; e++)
                for (uint32_t k = 0; k <= d->edges[e].n_bends; k++) {
                    uint32_t above = on_the_way(&d->edges[e], k), below = on_the_way(&d->edges[e], k + 1);
                    uint32_t of = side ? above : below, other = side ? below : above;
                    if (fill)
                        to[start[of + 1]++] = other;
                    else
                        start[of + 2]++;
                }
            for (uint32_t i = 0; !fill && i < d->n_vertices; i++)
                start[i + 2] += start[i + 1];
        }
    }
    return MOPT_OK;
}

/* ---- layers ---- */

static enum mopt_status fill_layers(struct layout *l)
{
    struct mo_drawing *d = l->d;
    d->n_layers = 0;
    for (uint32_t i = 0; i < d->n_vertices; i++)
        d->n_layers = MO_MAX(d->n_layers, d->vertices[i].layer + 1);
    d->layers = mo_arena_new(d->arena, (size_t)d->n_layers + 1, sizeof *d->layers);
    d->n_in_layer = mo_arena_new(d->arena, (size_t)d->n_layers + 1, sizeof *d->n_in_layer);
    l->wish = mo_arena_new(d->arena, (size_t)d->n_vertices + 1, sizeof *l->wish);
    l->pool = mo_arena_new(d->arena, (size_t)d->n_vertices + 1, sizeof *l->pool);
    if (!d->layers || !d->n_in_layer || !l->wish || !l->pool)
        return no_room(l);
    for (uint32_t i = 0; i < d->n_vertices; i++)
        d->n_in_layer[d->vertices[i].layer]++;
    for (uint32_t k = 0; k < d->n_layers; k++) {
        d->layers[k] = mo_arena_new(d->arena, (size_t)d->n_in_layer[k] + 1, sizeof **d->layers);
        if (!d->layers[k])
            return no_room(l);
        d->n_in_layer[k] = 0;
    }
    for (uint32_t i = 0; i < d->n_vertices; i++) {
        uint32_t layer = d->vertices[i].layer;
        d->vertices[i].place = d->n_in_layer[layer];
        d->layers[layer][d->n_in_layer[layer]++] = i;
    }
    return MOPT_OK;
}

/* The mean of what is near on one side, or what the vertex has itself. */
static double mean_near(const struct layout *l, uint32_t v, int side, bool of_x)
{
    const struct mo_vertex *all = l->d->vertices;
    uint32_t from = l->near.start[side][v], to = l->near.start[side][v + 1];
    double sum = 0;
    for (uint32_t i = from; i < to; i++)
        sum += of_x ? all[l->near.to[side][i]].x : (double)all[l->near.to[side][i]].place;
    if (from == to)
        return of_x ? all[v].x : (double)all[v].place;
    return sum / (double)(to - from);
}

static int by_key(const void *a, const void *b)
{
    const struct wish *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key ? 1 : -1) : (x->place > y->place) - (x->place < y->place);
}

static void order_layer(struct layout *l, uint32_t k, int side)
{
    struct mo_drawing *d = l->d;
    uint32_t n = d->n_in_layer[k];
    for (uint32_t i = 0; i < n; i++)
        l->wish[i] = (struct wish){mean_near(l, d->layers[k][i], side, false), d->layers[k][i], i};
    qsort(l->wish, n, sizeof *l->wish, by_key);
    for (uint32_t i = 0; i < n; i++) {
        d->layers[k][i] = l->wish[i].vertex;
        d->vertices[l->wish[i].vertex].place = i;
    }
}

/* ---- places ---- */

static double room_between(const struct mo_vertex *a, const struct mo_vertex *b)
{
    return (a->width + b->width) / 2 + GAP;
}

static void place_layer(struct layout *l, uint32_t k, int side)
{
    struct mo_drawing *d = l->d;
    uint32_t n = d->n_in_layer[k], n_pools = 0;
    double offset = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct mo_vertex *v = &d->vertices[d->layers[k][i]];
        offset += i ? room_between(&d->vertices[d->layers[k][i - 1]], v) : 0;
        l->pool[n_pools++] = (struct pool){mean_near(l, d->layers[k][i], side, true) - offset, 1};
        while (n_pools > 1) {
            struct pool *a = &l->pool[n_pools - 2], *b = a + 1;
            if (a->sum / a->n <= b->sum / b->n)
                break;
            a->sum += b->sum;
            a->n += b->n;
            n_pools--;
        }
    }
    offset = 0;
    for (uint32_t p = 0, i = 0; p < n_pools; p++)
        for (uint32_t q = 0; q < l->pool[p].n; q++, i++) {
            struct mo_vertex *v = &d->vertices[d->layers[k][i]];
            offset += i ? room_between(&d->vertices[d->layers[k][i - 1]], v) : 0;
            v->x = l->pool[p].sum / l->pool[p].n + offset;
        }
}

/* Layer after layer, down and up in turn. */
static void sweep(struct layout *l, int n_sweeps, void (*layer)(struct layout *, uint32_t, int))
{
    for (int s = 0; s < n_sweeps; s++)
        for (uint32_t k = 0; k < l->d->n_layers; k++)
            layer(l, s % 2 ? l->d->n_layers - 1 - k : k, s % 2);
}

enum mopt_status mo_draw_layout(struct mopt_ctx *ctx, struct mo_drawing *d)
{
    struct layout l = {.ctx = ctx, .d = d};
    MO_TRY(add_bends(&l));
    MO_TRY(find_near(&l));
    MO_TRY(fill_layers(&l));
    sweep(&l, N_ORDER_SWEEPS, order_layer);
    sweep(&l, N_PLACE_SWEEPS, place_layer);
    double left = 0;
    for (uint32_t i = 0; i < d->n_vertices; i++)
        left = MO_MIN(left, d->vertices[i].x - d->vertices[i].width / 2);
    for (uint32_t i = 0; i < d->n_vertices; i++)
        d->vertices[i].x -= left;
    return MOPT_OK;
}

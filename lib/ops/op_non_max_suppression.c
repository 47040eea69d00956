/* NonMaxSuppression: of the boxes of each class, best score first, those are kept
 * whose overlap with every box kept before is at most iou_threshold:
 *
 *     overlap = area(a and b) / area(a or b), 0 where a box has no area
 *
 * Scores must be above score_threshold, where there is one. Equal scores: the lower index comes first. The
 * result is a list of (batch, class, box), of which only the run knows how long it is. */
#include <math.h>
#include <stdlib.h>

#include "lib/ops/host.h"

enum { IN_BOXES, IN_SCORES, IN_MOST, IN_IOU, IN_SCORE };

struct suppression {
    bool is_center;             /* boxes are x, y of the centre, width, height; else two corners y1, x1, y2, x2 */
};

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct suppression *p = n->params;
    const struct mo_shape *boxes = &mo_in(g, n, IN_BOXES)->shape, *scores = &mo_in(g, n, IN_SCORES)->shape;
    struct mo_shape y = mo_shape_of(2, (int64_t)MO_UNKNOWN, (int64_t)3);
    int64_t form = mo_node_int(n, "center_point_box", 0);
    char text_b[128], text_s[128];
    if (form != 0 && form != 1)
        return mo_fail(ctx, MOPT_DATA, "center_point_box is %lld, it should be 0 or 1", (long long)form);
    p->is_center = form == 1;
    bool fits = (boxes->rank == MO_UNKNOWN || boxes->rank == 3) && (scores->rank == MO_UNKNOWN || scores->rank == 3);
    if (fits && mo_shape_known(boxes) && mo_shape_known(scores))
        fits = boxes->dim[0] == scores->dim[0] && boxes->dim[1] == scores->dim[2] && boxes->dim[2] == 4;
    if (!fits)
        return mo_fail(ctx, MOPT_DATA, "boxes are %s and scores %s, they should be BxNx4 and BxCxN",
                       mo_shape_text(boxes, text_b, sizeof text_b), mo_shape_text(scores, text_s, sizeof text_s));
    mo_set_out(g, n, 0, MO_I64, &y);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    for (uint32_t i = IN_BOXES; i <= IN_SCORES; i++)
        if (mo_in(r->graph, n, i)->dtype != MO_F32)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "input %u is %s, it is computed for float32 only", i,
                           mo_dtype_name(mo_in(r->graph, n, i)->dtype));
    return MOPT_OK;
}

/* ---- boxes ---- */

struct box { float low[2], high[2]; };
struct candidate { float score; int64_t index; };

static struct box box_of(const float *x, bool is_center)
{
    struct box b;
    for (int k = 0; k < 2; k++) {
        float from = is_center ? x[k] - x[k + 2] / 2 : x[k], to = is_center ? x[k] + x[k + 2] / 2 : x[k + 2];
        b.low[k] = fminf(from, to);
        b.high[k] = fmaxf(from, to);
    }
    return b;
}

static float area(const struct box *b)
{
    return (b->high[0] - b->low[0]) * (b->high[1] - b->low[1]);
}

static bool overlaps(const struct box *a, const struct box *b, float most)
{
    struct box both;
    for (int k = 0; k < 2; k++) {
        both.low[k] = fmaxf(a->low[k], b->low[k]);
        both.high[k] = fminf(a->high[k], b->high[k]);
        if (both.high[k] <= both.low[k])
            return false;
    }
    float area_a = area(a), area_b = area(b), common = area(&both);
    return area_a > 0 && area_b > 0 && common / (area_a + area_b - common) > most;
}

static int better_first(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* ---- the search ---- */

struct search {
    const float *boxes, *scores;
    int64_t n_batch, n_classes, n_boxes, most;
    float iou, score;
    bool is_center, has_score;
    struct candidate *candidates;       /* n_boxes */
    struct box *kept;                   /* of this class */
    int64_t *found, n_found;            /* three numbers each */
    size_t room;                        /* bytes of found */
};

static enum mopt_status note(struct mopt_ctx *ctx, struct search *s, int64_t batch, int64_t class, int64_t box)
{
    size_t used = (size_t)s->n_found * 3 * sizeof(int64_t);
    if (used + 3 * sizeof(int64_t) > s->room) {
        size_t room = MO_MAX(2 * s->room, (size_t)1536);
        int64_t *more = mo_mem_grow(s->found, s->room, room);
        if (!more)
            return mo_no_memory(ctx, room, "boxes");
        s->found = more;
        s->room = room;
    }
    int64_t *at = s->found + 3 * s->n_found++;
    at[0] = batch;
    at[1] = class;
    at[2] = box;
    return MOPT_OK;
}

static enum mopt_status search_class(struct mopt_ctx *ctx, struct search *s, int64_t batch, int64_t class)
{
    const float *scores = s->scores + (batch * s->n_classes + class) * s->n_boxes;
    const float *boxes = s->boxes + batch * s->n_boxes * 4;
    int64_t n = 0, n_kept = 0;
    for (int64_t i = 0; i < s->n_boxes; i++)
        if (s->has_score ? scores[i] > s->score : !isnan(scores[i]))
            s->candidates[n++] = (struct candidate){ scores[i], i };
    qsort(s->candidates, (size_t)n, sizeof *s->candidates, better_first);
    for (int64_t i = 0; i < n && n_kept < s->most; i++) {
        struct box b = box_of(boxes + 4 * s->candidates[i].index, s->is_center);
        bool is_free = true;
        for (int64_t k = 0; is_free && k < n_kept; k++)
            is_free = !overlaps(&b, &s->kept[k], s->iou);
        if (!is_free)
            continue;
        s->kept[n_kept++] = b;
        MO_TRY(note(ctx, s, batch, class, s->candidates[i].index));
    }
    return mo_stopped(ctx);
}

static enum mopt_status read_limits(struct mo_run *r, const struct mo_node *n, struct search *s)
{
    double most = 0, iou = 0, score = 0;
    s->has_score = mo_in(r->graph, n, IN_SCORE) != NULL;
    if ((mo_in(r->graph, n, IN_MOST) && !mo_run_scalar(r, n, IN_MOST, &most)) ||
        (mo_in(r->graph, n, IN_IOU) && !mo_run_scalar(r, n, IN_IOU, &iou)) ||
        (s->has_score && !mo_run_scalar(r, n, IN_SCORE, &score)))
        return mo_fail(r->ctx, MOPT_DATA, "its limits should be one number each");
    if (!(iou >= 0 && iou <= 1))
        return mo_fail(r->ctx, MOPT_DATA, "iou_threshold is %g, it should be from 0 to 1", iou);
    s->most = most > (double)s->n_boxes ? s->n_boxes : (int64_t)most;
    s->iou = (float)iou;
    s->score = (float)score;
    return MOPT_OK;
}

static enum mopt_status search_all(struct mopt_ctx *ctx, struct search *s)
{
    s->candidates = mo_mem_new((size_t)s->n_boxes + 1, sizeof *s->candidates);
    s->kept = mo_mem_new((size_t)s->n_boxes + 1, sizeof *s->kept);
    if (!s->candidates || !s->kept)
        return mo_no_memory(ctx, (uint64_t)s->n_boxes * sizeof *s->candidates, "boxes");
    for (int64_t batch = 0; batch < s->n_batch; batch++)
        for (int64_t class = 0; class < s->n_classes; class++)
            MO_TRY(search_class(ctx, s, batch, class));
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct suppression *p = n->params;
    const struct mo_shape *scores = &mo_in(r->graph, n, IN_SCORES)->shape;
    struct search s = { .n_batch = scores->dim[0], .n_classes = scores->dim[1], .n_boxes = scores->dim[2],
                        .is_center = p->is_center };
    struct mo_host h;
    enum mopt_status status = mo_host_open(&h, r, n);
    s.boxes = h.in[IN_BOXES];
    s.scores = h.in[IN_SCORES];
    if (!status)
        status = read_limits(r, n, &s);
    if (!status)
        status = search_all(r->ctx, &s);
    if (!status) {
        struct mo_shape y = mo_shape_of(2, s.n_found, (int64_t)3);
        status = mo_host_make(&h, 0, MO_I64, &y, s.found);
    }
    mo_mem_free(s.candidates);
    mo_mem_free(s.kept);
    mo_mem_free(s.found);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_non_max_suppression = {
    .type = "NonMaxSuppression",
    .since_opset = 10,
    .min_in = 2, .max_in = 5, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .params_bytes = sizeof(struct suppression),
    .infer = infer, .prepare = prepare, .forward = forward,
    .macs = mo_macs_zero,
};

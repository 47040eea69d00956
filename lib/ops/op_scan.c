/* Scan: N states and M sequences in; the body gets states and one slice of each sequence. In opset 8 all of them have a
 * batch in front, whose samples are walked one by one, each as long as an input before the others says. */
#include <string.h>

#include "lib/ops/body.h"

struct scan {
    struct mo_body body;
    uint32_t n_held, n_sequences, n_collected;
    bool is_batched;
    int64_t sample, n_turns, most_turns;        /* most: of any sample */
    struct mo_held *held, *slices;
    struct mo_collected *collected;
    struct mo_collected *samples;               /* results of all samples: states, then what was collected */
    struct mo_feed *feeds;
};

static int64_t entry(const struct mo_node *n, const char *attr, uint32_t i)
{
    size_t n_ints = 0;
    const int64_t *ints = mo_node_ints(n, attr, &n_ints);
    return i < n_ints ? ints[i] : 0;
}

/* State or sequence i, of the sample at hand. */
static struct mo_feed input(const struct scan *s, uint32_t i)
{
    const struct mo_run *r = s->body.outer;
    const struct mo_value *v = mo_in(r->graph, s->body.node, s->body.first + i);
    struct mo_feed f = { mo_run_in(r, s->body.node, s->body.first + i), v->dtype, v->shape };
    if (!s->is_batched)
        return f;
    memmove(f.shape.dim, f.shape.dim + 1, (size_t)(f.shape.rank - 1) * sizeof *f.shape.dim);
    f.shape.rank--;
    f.data = (const char *)f.data + (size_t)s->sample * mo_dtype_bytes(f.dtype, mo_shape_elems(&f.shape));
    return f;
}

/* Slice t of sequence i. */
static enum mopt_status take_slice(struct scan *s, uint32_t i, int64_t t)
{
    struct mopt_ctx *ctx = s->body.outer->ctx;
    const struct mo_node *n = s->body.node;
    struct mo_feed x = input(s, s->n_held + i);
    struct mo_held *h = &s->slices[i];
    int axis;
    MO_TRY(mo_axis(ctx, entry(n, "scan_input_axes", i), x.shape.rank, &axis));
    int64_t outer = mo_dims_product(&x.shape, 0, axis), dim = x.shape.dim[axis];
    size_t inner = mo_dtype_bytes(x.dtype, mo_dims_product(&x.shape, axis + 1, x.shape.rank));
    int64_t at = entry(n, s->is_batched ? "directions" : "scan_input_directions", i) ? s->n_turns - 1 - t : t;
    if (s->is_batched ? dim < s->n_turns : dim != s->n_turns)
        return mo_fail(ctx, MOPT_DATA, "sequences of %lld and %lld", (long long)s->n_turns, (long long)dim);
    if (!h->data) {
        h->dtype = x.dtype;
        h->shape.rank = x.shape.rank - 1;
        for (int k = 0, to = 0; k < x.shape.rank; k++)
            if (k != axis)
                h->shape.dim[to++] = x.shape.dim[k];
        h->data = mo_mem_new(MO_MAX((size_t)outer * inner, (size_t)1), 1);
        if (!h->data)
            return mo_no_memory(ctx, (size_t)outer * inner, "a slice");
    }
    for (int64_t o = 0; o < outer; o++)
        memcpy((char *)h->data + (size_t)o * inner, (const char *)x.data + (size_t)(o * dim + at) * inner, inner);
    return MOPT_OK;
}

static enum mopt_status scan_step(struct scan *s, int64_t t)
{
    struct mopt_ctx *ctx = s->body.outer->ctx;
    struct mo_run *run = s->body.run;
    for (uint32_t k = 0; k < s->n_held; k++)
        s->feeds[k] = (struct mo_feed){ s->held[k].data, s->held[k].dtype, s->held[k].shape };
    for (uint32_t i = 0; i < s->n_sequences; i++) {
        MO_TRY(take_slice(s, i, t));
        s->feeds[s->n_held + i] = (struct mo_feed){ s->slices[i].data, s->slices[i].dtype, s->slices[i].shape };
    }
    MO_TRY(mo_body_turn(&s->body, s->feeds));
    for (uint32_t k = 0; k < s->n_held; k++) {
        const struct mo_value *v = mo_run_output(run, k);
        MO_TRY(mo_hold(ctx, &s->held[k], mo_run_output_data(run, k), v->dtype, &v->shape));
    }
    for (uint32_t k = 0; k < s->n_collected; k++)
        MO_TRY(mo_collect(ctx, &s->collected[k], mo_run_output_data(run, s->n_held + k), mo_run_output(run, s->n_held + k)));
    return MOPT_OK;
}

/* The turns of one sample. */
static enum mopt_status scan_sample(struct scan *s)
{
    struct mopt_ctx *ctx = s->body.outer->ctx;
    for (uint32_t k = 0; k < s->n_held; k++) {
        struct mo_feed x = input(s, k);
        MO_TRY(mo_hold(ctx, &s->held[k], x.data, x.dtype, &x.shape));
    }
    for (uint32_t k = 0; k < s->n_collected; k++)
        s->collected[k].count = 0;
    for (int64_t t = 0; t < s->n_turns; t++)
        MO_TRY(scan_step(s, t));
    return MOPT_OK;
}

/* ---- since opset 9 ---- */

static enum mopt_status scan_run(struct scan *s)
{
    struct mo_run *r = s->body.outer;
    const struct mo_node *n = s->body.node;
    struct mo_feed first = input(s, s->n_held);
    int axis;
    MO_TRY(mo_axis(r->ctx, entry(n, "scan_input_axes", 0), first.shape.rank, &axis));
    s->n_turns = first.shape.dim[axis];
    MO_TRY(scan_sample(s));
    MO_TRY(mo_body_give_held(&s->body, s->held, s->n_held));
    for (uint32_t k = 0; k < s->n_collected; k++) {
        const struct mo_value *element = &s->body.graph.values[s->body.graph.outputs[s->n_held + k]];
        MO_TRY(mo_body_stack(&s->body, s->n_held + k, &s->collected[k], element, (int)entry(n, "scan_output_axes", k),
                             entry(n, "scan_output_directions", k) != 0));
    }
    return MOPT_OK;
}

/* ---- opset 8 ---- */

/* What collected k has of this sample, zeros behind it up to the longest one. */
static enum mopt_status keep_sample(struct scan *s, uint32_t k)
{
    struct mopt_ctx *ctx = s->body.outer->ctx;
    const struct mo_collected *c = &s->collected[k];
    struct mo_value v = { .name = "what a scan collects", .dtype = c->of.dtype, .shape = c->of.shape };
    size_t used = (size_t)c->count * c->of.bytes, bytes;
    if (!c->count || v.shape.rank == MO_MAX_RANK || !mo_mul_size((size_t)s->most_turns, c->of.bytes, &bytes))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "a sample of %lld turns", (long long)c->count);
    memmove(v.shape.dim + 1, v.shape.dim, (size_t)v.shape.rank++ * sizeof *v.shape.dim);
    v.shape.dim[0] = s->most_turns;
    char *padded = mo_mem_new(bytes + 1, 1);
    if (!padded)
        return mo_no_memory(ctx, bytes, "what a scan collects");
    memcpy(padded, c->of.data, used);
    enum mopt_status status = mo_collect(ctx, &s->samples[s->n_held + k], padded, &v);
    mo_mem_free(padded);
    return status;
}

static enum mopt_status scan_batch(struct scan *s)
{
    struct mo_run *r = s->body.outer;
    const struct mo_value *lens = mo_in(r->graph, s->body.node, 0);
    const struct mo_shape *first = &mo_in(r->graph, s->body.node, s->body.first + s->n_held)->shape;
    int64_t n_samples = first->dim[0];
    s->most_turns = first->dim[1];
    if (lens && (lens->dtype != MO_I64 || mo_value_elems(lens) != n_samples))
        return mo_fail(r->ctx, MOPT_DATA, "the lengths of %lld sequences should be as many int64", (long long)n_samples);
    for (s->sample = 0; s->sample < n_samples; s->sample++) {
        s->n_turns = lens ? ((const int64_t *)mo_run_in(r, s->body.node, 0))[s->sample] : s->most_turns;
        if (s->n_turns < 0 || s->n_turns > s->most_turns)
            return mo_fail(r->ctx, MOPT_DATA, "a sequence of %lld among %lld", (long long)s->n_turns,
                           (long long)s->most_turns);
        MO_TRY(scan_sample(s));
        for (uint32_t k = 0; k < s->n_held; k++) {
            struct mo_value v = { .name = "a state", .dtype = s->held[k].dtype, .shape = s->held[k].shape };
            MO_TRY(mo_collect(r->ctx, &s->samples[k], s->held[k].data, &v));
        }
        for (uint32_t k = 0; k < s->n_collected; k++)
            MO_TRY(keep_sample(s, k));
    }
    for (uint32_t k = 0; k < s->n_held + s->n_collected; k++)
        MO_TRY(mo_body_stack(&s->body, k, &s->samples[k], &s->body.graph.values[s->body.graph.outputs[k]], 0, false));
    return MOPT_OK;
}

/* ---- both ---- */

static enum mopt_status scan_open(struct scan *s)
{
    uint32_t n_out = s->body.graph.n_outputs;
    if (s->body.n_formal != s->n_held + s->n_sequences || n_out < s->n_held)
        return mo_fail(s->body.outer->ctx, MOPT_DATA, "its body takes %u values and gives %u, for %u states and %u sequences",
                       s->body.n_formal, n_out, s->n_held, s->n_sequences);
    s->n_collected = n_out - s->n_held;
    s->held = mo_mem_new((size_t)s->n_held + 1, sizeof *s->held);
    s->slices = mo_mem_new((size_t)s->n_sequences + 1, sizeof *s->slices);
    s->collected = mo_mem_new((size_t)s->n_collected + 1, sizeof *s->collected);
    s->samples = mo_mem_new((size_t)n_out + 1, sizeof *s->samples);
    s->feeds = mo_mem_new((size_t)s->body.n_formal + 1, sizeof *s->feeds);
    if (!s->held || !s->slices || !s->collected || !s->samples || !s->feeds)
        return mo_no_memory(s->body.outer->ctx, s->body.n_formal * sizeof *s->held, "a scan");
    return MOPT_OK;
}

static void scan_close(struct scan *s)
{
    for (uint32_t k = 0; s->held && k < s->n_held; k++)
        mo_mem_free(s->held[k].data);
    for (uint32_t k = 0; s->slices && k < s->n_sequences; k++)
        mo_mem_free(s->slices[k].data);
    for (uint32_t k = 0; s->collected && k < s->n_collected; k++)
        mo_mem_free(s->collected[k].of.data);
    for (uint32_t k = 0; s->samples && k < s->n_held + s->n_collected; k++)
        mo_mem_free(s->samples[k].of.data);
    mo_mem_free(s->held);
    mo_mem_free(s->slices);
    mo_mem_free(s->collected);
    mo_mem_free(s->samples);
    mo_mem_free(s->feeds);
    mo_body_close(&s->body);
}

static enum mopt_status forward_scan(struct mo_run *r, const struct mo_node *n)
{
    struct scan s = { .n_sequences = (uint32_t)mo_node_int(n, "num_scan_inputs", 0), .is_batched = r->graph->opset < 9 };
    s.n_held = n->n_in - s.is_batched - s.n_sequences;
    MO_TRY(mo_body_open(&s.body, r, n, "body"));
    enum mopt_status status = scan_open(&s);
    if (!status)
        status = s.is_batched ? scan_batch(&s) : scan_run(&s);
    scan_close(&s);
    return status;
}

static enum mopt_status infer_scan(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    int64_t n_sequences = mo_node_int(n, "num_scan_inputs", 0);
    uint32_t first = g->opset < 9;
    if (n_sequences < 1 || n_sequences + first > (int64_t)n->n_in)
        return mo_fail(ctx, MOPT_DATA, "%lld sequences among %u inputs", (long long)n_sequences, n->n_in);
    for (uint32_t i = first; i < n->n_in; i++) {
        int least = !first ? 0 : i < n->n_in - n_sequences ? 1 : 2;
        if (!mo_in(g, n, i))
            return mo_fail(ctx, MOPT_DATA, "input %u is left out", i);
        if (mo_in(g, n, i)->shape.rank != MO_UNKNOWN && mo_in(g, n, i)->shape.rank < least)
            return mo_fail(ctx, MOPT_DATA, "input %u has rank %d, it has a batch in front", i, mo_in(g, n, i)->shape.rank);
    }
    return mo_body_infer(ctx, g, n, "body", 0);
}

const struct mo_op mo_op_scan = {
    .type = "Scan",
    .since_opset = 8,
    .min_in = 0, .max_in = -1, .min_out = 1, .max_out = -1,
    .flags = MO_OP_SHAPES_BY_RUN | MO_OP_UNROLLS,
    .infer = infer_scan, .forward = forward_scan,
};

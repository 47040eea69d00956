/* shards.c - see shards.h. */
#include "lib/run/shards.h"

#include <string.h>

#include "lib/run/private.h"

#define BUCKET_HOST (4u << 20)          /* fits the cache; measured best over shared memory */
#define BUCKET_DEVICE (25u << 20)
#define BUCKET_LEAST (64u << 10)        /* smaller ones cost more in messages than they hide */
#define LARGE (1u << 20)

struct bucket {
    size_t first, n;                /* elements of the flat buffer */
    mo_node_id done_at;             /* when this node has run backward its gradients are complete */
    uint64_t ticket;
    double start_s;
    bool is_done;
};

struct mo_shards_private {
    struct bucket *buckets;
    uint32_t n_buckets, n_started, n_seen;      /* n_seen: buckets whose end was noted */
    bool bf16, sums;                            /* sums: now, in the backward of a step's last batch */
    struct mo_ranks_wire *wire;                 /* sums on the devices themselves; NULL: */
    float *host;                                /* gradients of a device on their way; NULL: they can be read there */
    mo_node_id *at;                             /* by part: the node that is next */
    struct mo_sync sync;
    size_t n_sync_elems;                        /* room */
    double *sync_sums;                          /* n parts times that */
};

/* ---- making ---------------------------------------------------------------------------------- */

/* From the end of the flat buffer, whose gradients come first, to its beginning. */
static enum mopt_status make_buckets(struct mo_shards *s, size_t wanted)
{
    const struct mo_run *run = s->run[0];
    struct mo_shards_private *p = s->private_;
    size_t total = run->n_trained * sizeof(float), limit = wanted;
    if (!limit)
        limit = MO_MIN(run->be->is_host ? BUCKET_HOST : BUCKET_DEVICE, MO_MAX(total / 4, (size_t)BUCKET_LEAST));
    p->buckets = mo_mem_new(run->n_params + 1, sizeof *p->buckets);
    if (!p->buckets)
        return mo_no_memory(s->ctx, run->n_params * sizeof *p->buckets, "buckets of gradients");
    size_t end = run->n_trained;
    for (uint32_t i = run->n_params; i-- > 0;) {
        const struct mo_param *param = &run->params[i];
        if (param->is_state)
            continue;
        bool is_first = param->offset == 0 || i == 0;
        if (is_first || (end - param->offset) * sizeof(float) >= limit) {
            p->buckets[p->n_buckets++] = (struct bucket){ .first = param->offset, .n = end - param->offset };
            end = param->offset;
        }
    }
    return end ? mo_fail(s->ctx, MOPT_FAILED, "the flat buffer of gradients does not begin with a parameter") : MOPT_OK;
}

static enum mopt_status make(struct mo_shards *s, const struct mo_graph *g, const struct mo_run_options *options,
                             const struct mo_shard_options *how)
{
    struct mo_shards_private *p = s->private_;
    struct mo_run *owner = s->run[0];
    struct mo_run_options mine = *options;
    mine.is_shard = true;
    mine.weights_of = owner;
    for (uint32_t i = 1; i < s->n; i++)
        MO_TRY(mo_run_new(s->ctx, g, &mine, &s->run[i]));
    p->at = mo_mem_new(s->n, sizeof *p->at);
    bool is_far = !owner->be->is_host && s->ctx->n_ranks > 1;
    if (is_far && !how->bf16)
        MO_TRY(mo_ranks_wire_open(s->ctx, owner->weights, &p->wire));
    if (is_far && !p->wire)
        p->host = mo_mem_new(owner->n_trained + 1, sizeof *p->host);
    if (!p->at || (is_far && !p->wire && !p->host))
        return mo_no_memory(s->ctx, owner->n_trained * sizeof *p->host, "gradients on the host");
    return make_buckets(s, how->bucket_bytes);
}

enum mopt_status mo_shards_new(struct mo_run *owner, const struct mo_graph *g, const struct mo_run_options *options,
                               const struct mo_shard_options *how, struct mo_shards **out)
{
    struct mopt_ctx *ctx = owner->ctx;
    uint32_t n_ranks = (uint32_t)ctx->n_ranks;
    *out = NULL;
    if (!how->n_shards || how->n_shards % n_ranks)
        return mo_fail(ctx, MOPT_USAGE, "option 'shards': %u parts of a batch cannot be dealt to %u ranks: give a multiple",
                       how->n_shards, n_ranks);
    struct mo_shards *s = mo_mem_new(1, sizeof *s);
    struct mo_shards_private *p = mo_mem_new(1, sizeof *p);
    if (!s || !p) {
        mo_mem_free(s);
        mo_mem_free(p);
        return mo_no_memory(ctx, sizeof *s, "parts of a batch");
    }
    *s = (struct mo_shards){ .ctx = ctx, .n_shards = how->n_shards, .n = how->n_shards / n_ranks, .private_ = p };
    s->first = (uint32_t)ctx->rank * s->n;
    p->bf16 = how->bf16;
    s->run = mo_mem_new(s->n, sizeof(struct mo_run *));
    s->has_rows = mo_mem_new(s->n, sizeof *s->has_rows);
    enum mopt_status status = s->run && s->has_rows ? MOPT_OK : mo_no_memory(ctx, s->n, "parts of a batch");
    if (!status) {
        s->run[0] = owner;
        status = make(s, g, options, how);
    }
    if (status) {
        mo_shards_free(s);
        return status;
    }
    *out = s;
    return MOPT_OK;
}

void mo_shards_free(struct mo_shards *s)
{
    if (!s)
        return;
    struct mo_shards_private *p = s->private_;
    for (uint32_t i = 1; s->run && i < s->n; i++)
        mo_run_free(s->run[i]);
    mo_mem_free(s->run);
    mo_mem_free(s->has_rows);
    mo_mem_free(p->buckets);
    mo_ranks_wire_close(p->wire);
    mo_mem_free(p->host);
    mo_mem_free(p->at);
    mo_mem_free(p->sync.work);
    mo_mem_free(p->sync_sums);
    mo_mem_free(p);
    mo_mem_free(s);
}

/* ---- a node that parts share --------------------------------------------------------------------- */

void mo_shards_tree(double *x, uint32_t n, size_t n_elems)
{
    for (uint32_t step = 1; step < n; step *= 2)
        for (uint32_t i = 0; i + step < n; i += 2 * step)
            for (size_t k = 0; k < n_elems; k++)
                x[i * n_elems + k] += x[(i + step) * n_elems + k];
}

static size_t sync_elems(const struct mo_run *run, mo_node_id i)
{
    const struct mo_node *n = &run->graph->nodes[i];
    return n->op->sync_elems ? n->op->sync_elems(run, n) : 0;
}

static enum mopt_status need_room(struct mo_shards *s, size_t n_elems)
{
    struct mo_shards_private *p = s->private_;
    if (n_elems <= p->n_sync_elems)
        return MOPT_OK;
    mo_mem_free(p->sync.work);
    mo_mem_free(p->sync_sums);
    p->n_sync_elems = 0;
    p->sync.work = mo_mem_new(4 * n_elems, sizeof *p->sync.work);
    p->sync_sums = mo_mem_new(s->n, n_elems * sizeof *p->sync_sums);
    if (!p->sync.work || !p->sync_sums)
        return mo_no_memory(s->ctx, n_elems * sizeof *p->sync_sums, "statistics of parts");
    p->n_sync_elems = n_elems;
    return MOPT_OK;
}

/* All parts stand at such a node: measure, add up, go on. */
static enum mopt_status share_node(struct mo_shards *s, bool backward)
{
    struct mo_shards_private *p = s->private_;
    size_t n_elems = sync_elems(s->run[0], p->at[0]);
    bool is_moved = false;
    MO_TRY(need_room(s, n_elems));
    memset(p->sync_sums, 0, s->n * n_elems * sizeof *p->sync_sums);
    for (uint32_t k = 0; k < s->n; k++) {
        struct mo_run *run = s->run[k];
        const struct mo_node *n = &run->graph->nodes[p->at[k]];
        if (sync_elems(run, p->at[k]) != n_elems)
            return mo_fail(s->ctx, MOPT_FAILED, "parts of a batch have different graphs");
        p->sync.phase = MO_SYNC_MEASURE;
        p->sync.sums = p->sync_sums + k * n_elems;
        if (s->has_rows[k])
            MO_TRY(backward ? n->op->backward(run, n) : n->op->forward(run, n));
    }
    mo_shards_tree(p->sync_sums, s->n, n_elems);
    double begin = mo_now_s();
    MO_TRY(mo_ranks_sum(s->ctx, p->sync_sums, n_elems));
    s->use.sync_s += mo_now_s() - begin;
    s->use.n_syncs++;
    p->sync.sums = p->sync_sums;
    for (uint32_t k = 0; k < s->n; k++) {
        p->sync.phase = MO_SYNC_APPLY;
        p->sync.moves_state = !is_moved;
        if (s->has_rows[k])
            MO_TRY(backward ? mo_step_backward(s->run[k], p->at[k]) : mo_step_forward(s->run[k], p->at[k]));
        is_moved |= s->has_rows[k];
    }
    p->sync.phase = MO_SYNC_STATE;
    const struct mo_node *first = &s->run[0]->graph->nodes[p->at[0]];
    return is_moved || backward ? MOPT_OK : first->op->forward(s->run[0], first);
}

static void set_sync(struct mo_shards *s, bool on)
{
    s->private_->sync.batch = s->batch;
    for (uint32_t k = 0; k < s->n; k++)
        s->run[k]->sync = on ? &s->private_->sync : NULL;
}

/* ---- forward ------------------------------------------------------------------------------------------ */

/* Up to the next shared node, or the end. */
static enum mopt_status forward_part(struct mo_shards *s, uint32_t k)
{
    struct mo_run *run = s->run[k];
    mo_node_id *at = &s->private_->at[k];
    for (; *at < run->graph->n_nodes && !sync_elems(run, *at); ++*at)
        if (s->has_rows[k])
            MO_TRY(mo_step_forward(run, *at));
    return MOPT_OK;
}

static enum mopt_status forward(struct mo_shards *s)
{
    struct mo_shards_private *p = s->private_;
    uint64_t step = s->run[0]->step / s->n_shards + 1;
    for (uint32_t k = 0; k < s->n; k++) {
        struct mo_run *run = s->run[k];
        run->step = step * s->n_shards + s->first + k - 1;      /* each part has random numbers of its own */
        p->at[k] = 0;
        if (s->has_rows[k])
            MO_TRY(mo_step_begin(run));
        else
            run->step++;
    }
    for (;;) {
        uint32_t n_ended = 0;
        for (uint32_t k = 0; k < s->n; k++) {
            MO_TRY(forward_part(s, k));
            n_ended += p->at[k] >= s->run[k]->graph->n_nodes;
        }
        if (n_ended == s->n)
            return MOPT_OK;
        if (n_ended)
            return mo_fail(s->ctx, MOPT_FAILED, "parts of a batch have different graphs");
        MO_TRY(share_node(s, false));
        for (uint32_t k = 0; k < s->n; k++)
            p->at[k]++;
    }
}

enum mopt_status mo_shards_forward(struct mo_shards *s)
{
    set_sync(s, true);
    enum mopt_status status = forward(s);
    set_sync(s, false);
    return status;
}

/* ---- backward ------------------------------------------------------------------------------------------ */

/* After which node of the last part's graph each bucket is complete: the first in the graph that writes one of its
 * gradients. */
static void find_ends(struct mo_shards *s)
{
    struct mo_shards_private *p = s->private_;
    const struct mo_plan *plan = s->run[s->n - 1]->plan;
    for (uint32_t b = 0; b < p->n_buckets; b++)
        p->buckets[b].done_at = plan->graph.n_nodes;
    for (mo_node_id i = 0; i < plan->graph.n_nodes; i++) {
        const struct mo_node *n = &plan->graph.nodes[i];
        for (uint32_t k = 0; plan->nodes[i].is_backward && k < n->n_in; k++) {
            if (n->in[k] == MO_NONE || plan->nodes[i].grad_in[k].where == MO_AT_NONE)
                continue;
            const struct mo_value_plan *root = &plan->values[plan->values[n->in[k]].grad_root];
            for (uint32_t b = 0; root->grad_where == MO_AT_GRADS && b < p->n_buckets; b++)
                if (root->grad_offset >= p->buckets[b].first && root->grad_offset < p->buckets[b].first + p->buckets[b].n)
                    p->buckets[b].done_at = MO_MIN(p->buckets[b].done_at, i);
        }
    }
}

/* The bucket's gradients of all parts here into those of the first, over the tree; then off to the other processes. */
static enum mopt_status start_bucket(struct mo_shards *s, struct bucket *b)
{
    struct mo_run *first = s->run[0];
    struct mo_shards_private *p = s->private_;
    for (uint32_t step = 1; step < s->n; step *= 2)
        for (uint32_t i = 0; i + step < s->n; i += 2 * step)
            first->be->axpy(first->dev, b->n, 1, s->run[i + step]->grads + b->first, s->run[i]->grads + b->first, true);
    b->is_done = s->ctx->n_ranks < 2;
    if (b->is_done)
        return MOPT_OK;
    float *x = first->grads + b->first;
    if (p->host) {
        first->be->download(first->dev, p->host + b->first, x, b->n * sizeof *x);
        x = p->host + b->first;
    }
    b->start_s = mo_now_s();
    s->use.n_sums++;
    s->use.n_bytes += b->n * sizeof *x;
    if (p->wire) {
        char why[192];
        if (first->be->sync(first->dev, why, sizeof why))
            return mo_fail(s->ctx, MOPT_FAILED, "device: %s", why);
        return mo_ranks_wire_start(p->wire, x, b->n, &b->ticket);
    }
    return mo_ranks_start(s->ctx, x, b->n, p->bf16, &b->ticket);
}

static void note_end(struct mo_shards *s, struct bucket *b, double now, double exposed_s)
{
    bool is_large = b->n * sizeof(float) >= LARGE;
    s->use.seconds += now - b->start_s;
    s->use.exposed_s += exposed_s;
    if (is_large) {
        s->use.large_s += now - b->start_s;
        s->use.large_exposed_s += exposed_s;
    }
    b->is_done = true;
}

static void poll(struct mo_shards *s)
{
    struct mo_shards_private *p = s->private_;
    if (p->n_seen == p->n_started)
        return;
    double begin = mo_now_s();
    uint64_t done = p->wire ? mo_ranks_wire_poll(p->wire) : mo_ranks_poll(s->ctx);
    double now = mo_now_s();
    s->use.busy_s += now - begin;
    while (p->n_seen < p->n_started && (p->buckets[p->n_seen].is_done || p->buckets[p->n_seen].ticket <= done)) {
        struct bucket *b = &p->buckets[p->n_seen++];
        if (!b->is_done)
            note_end(s, b, now, 0);
    }
}

/* What node i of the last part has completed. */
static enum mopt_status start_ready(struct mo_shards *s, mo_node_id i)
{
    struct mo_shards_private *p = s->private_;
    double begin = mo_now_s();
    bool is_any = false;
    for (; p->sums && p->n_started < p->n_buckets && p->buckets[p->n_started].done_at >= i; p->n_started++) {
        MO_TRY(start_bucket(s, &p->buckets[p->n_started]));
        is_any = true;
    }
    if (is_any)
        s->use.busy_s += mo_now_s() - begin;
    poll(s);
    return MOPT_OK;
}

/* From node at - 1 down to the next shared one, at which `at` then stands plus 1, or to the beginning. */
static enum mopt_status backward_part(struct mo_shards *s, uint32_t k)
{
    struct mo_run *run = s->run[k];
    mo_node_id *at = &s->private_->at[k];
    for (; *at > 0; --*at) {
        mo_node_id i = *at - 1;
        bool runs = run->plan->nodes[i].is_backward;
        if (runs && sync_elems(run, i))
            return MOPT_OK;
        if (runs && s->has_rows[k])
            MO_TRY(mo_step_backward(run, i));
        if (k + 1 == s->n)
            MO_TRY(start_ready(s, i));
        else
            poll(s);
    }
    return MOPT_OK;
}

static enum mopt_status backward(struct mo_shards *s)
{
    struct mo_shards_private *p = s->private_;
    for (;;) {
        uint32_t n_ended = 0;
        for (uint32_t k = 0; k < s->n; k++) {
            MO_TRY(backward_part(s, k));
            n_ended += p->at[k] == 0;
        }
        if (n_ended == s->n)
            return MOPT_OK;
        if (n_ended)
            return mo_fail(s->ctx, MOPT_FAILED, "parts of a batch have different graphs");
        for (uint32_t k = 0; k < s->n; k++)
            p->at[k]--;
        MO_TRY(share_node(s, true));
        MO_TRY(start_ready(s, p->at[s->n - 1]));
    }
}

/* A part without samples adds nothing. */
static void zero_grads(struct mo_run *run)
{
    float zero = 0;
    run->be->fill(run->dev, sizeof zero, run->n_trained, &zero, run->grads);
}

enum mopt_status mo_shards_backward(struct mo_shards *s, bool add, bool is_last)
{
    struct mo_shards_private *p = s->private_;
    enum mopt_status status = MOPT_OK;
    p->n_started = p->n_seen = 0;
    p->sums = is_last && !add;
    set_sync(s, true);
    find_ends(s);
    for (uint32_t k = 0; k < s->n && !status; k++) {
        p->at[k] = s->run[k]->graph->n_nodes;
        if (!s->has_rows[k] && !add)
            zero_grads(s->run[k]);
        if (s->has_rows[k] && add)
            status = mo_step_aside(s->run[k]);
        if (s->has_rows[k] && !status)
            status = mo_step_begin_backward(s->run[k]);
    }
    if (!status)
        status = backward(s);
    set_sync(s, false);
    for (uint32_t k = 0; k < s->n && add; k++)
        if (s->has_rows[k])
            mo_step_add(s->run[k], !status);
    p->sums = is_last;
    return status || !is_last ? status : start_ready(s, 0);
}

enum mopt_status mo_shards_finish(struct mo_shards *s)
{
    struct mo_shards_private *p = s->private_;
    struct mo_run *first = s->run[0];
    for (uint32_t i = 0; i < p->n_started; i++) {
        struct bucket *b = &p->buckets[i];
        double begin = mo_now_s();
        if (b->is_done)
            continue;
        MO_TRY(p->wire ? mo_ranks_wire_wait(p->wire, b->ticket) : mo_ranks_wait(s->ctx, b->ticket));
        double now = mo_now_s();
        note_end(s, b, now, now - begin);
    }
    p->n_seen = p->n_started;
    if (p->host)
        first->be->upload(first->dev, first->grads, p->host, first->n_trained * sizeof *p->host);
    return MOPT_OK;
}

/* conv_onednn.c - convolution and its gradients by oneDNN, one thread each, over
 * slices of the batch, or of the rows of few pictures, that depend on the sizes
 * alone.
 *
 * Activations are channels-last as they are. Weights come as ONNX stores them
 * and are reordered into the layout the library asks for: once where they are
 * constant, in every call where they are trained. Gradients of weights are
 * partial sums of the slices, added over a fixed binary tree.
 *
 * Images may be bfloat16. The library's weights are then too, and its gradient of
 * them is float32. */
#include "kernels/cpu/conv_onednn.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/act.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/small_float.h"
#include "kernels/cpu/team.h"

#define MAX_SLICES 16
/* Pixels of output that are worth a slice, and that are worth a partial sum of the weights' gradient. */
#define SLICE_MACS (4 << 20)
#define ROWS_MACS (1 << 20)         /* in latency's favour */
#define MAX_PARTIALS 8
/* Slices differ in size and padding: first, middle, last and one more. */
#define MAX_PRIMS 4
#define MIN_SLICE_ROWS 4

enum { X, W, B, R, Y, SCRATCH, N_ROLES };       /* operands; Y is the result, or its gradient */

/* One primitive and, for each slice that may run at once, memory objects to point it at the data. */
struct prim {
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t md[N_ROLES];
    size_t bytes[N_ROLES];
    bool is_by_gemm;
};

/* What one slice computes: pictures, or with few pictures some rows of one. */
struct part {
    int64_t batch, in_rows, out_rows, pad_begin, pad_end;       /* rows: of the first spatial axis */
    size_t x, y;                        /* elements to its first input and output */
    int prim;
};

struct stage {
    int n_slices, n_prims;
    struct part parts[MAX_SLICES];
    struct prim prims[MAX_PRIMS];
    dnnl_memory_t memory[MAX_SLICES][N_ROLES];
    dnnl_primitive_t reorder;           /* user's weights to the primitive's, or back; NULL: same layout */
    dnnl_memory_t user_memory, own_memory;
    size_t w_bytes, scratch_each;
};

struct mo_dnn_conv {
    struct mo_conv_desc d;
    const struct mo_onednn *lib;
    dnnl_stream_t streams[MAX_SLICES];
    struct stage forward, grad_input, grad_weight;
    dnnl_memory_desc_t user_w;
    void *packed;                       /* constant weights in the primitive's layout */
    size_t x_image, y_image;            /* elements of one picture */
    bool own_epilogue;                  /* residual and activation are done here, behind each slice */
};

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static int64_t product3(const int64_t v[3])
{
    return v[0] * v[1] * v[2];
}

/* ---- descriptions ------------------------------------------------------------------- */

static bool image_md(const struct mo_onednn *lib, dnnl_memory_desc_t *md, int64_t batch, int64_t channels,
                     const int64_t *spatial, int n_spatial, bool is_bf16)
{
    dnnl_dims_t dims = { batch, channels }, strides = { 0, 1 };
    int64_t stride = channels;
    for (int i = n_spatial - 1; i >= 0; i--) {
        dims[2 + i] = spatial[i];
        strides[2 + i] = stride;
        stride *= spatial[i];
    }
    strides[0] = stride;
    return lib->memory_desc_init_by_strides(md, n_spatial + 2, dims, is_bf16 ? dnnl_bf16 : dnnl_f32, strides) ==
           dnnl_success;
}

/* O I k..., with the group in front where there are several; `any` leaves the layout to the library. */
static bool weight_md(const struct mo_onednn *lib, dnnl_memory_desc_t *md, const struct mo_conv_desc *d, bool any,
                      bool is_bf16)
{
    dnnl_dims_t dims, strides;
    int n = 0;
    if (d->groups > 1)
        dims[n++] = d->groups;
    dims[n++] = d->out_channels / d->groups;
    dims[n++] = d->in_channels / d->groups;
    for (int i = 0; i < d->n_spatial; i++)
        dims[n++] = d->kernel[i];
    int64_t stride = 1;
    for (int i = n - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= dims[i];
    }
    if (lib->memory_desc_init_by_strides(md, n, dims, is_bf16 ? dnnl_bf16 : dnnl_f32, strides) != dnnl_success)
        return false;
    if (any)
        md->format_kind = dnnl_format_kind_any;
    return true;
}

static bool bias_md(const struct mo_onednn *lib, dnnl_memory_desc_t *md, int64_t channels)
{
    dnnl_dims_t dims = { channels }, strides = { 1 };
    return lib->memory_desc_init_by_strides(md, 1, dims, dnnl_f32, strides) == dnnl_success;
}

/* scratchpad of ours; residual, then activation behind a forward convolution */
static dnnl_primitive_attr_t make_attr(const struct mo_dnn_conv *conv, const dnnl_memory_desc_t *residual, bool is_forward)
{
    const struct mo_onednn *lib = conv->lib;
    const struct mo_conv_desc *d = &conv->d;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    bool ok = lib->primitive_attr_create(&attr) == dnnl_success &&
              lib->primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success &&
              lib->post_ops_create(&ops) == dnnl_success;
    is_forward = is_forward && !conv->own_epilogue;
    if (ok && is_forward && d->adds_residual)
        ok = lib->post_ops_append_binary(ops, dnnl_binary_add, residual) == dnnl_success;
    static const struct { dnnl_alg_kind_t kind; float alpha, beta; } acts[] = {
        [MO_ACT_RELU] = { dnnl_eltwise_relu, 0, 0 },
        [MO_ACT_CLIP] = { dnnl_eltwise_clip, 0, 0 },
        [MO_ACT_SIGMOID] = { dnnl_eltwise_logistic, 0, 0 },
        [MO_ACT_TANH] = { dnnl_eltwise_tanh, 0, 0 },
        [MO_ACT_HARD_SWISH] = { dnnl_eltwise_hardswish, 0, 0 },
    };
    if (ok && is_forward && d->act != MO_ACT_NONE) {
        bool clips = d->act == MO_ACT_CLIP;
        ok = lib->post_ops_append_eltwise(ops, 1, acts[d->act].kind, clips ? d->act_lo : 0, clips ? d->act_hi : 0) ==
             dnnl_success;
    }
    ok = ok && lib->primitive_attr_set_post_ops(attr, ops) == dnnl_success;
    if (ops)
        lib->post_ops_destroy(ops);
    if (!ok && attr) {
        lib->primitive_attr_destroy(attr);
        attr = NULL;
    }
    return attr;
}

enum kind { FORWARD, GRAD_INPUT, GRAD_WEIGHT };

static bool init_desc(const struct mo_dnn_conv *conv, enum kind kind, const struct part *part, struct prim *p,
                      dnnl_convolution_desc_t *desc)
{
    const struct mo_conv_desc *d = &conv->d;
    dnnl_dims_t dilates = { 0 }, strides = { 0 }, begin = { 0 }, end = { 0 };
    for (int i = 0; i < d->n_spatial; i++) {
        dilates[i] = d->dilation[i] - 1;
        strides[i] = d->stride[i];
        begin[i] = d->pad_begin[i];
        end[i] = d->pad_end[i];
    }
    begin[0] = part->pad_begin;
    end[0] = part->pad_end;
    dnnl_memory_desc_t *bias = d->has_bias ? &p->md[B] : NULL;
    bool trains = d->needs_grad_weight || d->needs_grad_input;
    switch (kind) {
    case FORWARD:
        return conv->lib->dilated_convolution_forward_desc_init(
                   desc, trains ? dnnl_forward_training : dnnl_forward_inference, dnnl_convolution_direct, &p->md[X],
                   &p->md[W], bias, &p->md[Y], strides, dilates, begin, end) == dnnl_success;
    case GRAD_INPUT:
        return conv->lib->dilated_convolution_backward_data_desc_init(
                   desc, dnnl_convolution_direct, &p->md[X], &p->md[W], &p->md[Y], strides, dilates, begin,
                   end) == dnnl_success;
    case GRAD_WEIGHT:
        return conv->lib->dilated_convolution_backward_weights_desc_init(
                   desc, dnnl_convolution_direct, &p->md[X], &p->md[W], bias, &p->md[Y], strides, dilates,
                   begin, end) == dnnl_success;
    }
    return false;
}

static dnnl_primitive_desc_t describe(const struct mo_dnn_conv *conv, enum kind kind, const struct part *part,
                                      struct prim *p, const dnnl_convolution_desc_t *desc)
{
    const struct mo_onednn *lib = conv->lib;
    dnnl_primitive_desc_t pd = NULL, hint = NULL;
    dnnl_primitive_attr_t attr = make_attr(conv, &p->md[R], kind == FORWARD);
    if (!attr)
        return NULL;
    if (kind != FORWARD) {
        dnnl_convolution_desc_t forward;
        struct prim of_forward = *p;
        if (!weight_md(lib, &of_forward.md[W], &conv->d, true, conv->d.is_bf16) ||
            !init_desc(conv, FORWARD, part, &of_forward, &forward) ||
            lib->primitive_desc_create(&hint, &forward, NULL, lib->engine, NULL) != dnnl_success)
            hint = NULL;
    }
    if ((kind == FORWARD || hint) && lib->primitive_desc_create(&pd, desc, attr, lib->engine, hint) != dnnl_success)
        pd = NULL;
    if (hint)
        lib->primitive_desc_destroy(hint);
    lib->primitive_attr_destroy(attr);
    return pd;
}

static bool prim_new(const struct mo_dnn_conv *conv, enum kind kind, const struct part *part, struct prim *p)
{
    const struct mo_onednn *lib = conv->lib;
    const struct mo_conv_desc *d = &conv->d;
    dnnl_convolution_desc_t desc;
    int64_t in[3] = { part->in_rows, d->in[1], d->in[2] }, out[3] = { part->out_rows, d->out[1], d->out[2] };
    if (!image_md(lib, &p->md[X], part->batch, d->in_channels, in, d->n_spatial, d->is_bf16) ||
        !image_md(lib, &p->md[Y], part->batch, d->out_channels, out, d->n_spatial, d->is_bf16) ||
        !weight_md(lib, &p->md[W], d, true, d->is_bf16 && kind != GRAD_WEIGHT) ||
        !bias_md(lib, &p->md[B], d->out_channels))
        return false;
    p->md[R] = p->md[Y];
    if (!init_desc(conv, kind, part, p, &desc))
        return false;
    dnnl_primitive_desc_t pd = describe(conv, kind, part, p, &desc);
    if (!pd)
        return false;
    dnnl_query_t w_query = kind == GRAD_WEIGHT ? dnnl_query_diff_weights_md : dnnl_query_weights_md;
    p->md[W] = *lib->primitive_desc_query_md(pd, w_query, 0);
    p->md[SCRATCH] = *lib->primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    for (int i = 0; i < N_ROLES; i++)
        p->bytes[i] = lib->memory_desc_get_size(&p->md[i]);
    const char *name = NULL;
    lib->primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name);
    p->is_by_gemm = !name || strstr(name, "gemm");
    bool ok = lib->primitive_create(&p->primitive, pd) == dnnl_success;
    lib->primitive_desc_destroy(pd);
    return ok;
}

/* ---- stages ---------------------------------------------------------------------------- */

static double macs_of(const struct mo_conv_desc *d)
{
    return (double)d->batch * (double)product3(d->out) * (double)d->out_channels *
           (double)(d->in_channels / d->groups) * (double)product3(d->kernel);
}

static void cut_pictures(struct stage *s, const struct mo_conv_desc *d, int64_t n, size_t x_image, size_t y_image)
{
    int64_t each = (d->batch + n - 1) / n;
    for (int64_t first = 0; first < d->batch; first += each) {
        struct part *p = &s->parts[s->n_slices++];
        *p = (struct part){ .batch = d->batch - first < each ? d->batch - first : each, .in_rows = d->in[0],
                            .out_rows = d->out[0], .pad_begin = d->pad_begin[0], .pad_end = d->pad_end[0],
                            .x = (size_t)first * x_image, .y = (size_t)first * y_image };
    }
}

/* Rows first..last-1 of a picture's output, and the rows of input that they see. */
static bool cut_rows_of(const struct mo_conv_desc *d, int64_t first, int64_t last, struct part *p)
{
    int64_t reach = (d->kernel[0] - 1) * d->dilation[0] + 1;
    int64_t begin = first * d->stride[0] - d->pad_begin[0], end = (last - 1) * d->stride[0] - d->pad_begin[0] + reach;
    *p = (struct part){ .batch = 1, .out_rows = last - first, .pad_begin = begin < 0 ? -begin : 0,
                        .pad_end = end > d->in[0] ? end - d->in[0] : 0 };
    begin = begin < 0 ? 0 : begin;
    end = end > d->in[0] ? d->in[0] : end;
    p->in_rows = end - begin;
    p->x = (size_t)(begin * d->in[1] * d->in[2] * d->in_channels);
    p->y = (size_t)(first * d->out[1] * d->out[2] * d->out_channels);
    return p->in_rows > 0 && p->pad_begin < reach && p->pad_end < reach;
}

static bool cut_rows(struct stage *s, const struct mo_conv_desc *d, int64_t blocks, size_t x_image, size_t y_image)
{
    for (int64_t n = 0; n < d->batch; n++)
        for (int64_t b = 0; b < blocks; b++) {
            struct part *p = &s->parts[s->n_slices];
            if (!cut_rows_of(d, b * d->out[0] / blocks, (b + 1) * d->out[0] / blocks, p)) {
                s->n_slices = 0;
                return false;
            }
            p->x += (size_t)n * x_image;
            p->y += (size_t)n * y_image;
            s->n_slices++;
        }
    return true;
}

/* May the slices be rows of pictures, where there are too few pictures? */
static void cut(struct stage *s, const struct mo_dnn_conv *conv, enum kind kind, bool by_rows)
{
    const struct mo_conv_desc *d = &conv->d;
    int max_slices = kind == GRAD_WEIGHT ? MAX_PARTIALS : MAX_SLICES;
    double wanted = macs_of(d) / SLICE_MACS;
    int64_t n = wanted > max_slices ? max_slices : wanted < 1 ? 1 : (int64_t)wanted;
    double fine = macs_of(d) / ROWS_MACS;
    int64_t blocks = (fine > MAX_SLICES ? MAX_SLICES : (int64_t)fine) / (d->batch ? d->batch : 1);
    if (blocks > d->out[0] / MIN_SLICE_ROWS)
        blocks = d->out[0] / MIN_SLICE_ROWS;
    if (by_rows && blocks > 1 && cut_rows(s, d, blocks, conv->x_image, conv->y_image))
        return;
    n = n > d->batch ? d->batch : n;
    if (n > 0)
        cut_pictures(s, d, n, conv->x_image, conv->y_image);
}

static bool same_work(const struct part *a, const struct part *b)
{
    return a->batch == b->batch && a->in_rows == b->in_rows && a->out_rows == b->out_rows &&
           a->pad_begin == b->pad_begin && a->pad_end == b->pad_end;
}

/* One primitive for all parts of the same size and padding. */
static bool make_prims(const struct mo_dnn_conv *conv, struct stage *s, enum kind kind)
{
    for (int i = 0; i < s->n_slices; i++) {
        int k = 0;
        while (k < i && !same_work(&s->parts[k], &s->parts[i]))
            k++;
        s->parts[i].prim = k < i ? s->parts[k].prim : s->n_prims;
        if (k < i)
            continue;
        if (s->n_prims == MAX_PRIMS || !prim_new(conv, kind, &s->parts[i], &s->prims[s->n_prims++]) ||
            !conv->lib->memory_desc_equal(&s->prims[0].md[W], &s->prims[s->n_prims - 1].md[W]))
            return false;
    }
    return s->n_prims > 0;
}

static bool stage_memory(const struct mo_dnn_conv *conv, struct stage *s)
{
    const struct mo_onednn *lib = conv->lib;
    for (int i = 0; i < s->n_slices; i++) {
        const struct prim *p = &s->prims[s->parts[i].prim];
        for (int role = 0; role < N_ROLES; role++)
            if (lib->memory_create(&s->memory[i][role], &p->md[role], lib->engine, DNNL_MEMORY_NONE) != dnnl_success)
                return false;
    }
    return lib->memory_create(&s->user_memory, &conv->user_w, lib->engine, DNNL_MEMORY_NONE) == dnnl_success &&
           lib->memory_create(&s->own_memory, &s->prims[0].md[W], lib->engine, DNNL_MEMORY_NONE) == dnnl_success;
}

static bool stage_reorder(const struct mo_dnn_conv *conv, struct stage *s, bool to_user)
{
    const struct mo_onednn *lib = conv->lib;
    const dnnl_memory_desc_t *from = to_user ? &s->prims[0].md[W] : &conv->user_w;
    const dnnl_memory_desc_t *to = to_user ? &conv->user_w : &s->prims[0].md[W];
    dnnl_primitive_desc_t pd;
    if (lib->memory_desc_equal(from, to))
        return true;
    if (lib->reorder_primitive_desc_create(&pd, from, lib->engine, to, lib->engine, NULL) != dnnl_success)
        return false;
    bool ok = lib->primitive_create(&s->reorder, pd) == dnnl_success;
    lib->primitive_desc_destroy(pd);
    return ok;
}

static void stage_release(const struct mo_onednn *lib, struct stage *s)
{
    for (int i = 0; i < s->n_slices; i++)
        for (int role = 0; role < N_ROLES; role++)
            if (s->memory[i][role])
                lib->memory_destroy(s->memory[i][role]);
    if (s->user_memory)
        lib->memory_destroy(s->user_memory);
    if (s->own_memory)
        lib->memory_destroy(s->own_memory);
    for (int i = 0; i < s->n_prims; i++)
        if (s->prims[i].primitive)
            lib->primitive_destroy(s->prims[i].primitive);
    if (s->reorder)
        lib->primitive_destroy(s->reorder);
    *s = (struct stage){ 0 };
}

static bool stage_new(const struct mo_dnn_conv *conv, struct stage *s, enum kind kind)
{
    cut(s, conv, kind, kind == FORWARD);
    if (!make_prims(conv, s, kind)) {
        stage_release(conv->lib, s);
        cut(s, conv, kind, false);
        if (!make_prims(conv, s, kind))
            return false;
    }
    s->w_bytes = aligned(s->prims[0].bytes[W]);
    for (int i = 0; i < s->n_prims; i++)
        if (aligned(s->prims[i].bytes[SCRATCH]) > s->scratch_each)
            s->scratch_each = aligned(s->prims[i].bytes[SCRATCH]);
    return stage_reorder(conv, s, kind == GRAD_WEIGHT) && stage_memory(conv, s);
}

/* What the library (2.6) adds wrongly: a tensor whose pictures are one pixel wide, behind a convolution in groups. It takes
 * that for a number for each channel, and reads past the first sixteen of them. */
static bool adds_wrongly(const struct mo_conv_desc *d)
{
    return d->adds_residual && d->groups > 1 && d->out[1] * d->out[2] == 1;
}

/* The library's own fall-back (2.6) adds a tensor wrongly, too: both get a plain convolution then. */
static bool forward_new(struct mo_dnn_conv *conv)
{
    struct stage *s = &conv->forward;
    conv->own_epilogue = adds_wrongly(&conv->d);
    if (!stage_new(conv, s, FORWARD))
        return false;
    bool is_by_gemm = false;
    for (int i = 0; i < s->n_prims; i++)
        is_by_gemm |= s->prims[i].is_by_gemm;
    if (!conv->d.adds_residual || !is_by_gemm || conv->own_epilogue)
        return true;
    stage_release(conv->lib, s);
    conv->own_epilogue = true;
    return stage_new(conv, s, FORWARD);
}

/* ---- making and freeing ------------------------------------------------------------------ */

void mo_dnn_conv_free(struct mo_dnn_conv *conv)
{
    if (!conv)
        return;
    stage_release(conv->lib, &conv->forward);
    stage_release(conv->lib, &conv->grad_input);
    stage_release(conv->lib, &conv->grad_weight);
    for (int i = 0; i < MAX_SLICES; i++)
        if (conv->streams[i])
            conv->lib->stream_destroy(conv->streams[i]);
    free(conv->packed);
    free(conv);
}

static bool build(struct mo_dnn_conv *conv)
{
    const struct mo_onednn *lib = conv->lib;
    const struct mo_conv_desc *d = &conv->d;
    for (int i = 0; i < MAX_SLICES; i++)
        if (lib->stream_create(&conv->streams[i], lib->engine, dnnl_stream_default_flags) != dnnl_success)
            return false;
    if (!weight_md(lib, &conv->user_w, d, false, false) || !forward_new(conv))
        return false;
    if (d->needs_grad_input && !stage_new(conv, &conv->grad_input, GRAD_INPUT))
        return false;
    if (d->needs_grad_weight && !stage_new(conv, &conv->grad_weight, GRAD_WEIGHT))
        return false;
    if (d->constant_weights && conv->forward.reorder)
        conv->packed = mo_cpu_alloc(conv->forward.w_bytes);
    return !d->constant_weights || !conv->forward.reorder || conv->packed;
}

struct mo_dnn_conv *mo_dnn_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc)
{
    if (desc->is_bf16 && dev->isa < MO_ISA_AVX512)
        return NULL;
    const struct mo_onednn *lib = mo_onednn_load(dev->isa);
    struct mo_dnn_conv *conv = lib ? calloc(1, sizeof *conv) : NULL;
    if (!conv)
        return NULL;
    mo_onednn_enter(lib);
    conv->lib = lib;
    conv->d = *desc;
    conv->x_image = (size_t)(product3(desc->in) * desc->in_channels);
    conv->y_image = (size_t)(product3(desc->out) * desc->out_channels);
    if (!build(conv)) {
        mo_dnn_conv_free(conv);
        return NULL;
    }
    return conv;
}

static size_t stage_scratch(const struct stage *s)
{
    return s->w_bytes + (size_t)s->n_slices * s->scratch_each;
}

size_t mo_dnn_conv_scratch_bytes(const struct mo_dnn_conv *conv, bool backward)
{
    if (!backward)
        return stage_scratch(&conv->forward);
    const struct stage *w = &conv->grad_weight;
    size_t partial = w->w_bytes + aligned((size_t)conv->d.out_channels * sizeof(float));
    size_t a = stage_scratch(&conv->grad_input), b = (size_t)w->n_slices * (partial + w->scratch_each);
    return a > b ? a : b;
}

/* ---- running -------------------------------------------------------------------------------- */

static void reorder(const struct mo_dnn_conv *conv, struct stage *s, bool to_user, const void *from, void *to)
{
    const struct mo_onednn *lib = conv->lib;
    dnnl_memory_t a = to_user ? s->own_memory : s->user_memory, b = to_user ? s->user_memory : s->own_memory;
    lib->memory_set_data_handle(a, (void *)(uintptr_t)from);
    lib->memory_set_data_handle(b, to);
    dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, a }, { DNNL_ARG_TO, b } };
    lib->primitive_execute(s->reorder, conv->streams[0], 2, args);
}

void mo_dnn_conv_pack(struct mo_device *dev, struct mo_dnn_conv *conv, const float *w)
{
    (void)dev;
    mo_onednn_enter(conv->lib);
    if (conv->packed)
        reorder(conv, &conv->forward, false, w, conv->packed);
}

struct job {
    struct mo_device *dev;
    struct mo_dnn_conv *conv;
    struct stage *stage;
    enum kind kind;
    const char *x, *residual, *y;
    size_t elem_bytes;              /* of these three */
    const void *w;
    const float *bias;
    char *scratch;                  /* slices' scratchpads */
    char *partial;                  /* slices' weight gradients, then bias gradients */
    size_t partial_each;
};

static void set(const struct job *j, int slice, int role, const void *data)
{
    j->conv->lib->memory_set_data_handle(j->stage->memory[slice][role], (void *)(uintptr_t)data);
}

static int arguments(const struct job *j, dnnl_memory_t *memory, dnnl_exec_arg_t *args)
{
    static const int ids[3][N_ROLES] = {
        [FORWARD] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, 0, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD },
        [GRAD_INPUT] = { DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, 0, 0, DNNL_ARG_DIFF_DST, DNNL_ARG_SCRATCHPAD },
        [GRAD_WEIGHT] = { DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS, 0, DNNL_ARG_DIFF_DST,
                          DNNL_ARG_SCRATCHPAD },
    };
    int n = 0;
    for (int role = 0; role < N_ROLES; role++)
        if (ids[j->kind][role] && (role != B || j->conv->d.has_bias))
            args[n++] = (dnnl_exec_arg_t){ ids[j->kind][role], memory[role] };
    if (j->kind == FORWARD && j->conv->d.adds_residual && !j->conv->own_epilogue)
        args[n++] = (dnnl_exec_arg_t){ DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, memory[R] };
    return n;
}

static void finish_slice(const struct job *j, const struct part *part)
{
    const struct mo_conv_desc *d = &j->conv->d;
    int64_t n = part->batch * part->out_rows * d->out[1] * d->out[2] * d->out_channels;
    void *at = (void *)(uintptr_t)(j->y + part->y * j->elem_bytes);
    const void *more = j->residual + part->y * j->elem_bytes;
    for (int64_t i = 0; i < n && d->is_bf16; i++) {
        uint16_t *y = (uint16_t *)at + i;
        float sum = mo_float_of_bf16(*y) + mo_float_of_bf16(((const uint16_t *)more)[i]);
        *y = mo_bf16_of_float(mo_act(d->act, d->act_lo, d->act_hi, sum));
    }
    for (int64_t i = 0; i < n && !d->is_bf16; i++) {
        float *y = (float *)at + i;
        *y = mo_act(d->act, d->act_lo, d->act_hi, *y + ((const float *)more)[i]);
    }
}

static void run_slice(void *arg, int i)
{
    const struct job *j = arg;
    struct mo_dnn_conv *conv = j->conv;
    struct stage *s = j->stage;
    const struct part *part = &s->parts[i];
    mo_onednn_enter(conv->lib);
    char *partial = j->partial ? j->partial + (size_t)i * j->partial_each : NULL;
    set(j, i, X, j->x + part->x * j->elem_bytes);
    set(j, i, Y, j->y + part->y * j->elem_bytes);
    set(j, i, W, partial ? partial : j->w);
    set(j, i, B, partial ? (const void *)(partial + s->w_bytes) : j->bias);
    if (j->residual)
        set(j, i, R, j->residual + part->y * j->elem_bytes);
    set(j, i, SCRATCH, j->scratch + (size_t)i * s->scratch_each);
    dnnl_exec_arg_t args[N_ROLES + 1];
    int n = arguments(j, s->memory[i], args);
    if (conv->lib->primitive_execute(s->prims[part->prim].primitive, conv->streams[i], n, args) != dnnl_success)
        mo_device_latch(j->dev, "oneDNN could not run a convolution");
    conv->lib->stream_wait(conv->streams[i]);
    if (j->kind == FORWARD && conv->own_epilogue)
        finish_slice(j, part);
}

/* The weights in the layout of the stage: packed, as they are, or reordered into scratch. */
static const void *weights_for(struct mo_dnn_conv *conv, struct stage *s, const float *w, void *scratch)
{
    if (s == &conv->forward && conv->packed)
        return conv->packed;
    if (!s->reorder)
        return w;
    reorder(conv, s, false, w, scratch);
    return scratch;
}

static size_t elem_bytes(const struct mo_dnn_conv *conv)
{
    return conv->d.is_bf16 ? sizeof(uint16_t) : sizeof(float);
}

void mo_dnn_conv(struct mo_device *dev, struct mo_dnn_conv *conv, const void *x, const float *w, const float *bias,
                 const void *residual, void *y, void *scratch)
{
    struct stage *s = &conv->forward;
    mo_onednn_enter(conv->lib);
    struct job j = {.dev = dev,
                    .conv = conv,
                    .stage = s,
                    .kind = FORWARD,
                    .x = x,
                    .y = y,
                    .residual = residual,
                    .elem_bytes = elem_bytes(conv),
                    .bias = bias,
                    .w = weights_for(conv, s, w, scratch),
                    .scratch = (char *)scratch + s->w_bytes};
    mo_team_run(dev->team, s->n_slices, run_slice, &j);
}

void mo_dnn_conv_grad_input(struct mo_device *dev, struct mo_dnn_conv *conv, const float *w, const void *dy, void *dx,
                            void *scratch)
{
    struct stage *s = &conv->grad_input;
    mo_onednn_enter(conv->lib);
    struct job j = {.dev = dev,
                    .conv = conv,
                    .stage = s,
                    .kind = GRAD_INPUT,
                    .x = dx,
                    .y = dy,
                    .elem_bytes = elem_bytes(conv),
                    .w = weights_for(conv, s, w, scratch),
                    .scratch = (char *)scratch + s->w_bytes};
    mo_team_run(dev->team, s->n_slices, run_slice, &j);
}

/* Neighbours first, then neighbours of those: the tree is the same for any number of threads. */
struct tree {
    float *partial;
    size_t n_elems, stride;
    int n;
};

#define TREE_BLOCK 8192

static void add_block(void *arg, int block)
{
    const struct tree *t = arg;
    size_t begin = (size_t)block * TREE_BLOCK, end = begin + TREE_BLOCK < t->n_elems ? begin + TREE_BLOCK : t->n_elems;
    for (int step = 1; step < t->n; step *= 2)
        for (int i = 0; i + step < t->n; i += 2 * step) {
            float *to = t->partial + (size_t)i * t->stride;
            const float *from = t->partial + (size_t)(i + step) * t->stride;
            for (size_t k = begin; k < end; k++)
                to[k] += from[k];
        }
}

void mo_dnn_conv_grad_weight(struct mo_device *dev, struct mo_dnn_conv *conv, const void *x, const void *dy,
                             float *dw, float *dbias, void *scratch)
{
    struct stage *s = &conv->grad_weight;
    size_t bias_bytes = aligned((size_t)conv->d.out_channels * sizeof(float)), each = s->w_bytes + bias_bytes;
    struct job j = {.dev = dev,
                    .conv = conv,
                    .stage = s,
                    .kind = GRAD_WEIGHT,
                    .x = x,
                    .y = dy,
                    .partial = scratch,
                    .elem_bytes = elem_bytes(conv),
                    .partial_each = each,
                    .scratch = (char *)scratch + (size_t)s->n_slices * each};
    mo_onednn_enter(conv->lib);
    mo_team_run(dev->team, s->n_slices, run_slice, &j);
    struct tree t = { scratch, each / sizeof(float), each / sizeof(float), s->n_slices };
    if (t.n > 1)
        mo_team_run(dev->team, (int)((t.n_elems + TREE_BLOCK - 1) / TREE_BLOCK), add_block, &t);
    if (s->reorder)
        reorder(conv, s, true, scratch, dw);
    else
        memcpy(dw, scratch, s->prims[0].bytes[W]);
    if (dbias)
        memcpy(dbias, (char *)scratch + s->w_bytes, (size_t)conv->d.out_channels * sizeof(float));
}

/* backend.h - what a device must offer: kernels on pointers and sizes.
 *
 * No graph, no tensor, no memory that the caller did not give. Complete or
 * absent: no entry of a backend that can be opened is NULL. Kernels return
 * nothing; a device latches its first error and sync() gives it out.
 *
 * Images are channels-last everywhere: N, D, H, W, C. Weights of convolutions
 * come as ONNX stores them, O I/g kD kH kW.
 *
 * Every kernel gives the same bits for any number of threads: work is cut into
 * slices that depend on the sizes alone, and partial sums are added over one
 * fixed binary tree.
 *
 * The table is kernels.def; a kernel is one line there with its formula above
 * it, one plain C function mo_ref_NAME in kernels/cpu/, one in kernels/cuda/. */
#ifndef MO_BACKEND_H
#define MO_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MO_K_MAX_RANK 10

/* One opened device: its threads or streams, its handles, its latched error. */
struct mo_device;

enum mo_unary {
    MO_ABS, MO_NEG, MO_EXP, MO_LOG, MO_SQRT, MO_RECIPROCAL, MO_SQUARE, MO_ERF, MO_TANH, MO_SIGMOID,
    MO_RELU, MO_LEAKY_RELU /* a: slope */, MO_ELU /* a: alpha */, MO_SELU /* a: alpha, b: gamma */,
    MO_CLIP /* a: low, b: high */, MO_HARD_SIGMOID /* a: alpha, b: beta */, MO_HARD_SWISH,
    MO_SOFTPLUS, MO_SOFTSIGN, MO_MISH, MO_GELU, MO_GELU_TANH, MO_SWISH /* a: alpha */,
    MO_FLOOR, MO_CEIL, MO_ROUND /* half to even */, MO_SIGN, MO_SIN, MO_COS, MO_TAN, MO_ASIN, MO_ACOS, MO_ATAN,
    MO_SINH, MO_COSH, MO_ASINH, MO_ACOSH, MO_ATANH, MO_CELU /* a: alpha */, MO_THRESHOLDED_RELU /* a: alpha */,
    MO_N_UNARY
};
enum mo_binary {
    MO_ADD, MO_SUB, MO_MUL, MO_DIV, MO_POW, MO_MIN_OF, MO_MAX_OF, MO_MOD /* sign of b */, MO_FMOD /* sign of a */,
    MO_BIT_AND, MO_BIT_OR, MO_BIT_XOR, MO_SHIFT_LEFT, MO_SHIFT_RIGHT,       /* integers only */
    /* results are bytes 0 or 1 from here on */
    MO_EQUAL, MO_LESS, MO_LESS_EQUAL, MO_GREATER, MO_GREATER_EQUAL, MO_AND, MO_OR, MO_XOR,
    MO_N_BINARY
};
enum mo_reduce {
    MO_REDUCE_SUM, MO_REDUCE_MEAN, MO_REDUCE_MAX, MO_REDUCE_MIN, MO_REDUCE_PROD, MO_REDUCE_L1, MO_REDUCE_L2,
    MO_REDUCE_SUM_SQUARE, MO_REDUCE_LOG_SUM, MO_REDUCE_LOG_SUM_EXP, MO_N_REDUCE
};
enum mo_scatter { MO_SCATTER_SET, MO_SCATTER_ADD, MO_SCATTER_MUL, MO_SCATTER_MIN, MO_SCATTER_MAX };
enum mo_act { MO_ACT_NONE, MO_ACT_RELU, MO_ACT_CLIP /* lo, hi */, MO_ACT_SIGMOID, MO_ACT_TANH, MO_ACT_HARD_SWISH };
enum mo_pool_kind { MO_POOL_MAX, MO_POOL_AVERAGE, MO_POOL_AVERAGE_WITH_PAD };

/* A convolution, fixed when its shapes are: what conv_new makes its primitives from.
 * n_spatial 1..3; unused trailing entries are 1 (sizes) or 0 (pads). */
struct mo_conv_desc {
    int n_spatial;
    int64_t batch, groups, in_channels, out_channels;       /* channels in all groups together */
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
    bool has_bias, adds_residual;
    enum mo_act act; float act_lo, act_hi;                  /* y = act(conv + bias + residual) */
    bool needs_grad_input, needs_grad_weight;               /* training: primitives for these too */
    bool constant_weights;                                  /* conv_pack is called once before the first conv */
    bool is_bf16;                                           /* the images are: the kernels conv_*_bf16 are called */
};
struct mo_conv;         /* a prepared convolution, the backend's own */

/* A convolution of 8-bit numbers with constant weights, fixed when its shapes are; a product of matrices is one of m
 * pictures of one pixel. With s = sum (x - x_zero)(w - w_zero[o]) + bias[o] in int32, and padding as x_zero (of the type
 * of x, given with each call),
 *     int32           y = s
 *     float32         y = fma(s, factor[o], offset[o])
 *     uint8, int8     y = that, rounded half to even, + y_zero, held to y_low..y_high
 * The pointers are to host memory that qconv_new alone reads. */
struct mo_qconv_desc {
    struct mo_conv_desc shape;              /* channels, sizes and strides; nothing else of it counts */
    bool x_signed, w_signed;
    const void *w;
    const int32_t *w_zero, *bias;           /* out_channels of them; NULL: 0 */
    const float *factor, *offset;           /* likewise; offset NULL: 0 */
    int y_dtype;                            /* ONNX number: 1, 2, 3 or 6 */
    int32_t y_zero, y_low, y_high;
};
struct mo_qconv;        /* a prepared one, the backend's own */

/* A first layer whose picture goes on in bytes: convolution in float32 with few channels, max pooling, then as quantize does.
 * x is channels-last, w out_channels x in_channels x taps; one group, two axes or one. Windows of the pool lie inside. */
struct mo_qfirst_desc {
    struct mo_conv_desc conv;               /* its bias is an argument, its activation is in y_low and y_high */
    int64_t pool[2], pool_stride[2], pooled[2];     /* height, width */
    float scale;
    int32_t y_zero, y_low, y_high;          /* held to y_low .. y_high after rounding */
};

/* y = (a - a_zero) a_factor + (b - b_zero) b_factor for MO_ADD, (a - a_zero)(b - b_zero) a_factor for MO_MUL, rounded half
 * to even, + y_zero, held to y_low..y_high. The sum is fma((float)(b - b_zero), b_factor, (float)(a - a_zero) * a_factor). */
struct mo_qbinary {
    enum mo_binary f;
    bool a_signed, b_signed;
    int32_t a_zero, b_zero, y_zero, y_low, y_high;
    float a_factor, b_factor;
};

struct mo_pool_desc {
    enum mo_pool_kind kind;
    int n_spatial;
    int64_t batch, channels;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
};

/* Reading images between their pixels: pixel = coordinate * scale + shift along each axis; low and high are where
 * reflection turns. n_axes 1..3. */
enum mo_sample_mode { MO_SAMPLE_NEAREST, MO_SAMPLE_LINEAR, MO_SAMPLE_CUBIC };
enum mo_sample_padding { MO_SAMPLE_ZEROS, MO_SAMPLE_BORDER, MO_SAMPLE_REFLECT };
struct mo_sample_desc {
    enum mo_sample_mode mode;
    enum mo_sample_padding padding;
    int n_axes;
    int64_t batch, channels, n_places, in[3];
    float scale[3], shift[3], low[3], high[3];
};

/* A recurrent state S (d_k x d_v) for each sample and head: see the kernel linear_attention. */
struct mo_linear_attention_desc {
    bool is_delta;                                          /* what the state holds of k already is taken off v */
    bool decays_by_key;                                     /* decay: one for each of d_k, else one for a head */
    int64_t batch, steps, q_heads, heads, d_k, d_v;         /* q_heads is a multiple of heads */
    int64_t beta_heads;                                     /* heads, or 1 for all */
    float scale;
};

/* Attention, head by head: query head h looks at head h / (heads / kv_heads) of k and v. Element i of a row of a head of
 * an image lies at image * step.image + head * step.head + row * step.row + i. Scores and what becomes of them:
 *     s = scale q k;   s = softcap tanh(s / softcap), where softcap is not 0;   s += mask
 * Query i sees key j where -behind <= j - i <= ahead and where allowed is not 0. of_allowed, of_mask: strides of the
 * masks over batch, heads, queries and keys; 0 repeats. */
struct mo_heads_step { int64_t image, head, row; };
static inline int64_t mo_heads_at(const struct mo_heads_step *step, int64_t image, int64_t head, int64_t row)
{
    return image * step->image + head * step->head + row * step->row;
}
struct mo_attention_desc {
    int64_t batch, heads, kv_heads, queries, keys, size, value_size;       /* sizes: MO_ATTENTION_SIZE at most */
    struct mo_heads_step q, k, v, y;
    float scale, softcap;
    int64_t ahead, behind;
    float empty;                                            /* what a query gets that sees nothing */
    int64_t of_allowed[4], of_mask[4];
};
#define MO_ATTENTION_SIZE 512
/* For ahead and behind: no limit. */
#define MO_ATTENTION_FAR ((int64_t)1 << 60)

/* One step of a recurrent cell over batch x hidden. Gates lie side by side in a row, in ONNX's order: GRU z r n, LSTM
 * i o f n. The GRU that multiplies before its product with r takes two parts, the product between them. */
enum mo_cell_kind { MO_CELL_PLAIN, MO_CELL_GRU, MO_CELL_GRU_RESET, MO_CELL_GRU_REST, MO_CELL_LSTM };
enum mo_cell_act {
    MO_CELL_SIGMOID, MO_CELL_TANH, MO_CELL_RELU, MO_CELL_LEAKY_RELU /* a: slope, >= 0 */,
    MO_CELL_THRESHOLDED_RELU /* a: threshold */, MO_CELL_HARD_SIGMOID /* a x + b */, MO_CELL_ELU /* a, >= 0 */,
    MO_CELL_SOFTSIGN, MO_CELL_SOFTPLUS, MO_CELL_AFFINE /* a x + b */, MO_CELL_SCALED_TANH /* a tanh(b x) */
};
struct mo_cell {
    enum mo_cell_kind kind;
    int64_t batch, hidden;
    struct { enum mo_cell_act f; float a, b; } act[3];      /* f, g, h of ONNX */
    float clip;                     /* what goes into f and g is held within it; INFINITY: it is not */
    bool input_forget;              /* LSTM: f = 1 - i */
    const int32_t *lens;            /* rows that are shorter than step + 1 keep their state; NULL: none is */
    int32_t step;
};

/* act(alpha * A B + beta * C + bias): the epilogue of gemm. bias: n floats or NULL. */
struct mo_epilogue { const float *bias; enum mo_act act; float act_lo, act_hi; };

/* One step of an optimizer over all weights (formulas: lib/run/optim.h), for a device that does it in one launch. */
enum mo_update_kind { MO_UPDATE_SGD, MO_UPDATE_RMSPROP, MO_UPDATE_ADAM };
enum mo_update_group { MO_UPDATE_NOT, MO_UPDATE_PLAIN, MO_UPDATE_DECAYS };
#define MO_UPDATE_GROUP 16          /* elements that are treated alike */
struct mo_update {
    enum mo_update_kind kind;
    size_t n_trained, n_weights;    /* of w; the rest behind n_trained is state, which is only averaged */
    const uint8_t *group;           /* on the device: enum mo_update_group of each MO_UPDATE_GROUP elements */
    bool nesterov;
    float lr, momentum, alpha, beta1, beta2, eps, correction1, correction2;
    float l2, decoupled;            /* of those that decay */
    float clip;                     /* of the norm of the gradients of all that is updated; 0: none */
    float scale;                    /* gradients are too large by this factor; they are divided by it */
    float ema;                      /* share of the old average */
    bool skips_bad;                 /* nothing is changed where that norm is not finite */
    float *w, *first, *second, *average;    /* first, second: of n_trained; second, average may be NULL, as may first */
    const float *g;
};

struct mo_backend {
    const char *name;
    /* NULL, and why. n_threads counts for the CPU. */
    struct mo_device *(*open)(int index, int n_threads, char *why, size_t why_bytes);
    void (*close)(struct mo_device *);
    const char *(*describe)(struct mo_device *);                            /* "cpu, avx512_core_amx, 2 threads" */
    void *(*alloc)(struct mo_device *, size_t bytes);                       /* 64-byte aligned, NULL when full */
    void (*free)(struct mo_device *, void *mem);
    void (*upload)(struct mo_device *, void *to, const void *host, size_t bytes);
    void (*download)(struct mo_device *, void *host, const void *from, size_t bytes);
    int (*sync)(struct mo_device *, char *why, size_t why_bytes);           /* 0, or the first error since the last */
    bool is_host;                                                           /* memory can be read by the CPU as it is */
    size_t scratch_bytes;                                   /* of the host's memory, that an open device keeps for its kernels */
    bool fuses_attention;                                   /* the kernel attention is faster than products and softmax */
    /* What the kernels *_bf16 are given and give from here on, prepared convolutions included: 16 bfloat16 (as opened) or
     * 10 float16, ONNX's numbers, which also stand for it among their types. NULL: bfloat16 only. */
    void (*use_half)(struct mo_device *, int dtype);

    /* The norm of the gradients, divided by scale, goes to *norm unless NULL. NULL: the kernels *_step are called for each
     * part that is treated alike. */
    void (*update)(struct mo_device *, const struct mo_update *, double *norm);

    /* What is asked for between record and recorded is kept instead of done, and replay does it as often as is wanted, on the
     * memory and with the numbers that it was recorded with. record gives false where that is switched off, recorded NULL
     * where something could not be kept; neither is an error. n_exchanges counts what cannot be: the host gave or got data,
     * or a kernel was given a number that is never the same again. All NULL: no recordings. */
    bool (*record)(struct mo_device *);
    struct mo_recording *(*recorded)(struct mo_device *);
    void (*replay)(struct mo_device *, struct mo_recording *);
    void (*recording_free)(struct mo_device *, struct mo_recording *);
    uint64_t (*n_exchanges)(const struct mo_device *);

    /* Prepared convolutions. NULL when out of memory. */
    struct mo_conv *(*conv_new)(struct mo_device *, const struct mo_conv_desc *desc);
    void (*conv_free)(struct mo_device *, struct mo_conv *);
    size_t (*conv_scratch_bytes)(const struct mo_conv *, bool backward);
    /* What computes it, for people to read. NULL: a backend that has but one way. */
    const char *(*conv_engine)(const struct mo_conv *);
    /* NULL or false: gemm is the way to multiply with constant weights. Else a convolution with one spatial axis, a
     * kernel of 1, constant weights and no activation, Relu or Clip is the faster, and takes no scratch. */
    bool (*packs_products)(const struct mo_device *);
    struct mo_qconv *(*qconv_new)(struct mo_device *, const struct mo_qconv_desc *desc);
    void (*qconv_free)(struct mo_device *, struct mo_qconv *);
    size_t (*qconv_scratch_bytes)(const struct mo_qconv *);

#define MO_KERNEL(name, args) void (*name) args;
#include "kernels/kernels.def"
#undef MO_KERNEL
};

/* The i-th backend; NULL past the end. One that was not built is there and its open says so. */
const struct mo_backend *mo_backend_at(int i);
/* By name "cpu", "cuda"; NULL. */
const struct mo_backend *mo_backend_find(const char *name);
/* What "auto" tries first: CUDA where its driver is installed (nothing of it is loaded elsewhere), else the CPU. */
const struct mo_backend *mo_backend_auto(void);

#endif

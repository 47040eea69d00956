/* attention.cu - attention, a thread for each query, in the gradient for each key too. Scores are made again where they are
 * wanted again; none are kept. cuBLAS's products with a softmax between them are faster where their scores have room, so
 * this backend does not say fuses_attention. */
#include "kernels/cuda/device.cuh"

struct attention_args {
    struct mo_attention_desc d;
    const float *q, *k, *v, *mask;
    const uint8_t *allowed;
};

static __device__ int64_t place(const struct mo_heads_step &step, int64_t image, int64_t head, int64_t row)
{
    return image * step.image + head * step.head + row * step.row;
}

/* The score of query i and key j of head h; *capped: before the masks. */
static __device__ float score(const struct attention_args &a, int64_t b, int64_t h, int64_t i, int64_t j, float *capped)
{
    const struct mo_attention_desc &d = a.d;
    const float *q = a.q + place(d.q, b, h, i), *k = a.k + place(d.k, b, h / (d.heads / d.kv_heads), j);
    float s = 0;
    for (int64_t c = 0; c < d.size; c++)
        s += q[c] * k[c];
    s *= d.scale;
    s = d.softcap != 0 ? d.softcap * tanhf(s / d.softcap) : s;
    *capped = s;
    const int64_t *to_a = d.of_allowed, *to_m = d.of_mask;
    if (j - i > d.ahead || i - j > d.behind ||
        (a.allowed && !a.allowed[b * to_a[0] + h * to_a[1] + i * to_a[2] + j * to_a[3]]))
        s = -INFINITY;
    return a.mask ? s + a.mask[b * to_m[0] + h * to_m[1] + i * to_m[2] + j * to_m[3]] : s;
}

void mo_cuda_attention(struct mo_device *dev, const struct mo_attention_desc *desc, const float *q, const float *k,
                       const float *v, const uint8_t *allowed, const float *mask, float *y, float *log_sum)
{
    const struct attention_args a = { *desc, q, k, v, mask, allowed };
    mo_each(dev, desc->batch * desc->heads * desc->queries, [=] __device__(int64_t r) {
        const struct mo_attention_desc &d = a.d;
        int64_t i = r % d.queries, h = r / d.queries % d.heads, b = r / d.queries / d.heads;
        float *to = y + place(d.y, b, h, i), most = -INFINITY, sum = 0, capped;
        for (int64_t j = 0; j < d.keys; j++)
            most = fmaxf(score(a, b, h, i, j, &capped), most);
        most = most == -INFINITY ? 0 : most;
        for (int64_t c = 0; c < d.value_size; c++)
            to[c] = 0;
        for (int64_t j = 0; j < d.keys; j++) {
            float p = expf(score(a, b, h, i, j, &capped) - most);
            const float *from = a.v + place(d.v, b, h / (d.heads / d.kv_heads), j);
            sum += p;
            for (int64_t c = 0; c < d.value_size; c++)
                to[c] += p * from[c];
        }
        for (int64_t c = 0; c < d.value_size; c++)
            to[c] = sum == 0 ? d.empty : to[c] / sum;
        if (log_sum)
            log_sum[r] = sum == 0 ? INFINITY : most + logf(sum);
    });
}

/* P, and with g = dY V: dS = P (g - dY Y) (1 - (c / softcap)^2) scale, of one query and one key. */
static __device__ float slope(const struct attention_args &a, int64_t b, int64_t h, int64_t i, int64_t j, const float *y,
                              const float *dy, const float *log_sum, float *p)
{
    const struct mo_attention_desc &d = a.d;
    const float *v = a.v + place(d.v, b, h / (d.heads / d.kv_heads), j), *y_row = y + place(d.y, b, h, i);
    const float *dy_row = dy + place(d.y, b, h, i);
    float total = log_sum[(b * d.heads + h) * d.queries + i], g = 0, capped;
    *p = total == INFINITY ? 0 : expf(score(a, b, h, i, j, &capped) - total);
    if (*p == 0)
        return 0;
    for (int64_t c = 0; c < d.value_size; c++)
        g += dy_row[c] * (v[c] - y_row[c]);
    float u = d.softcap != 0 ? capped / d.softcap : 0;
    return *p * g * (1 - u * u) * d.scale;
}

static void grad_queries(struct mo_device *dev, const struct attention_args &args, const float *y, const float *log_sum,
                         const float *dy, float *dq)
{
    const struct attention_args a = args;
    mo_each(dev, a.d.batch * a.d.heads * a.d.queries, [=] __device__(int64_t r) {
        const struct mo_attention_desc &d = a.d;
        int64_t i = r % d.queries, h = r / d.queries % d.heads, b = r / d.queries / d.heads;
        float *to = dq + place(d.q, b, h, i), p;
        for (int64_t c = 0; c < d.size; c++)
            to[c] = 0;
        for (int64_t j = 0; j < d.keys; j++) {
            float ds = slope(a, b, h, i, j, y, dy, log_sum, &p);
            const float *from = a.k + place(d.k, b, h / (d.heads / d.kv_heads), j);
            for (int64_t c = 0; c < d.size && ds != 0; c++)
                to[c] += ds * from[c];
        }
    });
}

static void grad_keys(struct mo_device *dev, const struct attention_args &args, const float *y, const float *log_sum,
                      const float *dy, float *dk, float *dv)
{
    const struct attention_args a = args;
    mo_each(dev, a.d.batch * a.d.kv_heads * a.d.keys, [=] __device__(int64_t r) {
        const struct mo_attention_desc &d = a.d;
        int64_t j = r % d.keys, kv = r / d.keys % d.kv_heads, b = r / d.keys / d.kv_heads, share = d.heads / d.kv_heads;
        float *to_k = dk + place(d.k, b, kv, j), *to_v = dv + place(d.v, b, kv, j), p;
        for (int64_t c = 0; dk && c < d.size; c++)
            to_k[c] = 0;
        for (int64_t c = 0; dv && c < d.value_size; c++)
            to_v[c] = 0;
        for (int64_t h = kv * share; h < (kv + 1) * share; h++)
            for (int64_t i = 0; i < d.queries; i++) {
                float ds = slope(a, b, h, i, j, y, dy, log_sum, &p);
                const float *of_q = a.q + place(d.q, b, h, i), *of_y = dy + place(d.y, b, h, i);
                for (int64_t c = 0; dk && c < d.size; c++)
                    to_k[c] += ds * of_q[c];
                for (int64_t c = 0; dv && c < d.value_size; c++)
                    to_v[c] += p * of_y[c];
            }
    });
}

void mo_cuda_attention_grad(struct mo_device *dev, const struct mo_attention_desc *desc, const float *q, const float *k,
                            const float *v, const uint8_t *allowed, const float *mask, const float *y,
                            const float *log_sum, const float *dy, float *dq, float *dk, float *dv)
{
    const struct attention_args a = { *desc, q, k, v, mask, allowed };
    if (dq)
        grad_queries(dev, a, y, log_sum, dy, dq);
    if (dk || dv)
        grad_keys(dev, a, y, log_sum, dy, dk, dv);
}

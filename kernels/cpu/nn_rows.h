/* nn_rows.h - softmax and layernorm over a range of rows; included once for each
 * instruction set with NN(name) giving the names.
 *
 * Sums run over 16 lanes that are added in a fixed order, so the result does not
 * depend on how rows are dealt out, and the compiler may use vectors. */
#define LANES 16

static inline float NN(add_lanes)(const float *lane)
{
    float sum[LANES];
    memcpy(sum, lane, sizeof sum);
    for (int width = LANES / 2; width; width /= 2)
        for (int l = 0; l < width; l++)
            sum[l] += sum[l + width];
    return sum[0];
}

/* Whole blocks of LANES, then the rest into the first lanes. */
#define OVER_LANES(n, statement)                                    \
    do {                                                            \
        int64_t whole_ = (n) / LANES * LANES;                       \
        for (int64_t at_ = 0; at_ < whole_; at_ += LANES)           \
            for (int l = 0; l < LANES; l++) {                       \
                int64_t i = at_ + l;                                \
                statement;                                          \
            }                                                       \
        for (int64_t i = whole_; i < (n); i++) {                    \
            int l = (int)(i - whole_);                              \
            statement;                                              \
        }                                                           \
    } while (0)

static float NN(row_max)(int64_t n, const float *x)
{
    float lane[LANES];
    for (int l = 0; l < LANES; l++)
        lane[l] = -INFINITY;
    OVER_LANES(n, lane[l] = x[i] > lane[l] ? x[i] : lane[l]);
    float top = lane[0];
    for (int l = 1; l < LANES; l++)
        top = lane[l] > top ? lane[l] : top;
    return top;
}

static void NN(softmax_row)(bool log, int64_t n, const float *x, float *y)
{
    float top = NN(row_max)(n, x), lane[LANES] = {0};
    OVER_LANES(n, float e = nn_exp(x[i] - top); y[i] = log ? x[i] - top : e; lane[l] += e);
    float sum = NN(add_lanes)(lane);
    if (log) {
        float shift = nn_log(sum);
        for (int64_t i = 0; i < n; i++)
            y[i] -= shift;
    } else {
        float scale = 1.0f / sum;
        for (int64_t i = 0; i < n; i++)
            y[i] *= scale;
    }
}

/* LANES neighbours along inner at once. */
static void NN(softmax_columns)(bool log, int64_t axis, int64_t inner, int64_t width, const float *x, float *y)
{
    float top[LANES], sum[LANES] = {0};
    for (int64_t l = 0; l < width; l++)
        top[l] = -INFINITY;
    for (int64_t k = 0; k < axis; k++)
        for (int64_t l = 0; l < width; l++)
            top[l] = x[k * inner + l] > top[l] ? x[k * inner + l] : top[l];
    for (int64_t k = 0; k < axis; k++)
        for (int64_t l = 0; l < width; l++) {
            float shifted = x[k * inner + l] - top[l], e = nn_exp(shifted);
            y[k * inner + l] = log ? shifted : e;
            sum[l] += e;
        }
    for (int64_t l = 0; l < width; l++)
        sum[l] = log ? nn_log(sum[l]) : 1.0f / sum[l];
    for (int64_t k = 0; k < axis; k++)
        for (int64_t l = 0; l < width; l++)
            y[k * inner + l] = log ? y[k * inner + l] - sum[l] : y[k * inner + l] * sum[l];
}

/* Outer positions from begin to end. */
static void NN(softmax_range)(bool log, int64_t begin, int64_t end, int64_t axis, int64_t inner, const float *x,
                              float *y)
{
    for (int64_t o = begin; o < end; o++) {
        const float *from = x + o * axis * inner;
        float *to = y + o * axis * inner;
        if (inner == 1) {
            NN(softmax_row)(log, axis, from, to);
            continue;
        }
        for (int64_t i = 0; i < inner; i += LANES)
            NN(softmax_columns)(log, axis, inner, inner - i < LANES ? inner - i : LANES, from + i, to + i);
    }
}

/* dx = y (dy - sum(dy y)); of the logarithm: dx = dy - exp(y) sum(dy) */
static inline float NN(softmax_slope)(bool log, float y, float dy, float sum)
{
    return log ? dy - nn_exp(y) * sum : y * (dy - sum);
}

static void NN(softmax_grad_columns)(bool log, int64_t axis, int64_t inner, int64_t width, const float *y,
                                     const float *dy, float *dx, bool add)
{
    float sum[LANES] = {0};
    for (int64_t k = 0; k < axis; k++)
        for (int64_t l = 0; l < width; l++)
            sum[l] += log ? dy[k * inner + l] : dy[k * inner + l] * y[k * inner + l];
    for (int64_t k = 0; k < axis; k++)
        for (int64_t l = 0; l < width; l++) {
            int64_t i = k * inner + l;
            float d = NN(softmax_slope)(log, y[i], dy[i], sum[l]);
            dx[i] = add ? dx[i] + d : d;
        }
}

static void NN(softmax_grad_range)(bool log, int64_t begin, int64_t end, int64_t axis, int64_t inner, const float *y,
                                   const float *dy, float *dx, bool add)
{
    for (int64_t o = begin; o < end; o++) {
        int64_t at = o * axis * inner;
        if (inner > 1) {
            for (int64_t i = 0; i < inner; i += LANES)
                NN(softmax_grad_columns)(log, axis, inner, inner - i < LANES ? inner - i : LANES, y + at + i,
                                         dy + at + i, dx + at + i, add);
            continue;
        }
        const float *y_row = y + at, *dy_row = dy + at;
        float *dx_row = dx + at, lane[LANES] = {0};
        OVER_LANES(axis, lane[l] += log ? dy_row[i] : dy_row[i] * y_row[i]);
        float sum = NN(add_lanes)(lane);
        for (int64_t i = 0; i < axis; i++) {
            float d = NN(softmax_slope)(log, y_row[i], dy_row[i], sum);
            dx_row[i] = add ? dx_row[i] + d : d;
        }
    }
}

/* Two passes, because the mean of squares minus the square of the mean loses digits. */
static void NN(layernorm_range)(int64_t begin, int64_t end, int64_t n, float eps, const float *x, const float *scale,
                                const float *bias, float *y, float *mean, float *inv_std)
{
    for (int64_t r = begin; r < end; r++) {
        const float *row = x + r * n;
        float lane[LANES] = {0}, square[LANES] = {0}, *to = y + r * n;
        OVER_LANES(n, lane[l] += row[i]);
        float m = NN(add_lanes)(lane) / (float)n;
        OVER_LANES(n, float d = row[i] - m; square[l] += d * d);
        float s = 1.0f / sqrtf(NN(add_lanes)(square) / (float)n + eps);
        for (int64_t i = 0; i < n; i++) {
            float hat = (row[i] - m) * s;
            to[i] = (scale ? hat * scale[i] : hat) + (bias ? bias[i] : 0.0f);
        }
        mean[r] = m;
        inv_std[r] = s;
    }
}

/* With g = dy scale and h = (x - mean) inv_std: dx = inv_std (g - mean(g) - h mean(g h)). */
static void NN(layernorm_grad_range)(int64_t begin, int64_t end, int64_t n, const float *x, const float *scale,
                                     const float *mean, const float *inv_std, const float *dy, float *dx)
{
    for (int64_t r = begin; r < end; r++) {
        const float *row = x + r * n, *dy_row = dy + r * n;
        float m = mean[r], s = inv_std[r], sum[LANES] = {0}, dot[LANES] = {0}, *to = dx + r * n;
        OVER_LANES(n, float g = scale ? dy_row[i] * scale[i] : dy_row[i];
                   sum[l] += g; dot[l] += g * (row[i] - m) * s);
        float mean_g = NN(add_lanes)(sum) / (float)n, mean_gh = NN(add_lanes)(dot) / (float)n;
        for (int64_t i = 0; i < n; i++) {
            float g = scale ? dy_row[i] * scale[i] : dy_row[i];
            to[i] = s * (g - mean_g - (row[i] - m) * s * mean_gh);
        }
    }
}

/* Columns begin to end of dscale = sum of dy h and dbias = sum of dy over the rows, ROW_BLOCK rows in
 * float32 at a time and these sums in double. end - begin is at most MO_NN_COLUMNS. */

#define ROW_BLOCK 32
static void NN(layernorm_columns)(int64_t begin, int64_t end, int64_t rows, int64_t n, const float *x,
                                  const float *mean, const float *inv_std, const float *dy, float *dscale, float *dbias)
{
    double scale_sum[MO_NN_COLUMNS] = {0}, bias_sum[MO_NN_COLUMNS] = {0};
    int64_t width = end - begin;
    for (int64_t top = 0; top < rows; top += ROW_BLOCK) {
        float scale_part[MO_NN_COLUMNS] = {0}, bias_part[MO_NN_COLUMNS] = {0};
        for (int64_t r = top; r < rows && r < top + ROW_BLOCK; r++) {
            const float *row = x + r * n + begin, *dy_row = dy + r * n + begin;
            float m = mean[r], s = inv_std[r];
            for (int64_t i = 0; i < width; i++) {
                scale_part[i] += dy_row[i] * (row[i] - m) * s;
                bias_part[i] += dy_row[i];
            }
        }
        for (int64_t i = 0; i < width; i++) {
            scale_sum[i] += (double)scale_part[i];
            bias_sum[i] += (double)bias_part[i];
        }
    }
    for (int64_t i = 0; i < width; i++) {
        if (dscale)
            dscale[begin + i] = (float)scale_sum[i];
        if (dbias)
            dbias[begin + i] = (float)bias_sum[i];
    }
}

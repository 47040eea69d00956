/* nn_attention.h - what attention does to a tile of scores between its products (kernels/cpu/attention.c). */

static void NN(attention_mask)(const struct mo_nn_scores *t, float *capped)
{
    for (int64_t r = 0; r < t->rows; r++) {
        float *s = t->s + r * t->ld;
        if (t->softcap != 0.0f)
            for (int64_t j = 0; j < t->keys; j++)
                s[j] = t->softcap * nn_tanh(s[j] / t->softcap);
        if (capped)
            memcpy(capped + r * t->ld, s, (size_t)t->keys * sizeof *s);
        int64_t low = t->low + r < t->keys ? t->low + r : t->keys, high = t->high + r < -1 ? -1 : t->high + r;
        for (int64_t j = 0; j < low; j++)
            s[j] = -INFINITY;
        for (int64_t j = high + 1; j < t->keys; j++)
            s[j] = -INFINITY;
        const uint8_t *allowed = t->allowed ? t->allowed + r * t->allowed_row : NULL;
        for (int64_t j = 0; allowed && j < t->keys; j++)
            s[j] = allowed[j * t->allowed_key] ? s[j] : -INFINITY;
        const float *mask = t->mask ? t->mask + r * t->mask_row : NULL;
        if (mask && t->mask_key == 1)
            for (int64_t j = 0; j < t->keys; j++)
                s[j] += mask[j];
        else if (mask)
            for (int64_t j = 0; j < t->keys; j++)
                s[j] += mask[j * t->mask_key];
    }
}

static void NN(attention_exp)(const struct mo_nn_scores *t, float *greatest, float *sum, float *factor)
{
    for (int64_t r = 0; r < t->rows; r++) {
        float *s = t->s + r * t->ld, top[LANES], lane[LANES] = {0};
        for (int l = 0; l < LANES; l++)
            top[l] = greatest[r];
        OVER_LANES(t->keys, top[l] = s[i] > top[l] ? s[i] : top[l]);
        float most = top[0];
        for (int l = 1; l < LANES; l++)
            most = top[l] > most ? top[l] : most;
        float shift = most == -INFINITY ? 0.0f : most;      /* nothing seen yet: exp(-infinity) is 0 */
        OVER_LANES(t->keys, s[i] = nn_exp(s[i] - shift); lane[l] += s[i]);
        factor[r] = greatest[r] == most ? 1.0f : nn_exp(greatest[r] - shift);
        sum[r] = sum[r] * factor[r] + NN(add_lanes)(lane);
        greatest[r] = most;
    }
}

static void NN(attention_slope)(const struct mo_nn_scores *t, const float *log_sum, const float *dot, float scale,
                                const float *capped, float *ds)
{
    for (int64_t r = 0; r < t->rows; r++) {
        float *p = t->s + r * t->ld, *d = ds + r * t->ld;
        float shift = log_sum[r], mean = dot[r];
        for (int64_t j = 0; j < t->keys; j++) {
            p[j] = nn_exp(p[j] - shift);
            d[j] = p[j] * (d[j] - mean) * scale;
        }
        const float *c = capped ? capped + r * t->ld : NULL;
        for (int64_t j = 0; c && j < t->keys; j++) {
            float u = c[j] / t->softcap;
            d[j] *= 1.0f - u * u;
        }
    }
}

static void NN(attention_scale)(int64_t rows, int64_t n, const float *factor, float empty, float *y, int64_t ld)
{
    for (int64_t r = 0; r < rows; r++, y += ld)
        for (int64_t i = 0; i < n; i++)
            y[i] = factor[r] == 0.0f ? empty : y[i] * factor[r];
}

static void NN(attention_dots)(int64_t rows, int64_t n, const float *y, const float *dy, int64_t ld, float *dot)
{
    for (int64_t r = 0; r < rows; r++, y += ld, dy += ld) {
        float lane[LANES] = {0};
        OVER_LANES(n, lane[l] += y[i] * dy[i]);
        dot[r] = NN(add_lanes)(lane);
    }
}

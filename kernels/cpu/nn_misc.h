/* nn_misc.h - dropout and the products with a sparse left matrix over a range;
 * included once for each instruction set with NN(name) giving the names. */

/* Philox 4x32-10 on PHILOX_BLOCKS neighbouring counters at once: word w of block b is draw 4 b + w of
 * the stream (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC'11). */
#define PHILOX_BLOCKS (MO_NN_BLOCK / 4)
static inline void NN(philox_round)(uint32_t key0, uint32_t key1, uint32_t *restrict c0, uint32_t *restrict c1,
                                    uint32_t *restrict c2, uint32_t *restrict c3)
{
    for (int i = 0; i < PHILOX_BLOCKS; i++) {
        uint64_t p0 = (uint64_t)c0[i] * 0xD2511F53u, p1 = (uint64_t)c2[i] * 0xCD9E8D57u;
        c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ key0;
        c1[i] = (uint32_t)p1;
        c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ key1;
        c3[i] = (uint32_t)p0;
    }
}

static void NN(philox)(uint64_t seed, uint64_t stream, uint64_t first_block, uint32_t word[4][PHILOX_BLOCKS])
{
    for (uint32_t i = 0; i < PHILOX_BLOCKS; i++) {
        word[0][i] = (uint32_t)first_block + i;     /* first_block is a multiple of PHILOX_BLOCKS: no carry */
        word[1][i] = (uint32_t)(first_block >> 32);
        word[2][i] = (uint32_t)stream;
        word[3][i] = (uint32_t)(stream >> 32);
    }
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u)
        NN(philox_round)(key0, key1, word[0], word[1], word[2], word[3]);
}

/* Elements begin to end; begin is a multiple of MO_NN_BLOCK. */

static void NN(dropout_range)(uint64_t seed, uint64_t stream, float p, size_t begin, size_t end, const float *x,
                              float *y, uint8_t *mask)
{
    bool drops_all = p >= 1.0f;
    float scale = drops_all ? 0.0f : 1.0f / (1.0f - p);
    uint32_t threshold = drops_all || p <= 0.0f ? 0 : (uint32_t)((double)p * 4294967296.0);    /* dropped: draw < it */
    for (size_t at = begin; at < end; at += MO_NN_BLOCK) {
        uint32_t word[4][PHILOX_BLOCKS], draw[MO_NN_BLOCK];
        NN(philox)(seed, stream, at / 4, word);
        for (int i = 0; i < PHILOX_BLOCKS; i++)
            for (int w = 0; w < 4; w++)
                draw[4 * i + w] = word[w][i];
        size_t n = end - at < MO_NN_BLOCK ? end - at : MO_NN_BLOCK;
        const float *from = x + at;
        float *to = y + at;
        uint8_t *keep = mask + at;
        for (size_t i = 0; i < n; i++)
            keep[i] = !drops_all && draw[i] >= threshold;
        _Pragma("GCC ivdep")
        for (size_t i = 0; i < n; i++)
            to[i] = !drops_all && draw[i] >= threshold ? from[i] * scale : 0.0f;
    }
}

static void NN(dropout_grad_range)(float p, size_t n, const uint8_t *mask, const float *dy, float *dx, bool add)
{
    float scale = p < 1.0f ? 1.0f / (1.0f - p) : 0.0f;
    if (add) {
        _Pragma("GCC ivdep")
        for (size_t i = 0; i < n; i++)
            dx[i] += mask[i] ? dy[i] * scale : 0.0f;
    } else {
        _Pragma("GCC ivdep")
        for (size_t i = 0; i < n; i++)
            dx[i] = mask[i] ? dy[i] * scale : 0.0f;
    }
}

/* Rows begin to end of Y = X op(B) + bias. */
static void NN(gemm_csr_range)(int64_t begin, int64_t end, int64_t n, int64_t k, const int64_t *row_start,
                               const int32_t *column, const float *value, bool tb, const float *b, const float *bias,
                               float *y)
{
    for (int64_t r = begin; r < end; r++) {
        float *to = y + r * n;
        for (int64_t j = 0; j < n; j++)
            to[j] = bias ? bias[j] : 0.0f;
        for (int64_t e = row_start[r]; !tb && e < row_start[r + 1]; e++) {
            const float *from = b + (int64_t)column[e] * n;
            float v = value[e];
            for (int64_t j = 0; j < n; j++)
                to[j] += v * from[j];
        }
        for (int64_t j = 0; tb && j < n; j++) {
            const float *from = b + j * k;
            float sum = 0.0f;
            for (int64_t e = row_start[r]; e < row_start[r + 1]; e++)
                sum += value[e] * from[column[e]];
            to[j] += sum;
        }
    }
}

/* The part of dB = X^T dY that belongs to columns begin to end of X; every row is looked through. */
static void NN(gemm_csr_grad_range)(int64_t begin, int64_t end, int64_t m, int64_t n, int64_t k,
                                    const int64_t *row_start, const int32_t *column, const float *value, bool tb,
                                    const float *dy, float *db)
{
    if (!tb)
        memset(db + begin * n, 0, (size_t)((end - begin) * n) * sizeof *db);
    for (int64_t j = 0; tb && j < n; j++)
        memset(db + j * k + begin, 0, (size_t)(end - begin) * sizeof *db);
    for (int64_t r = 0; r < m; r++)
        for (int64_t e = row_start[r]; e < row_start[r + 1]; e++) {
            int64_t c = column[e];
            if (c < begin || c >= end)
                continue;
            float v = value[e];
            const float *from = dy + r * n;
            if (!tb)
                for (int64_t j = 0; j < n; j++)
                    db[c * n + j] += v * from[j];
            else
                for (int64_t j = 0; j < n; j++)
                    db[j * k + c] += v * from[j];
        }
}

/* The plain C loops of kernels/cpu/nn_*.h against double precision arithmetic. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/cpu.h"
#include "lib/base/base.h"

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

/* Largest relative error of f over low..high; results below `floor` count as that large. */
static double worst(enum mo_unary f, double (*exact)(double), double low, double high, double floor)
{
    double top = 0;
    for (int i = 0; i <= 20000; i++) {
        float x = (float)(low + (high - low) * i / 20000.0), y;
        mo_ref_unary(NULL, f, 0, 0, 1, &x, &y);
        double e = exact((double)x);
        top = fmax(top, fabs((double)y - e) / fmax(fabs(e), floor));
    }
    return top;
}

START_TEST(elementary_functions_keep_six_digits)
{
    ck_assert_double_lt(worst(MO_EXP, exp, -87, 88.7, 1e-37), 4e-7);
    ck_assert_double_lt(worst(MO_EXP, exp, -104, -87, 1e-36), 1e-6);
    ck_assert_double_lt(worst(MO_LOG, log, 1e-6, 4, 1e-3), 4e-7);
    ck_assert_double_lt(worst(MO_LOG, log, 1e-42, 1e-38, 1), 4e-7);
    ck_assert_double_lt(worst(MO_LOG, log, 1, 3e38, 1e-3), 4e-7);
    ck_assert_double_lt(worst(MO_TANH, tanh, -12, 12, 1e-37), 5e-7);
    ck_assert_double_lt(worst(MO_TANH, tanh, -1e-3, 1e-3, 1e-37), 5e-7);
    ck_assert_double_lt(worst(MO_ERF, erf, -6, 6, 1e-37), 5e-7);
    ck_assert_double_lt(worst(MO_ERF, erf, -1e-3, 1e-3, 1e-37), 5e-7);
    ck_assert_double_lt(worst(MO_SIGMOID, logistic, -80, 30, 1e-36), 1e-6);
    ck_assert_double_lt(worst(MO_SOFTPLUS, softplus, -80, 80, 1e-36), 1e-6);
}
END_TEST

START_TEST(elementary_functions_at_their_ends)
{
    const float in[] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 200.0f, -200.0f, 1e30f, -1e30f};
    float y[MO_COUNT(in)];
    mo_ref_unary(NULL, MO_EXP, 0, 0, MO_COUNT(in), in, y);
    ck_assert(isinf(y[0]) && y[1] == 0 && isnan(y[2]) && y[3] == 1 && isinf(y[5]) && y[6] == 0 && isinf(y[7]));
    mo_ref_unary(NULL, MO_LOG, 0, 0, MO_COUNT(in), in, y);
    ck_assert(isinf(y[0]) && isnan(y[1]) && isnan(y[2]) && y[3] == -INFINITY && y[4] == -INFINITY && isnan(y[6]));
    mo_ref_unary(NULL, MO_TANH, 0, 0, MO_COUNT(in), in, y);
    ck_assert(y[0] == 1 && y[1] == -1 && isnan(y[2]) && y[3] == 0 && signbit(y[4]) && y[7] == 1 && y[8] == -1);
    mo_ref_unary(NULL, MO_SIGMOID, 0, 0, MO_COUNT(in), in, y);
    ck_assert(y[0] == 1 && y[1] == 0 && isnan(y[2]) && y[3] == 0.5f && y[5] == 1 && y[6] == 0);
    mo_ref_unary(NULL, MO_ERF, 0, 0, MO_COUNT(in), in, y);
    ck_assert(y[0] == 1 && y[1] == -1 && isnan(y[2]) && y[3] == 0 && y[7] == 1 && y[8] == -1);
    mo_ref_unary(NULL, MO_SOFTPLUS, 0, 0, MO_COUNT(in), in, y);
    ck_assert(isinf(y[0]) && y[1] == 0 && isnan(y[2]) && y[5] == 200 && y[6] == 0);
}
END_TEST

/* Dropout draws what mo_rng draws, so that every device and every cut into slices keeps the same elements. */
START_TEST(dropout_follows_the_counter)
{
    enum { N = 1000 };
    static float x[N], y[N];
    static uint8_t mask[N];
    struct mo_rng rng = mo_rng_new(7, MO_RNG_DROPOUT, 3);
    for (int i = 0; i < N; i++)
        x[i] = 1;
    mo_ref_dropout(NULL, 7, rng.stream, 0.25f, N, x, y, mask);
    int n_kept = 0;
    for (int i = 0; i < N; i++) {
        int kept = mo_rng_u32(&rng) >= 0x40000000u;
        ck_assert_int_eq(mask[i], kept);
        ck_assert_float_eq(y[i], kept ? 1 / 0.75f : 0);
        n_kept += kept;
    }
    ck_assert_int_gt(n_kept, 700);
    ck_assert_int_lt(n_kept, 800);
}
END_TEST

/* CSR against the same product written out, both orientations of B, with an empty row. */
START_TEST(sparse_products)
{
    enum { M = 4, K = 5, N = 3 };
    const int64_t row_start[M + 1] = {0, 2, 2, 3, 6};
    const int32_t column[] = {0, 3, 4, 1, 2, 3};
    const float value[] = {1, -2, 3, 0.5f, 4, -1}, bias[N] = {1, 2, 3};
    float b[K * N], bt[N * K], y[M * N], db[K * N], dbt[N * K], dy[M * N];
    for (int i = 0; i < K; i++)
        for (int j = 0; j < N; j++)
            bt[j * K + i] = b[i * N + j] = (float)(i * 7 + j * 3 % 5) - 4;
    for (int i = 0; i < M * N; i++)
        dy[i] = (float)(i % 7) - 3;
    for (int tb = 0; tb < 2; tb++) {
        mo_ref_gemm_csr(NULL, M, N, K, row_start, column, value, tb, tb ? bt : b, bias, y);
        for (int r = 0; r < M; r++)
            for (int j = 0; j < N; j++) {
                float sum = bias[j];
                for (int64_t e = row_start[r]; e < row_start[r + 1]; e++)
                    sum += value[e] * b[column[e] * N + j];
                ck_assert_float_eq_tol(y[r * N + j], sum, 1e-5f);
            }
    }
    mo_ref_gemm_csr_grad(NULL, M, N, K, row_start, column, value, false, dy, db);
    mo_ref_gemm_csr_grad(NULL, M, N, K, row_start, column, value, true, dy, dbt);
    for (int c = 0; c < K; c++)
        for (int j = 0; j < N; j++) {
            float sum = 0;
            for (int r = 0; r < M; r++)
                for (int64_t e = row_start[r]; e < row_start[r + 1]; e++)
                    sum += column[e] == c ? value[e] * dy[r * N + j] : 0;
            ck_assert_float_eq_tol(db[c * N + j], sum, 1e-5f);
            ck_assert_float_eq_tol(dbt[j * K + c], sum, 1e-5f);
        }
}
END_TEST

/* Softmax along an inner axis is softmax of the transposed rows. */
START_TEST(softmax_along_any_axis)
{
    enum { AXIS = 37, INNER = 19 };
    static float x[AXIS * INNER], t[AXIS * INNER], y[AXIS * INNER], yt[AXIS * INNER];
    for (int i = 0; i < AXIS; i++)
        for (int j = 0; j < INNER; j++)
            t[j * AXIS + i] = x[i * INNER + j] = (float)((i * 31 + j * 17) % 23) / 3 - 100;
    for (int is_log = 0; is_log < 2; is_log++) {
        mo_ref_softmax(NULL, is_log, 1, AXIS, INNER, x, y);
        mo_ref_softmax(NULL, is_log, INNER, AXIS, 1, t, yt);
        for (int j = 0; j < INNER; j++) {
            double sum = 0;
            for (int i = 0; i < AXIS; i++) {
                ck_assert_float_eq_tol(y[i * INNER + j], yt[j * AXIS + i], 2e-6f);
                sum += is_log ? exp((double)y[i * INNER + j]) : (double)y[i * INNER + j];
            }
            ck_assert_double_eq_tol(sum, 1, 1e-5);
        }
    }
}
END_TEST

Suite *suite_nn_kernels(void);
Suite *suite_nn_kernels(void)
{
    Suite *suite = suite_create("nn_kernels");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, elementary_functions_keep_six_digits);
    tcase_add_test(tests, elementary_functions_at_their_ends);
    tcase_add_test(tests, dropout_follows_the_counter);
    tcase_add_test(tests, sparse_products);
    tcase_add_test(tests, softmax_along_any_axis);
    suite_add_tcase(suite, tests);
    return suite;
}

/* Products that begin at the same moment in two threads must not share scratch memory (kernels/cpu/blas_memory.c). */
#include <cblas.h>
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Large enough that OpenBLAS packs both operands: its small-matrix kernels take no scratch. */
enum { M = 150, N = 200, K = 128, N_THREADS = 2, N_ROUNDS = 2000 };

static float a[K * M * N_THREADS], b[K * N], want[N_THREADS][M * N];
static atomic_int n_ready;

static void multiply(int thread, float *c)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, M, N, K, 1, a + thread * M, M * N_THREADS, b, N, 0, c, N);
}

static void *work(void *arg)
{
    int thread = *(const int *)arg, n_bad = 0;
    float *c = malloc(M * N * sizeof *c);
    for (int round = 0; round < N_ROUNDS; round++) {
        atomic_fetch_add(&n_ready, 1);
        while (atomic_load(&n_ready) < N_THREADS * (round + 1))
            sched_yield();
        multiply(thread, c);
        n_bad += memcmp(c, want[thread], M * N * sizeof *c) != 0;
    }
    free(c);
    return (void *)(intptr_t)n_bad;
}

START_TEST(simultaneous_products_are_right)
{
    for (size_t i = 0; i < sizeof a / sizeof *a; i++)
        a[i] = (float)(i * 7 % 101) / 50 - 1;
    for (size_t i = 0; i < sizeof b / sizeof *b; i++)
        b[i] = (float)(i * 13 % 97) / 50 - 1;
    int ids[N_THREADS];
    pthread_t threads[N_THREADS];
    for (int t = 0; t < N_THREADS; t++)
        multiply(t, want[t]);
    for (int t = 0; t < N_THREADS; t++) {
        ids[t] = t;
        ck_assert_int_eq(pthread_create(&threads[t], NULL, work, &ids[t]), 0);
    }
    for (int t = 0; t < N_THREADS; t++) {
        void *n_bad;
        pthread_join(threads[t], &n_bad);
        ck_assert_int_eq((intptr_t)n_bad, 0);
    }
}
END_TEST

static void *work_once(void *arg)
{
    multiply(0, arg);
    return NULL;
}

/* Threads come and go, more of them than OpenBLAS has blocks: it ends the program when they run out. */
START_TEST(blocks_of_ended_threads_are_used_again)
{
    float *c = malloc(M * N * sizeof *c);
    for (int i = 0; i < 2000; i++) {
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, work_once, c), 0);
        pthread_join(thread, NULL);
    }
    free(c);
}
END_TEST

Suite *suite_blas_memory(void);
Suite *suite_blas_memory(void)
{
    Suite *s = suite_create("blas_memory");
    TCase *c = tcase_create("blas_memory");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, simultaneous_products_are_right);
    tcase_add_test(c, blocks_of_ended_threads_are_used_again);
    suite_add_tcase(s, c);
    return s;
}

/* roof.c - what the arithmetic units of this machine do at most, by instructions on registers alone.
 *
 * usage: roof THREADS [SECONDS]
 * Prints one JSON object: {"fp32": Gflop/s, "bf16": Gflop/s, "int8": Gop/s, "fp32_unit": "avx512", ...}; the best unit
 * for each type, all threads together, a multiplication and an addition counting as two. Built by bench_peers.py with
 * cc -O2 -pthread. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 20000, CHAINS = 12, MAX_THREADS = 256 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define CHAIN(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

__attribute__((target("avx2,fma"))) static double fp32_avx2(void)
{
    __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
#define DECLARE(i) __m256 c##i = _mm256_set1_ps(i);
#define STEP(i) __asm__ volatile("vfmadd132ps %1, %2, %0" : "+x"(c##i) : "x"(a), "x"(b));
    CHAIN(DECLARE)
    for (int r = 0; r < ROUNDS; r++) {
        CHAIN(STEP)
    }
    return 2.0 * 8 * CHAINS * ROUNDS;
#undef DECLARE
#undef STEP
}

__attribute__((target("avx512f"))) static double fp32_avx512(void)
{
    __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
#define DECLARE(i) __m512 c##i = _mm512_set1_ps(i);
#define STEP(i) __asm__ volatile("vfmadd132ps %1, %2, %0" : "+v"(c##i) : "v"(a), "v"(b));
    CHAIN(DECLARE)
    for (int r = 0; r < ROUNDS; r++) {
        CHAIN(STEP)
    }
    return 2.0 * 16 * CHAINS * ROUNDS;
#undef STEP
}

__attribute__((target("avx512f,avx512bf16"))) static double bf16_avx512(void)
{
    __m512 a = _mm512_setzero_ps();
#define STEP(i) __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(c##i) : "v"(a));
    CHAIN(DECLARE)
    for (int r = 0; r < ROUNDS; r++) {
        CHAIN(STEP)
    }
    return 2.0 * 32 * CHAINS * ROUNDS;
#undef STEP
}

__attribute__((target("avx512f,avx512vnni"))) static double int8_avx512(void)
{
    __m512 a = _mm512_setzero_ps();
#define STEP(i) __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(c##i) : "v"(a));
    CHAIN(DECLARE)
    for (int r = 0; r < ROUNDS; r++) {
        CHAIN(STEP)
    }
    return 2.0 * 64 * CHAINS * ROUNDS;
#undef STEP
#undef DECLARE
}

__attribute__((target("avx2"))) static double int8_avx2(void)
{
    __m256i a = _mm256_setzero_si256();
    /* vpmaddwd and vpaddd: 16-bit products, which do not saturate */
#define DECLARE(i) __m256i c##i = _mm256_set1_epi32(i);
#define STEP(i) __asm__ volatile("vpmaddwd %1, %1, %%ymm15\n\tvpaddd %%ymm15, %0, %0" : "+x"(c##i) : "x"(a) : "ymm15");
    CHAIN(DECLARE)
    for (int r = 0; r < ROUNDS; r++) {
        CHAIN(STEP)
    }
    return 2.0 * 16 * CHAINS * ROUNDS;
#undef DECLARE
#undef STEP
}

#if defined __x86_64__ && __GNUC__ >= 11
#define HAS_AMX 1
static void amx_config(void)
{
    struct { unsigned char palette, start, reserved[14]; unsigned short cols[16]; unsigned char rows[16]; }
        __attribute__((aligned(64))) c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.cols[i] = 64;
        c.rows[i] = 16;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(c));
}
#define AMX_LOOP(instruction, ops) \
    amx_config(); \
    for (int r = 0; r < ROUNDS; r++) \
        __asm__ volatile(instruction " %tmm6, %tmm4, %tmm0\n\t" instruction " %tmm7, %tmm4, %tmm1\n\t" \
                         instruction " %tmm6, %tmm5, %tmm2\n\t" instruction " %tmm7, %tmm5, %tmm3"); \
    __asm__ volatile("tilerelease"); \
    return 2.0 * (ops) * 4 * ROUNDS;
__attribute__((target("amx-tile,amx-bf16"))) static double bf16_amx(void)
{
    AMX_LOOP("tdpbf16ps", 16 * 16 * 32)
}
__attribute__((target("amx-tile,amx-int8"))) static double int8_amx(void)
{
    AMX_LOOP("tdpbssd", 16 * 16 * 64)
}

/* CPUID 7.0 EDX: 22 amx-bf16, 24 amx-tile, 25 amx-int8; Linux grants tile data on request. */
static int has_amx(void)
{
    unsigned a = 7, b, c = 0, d;
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1) && !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA);
}
#endif

struct unit { const char *type, *name; double (*run)(void); };
struct work { const struct unit *unit; double seconds, rate; };

static void *measure(void *arg)
{
    struct work *w = arg;
    double end = now() + w->seconds;
    w->unit->run();
    while (now() < end) {
        double start = now(), ops = w->unit->run(), rate = ops / (now() - start);
        w->rate = rate > w->rate ? rate : w->rate;      /* the best of short runs: other work on the machine does not count */
    }
    return NULL;
}

static double together(const struct unit *unit, int n_threads, double seconds)
{
    pthread_t threads[MAX_THREADS];
    struct work work[MAX_THREADS];
    double sum = 0;
    for (int i = 0; i < n_threads; i++) {
        work[i] = (struct work){unit, seconds, 0};
        if (pthread_create(&threads[i], NULL, measure, &work[i]))
            exit(1);
    }
    for (int i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        sum += work[i].rate;
    }
    return sum / 1e9;
}

int main(int argc, char **argv)
{
    int n_threads = argc > 1 ? atoi(argv[1]) : 1, n_units = 0;
    double seconds = argc > 2 ? atof(argv[2]) : 0.3;
    struct unit units[8];
    if (n_threads < 1 || n_threads > MAX_THREADS)
        return fprintf(stderr, "roof: 1 to %d threads\n", MAX_THREADS), 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        units[n_units++] = (struct unit){"fp32", "avx2", fp32_avx2};
        units[n_units++] = (struct unit){"int8", "avx2", int8_avx2};
    }
    if (__builtin_cpu_supports("avx512f"))
        units[n_units++] = (struct unit){"fp32", "avx512", fp32_avx512};
    if (__builtin_cpu_supports("avx512bf16"))
        units[n_units++] = (struct unit){"bf16", "avx512bf16", bf16_avx512};
    if (__builtin_cpu_supports("avx512vnni"))
        units[n_units++] = (struct unit){"int8", "avx512vnni", int8_avx512};
#ifdef HAS_AMX
    if (has_amx()) {
        units[n_units++] = (struct unit){"bf16", "amx", bf16_amx};
        units[n_units++] = (struct unit){"int8", "amx", int8_amx};
    }
#endif
    const char *types[] = {"fp32", "bf16", "int8"};
    printf("{");
    for (int t = 0; t < 3; t++) {
        double best = 0;
        const char *name = "none";
        for (int i = 0; i < n_units; i++)
            if (units[i].type[0] == types[t][0]) {
                double rate = together(&units[i], n_threads, seconds);
                if (rate > best) {
                    best = rate;
                    name = units[i].name;
                }
            }
        printf("%s\"%s\": %.1f, \"%s_unit\": \"%s\"", t ? ", " : "", types[t], best, types[t], name);
    }
    printf("}\n");
    return 0;
}

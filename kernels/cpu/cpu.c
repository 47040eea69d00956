/* cpu.c - the CPU as a device: opens it, and the two tables of its kernels.
 *
 * The reference table is plain C throughout. The fast one puts library and
 * vector kernels in front; each of them asks the device's tier (CPUID, lowered
 * by MOPT_ISA) and falls back to plain C below what it needs. */
#include "kernels/cpu/cpu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/cpu/fast.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/qconv.h"
#include "kernels/cpu/reference.h"
#include "kernels/cpu/team.h"

/* ---- what the machine has --------------------------------------------------------- */

static const char *const isa_names[] = { "c", "avx2", "avx512f", "avx512vnni", "amx" };

#if defined(__x86_64__)
/* CPUID leaf 7: bit 24 tiles, bit 25 their int8 products. Linux gives a process the tiles when it asks for them
 * (Documentation/arch/x86/xstate.rst: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA). */
static bool has_amx(void)
{
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 25 & 1))
        return false;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}
#endif

static enum mo_isa machine_isa(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return MO_ISA_C;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return MO_ISA_AVX2;
    if (!__builtin_cpu_supports("avx512vnni"))
        return MO_ISA_AVX512;
    return has_amx() ? MO_ISA_AMX : MO_ISA_VNNI;
#else
    return MO_ISA_C;
#endif
}

/* The machine's tier, or a lower one named by MOPT_ISA; a name that is none gives -1. */
static int chosen_isa(void)
{
    const char *name = getenv("MOPT_ISA");
    int isa = (int)machine_isa();
    if (!name || !name[0])
        return isa;
    for (int i = 0; i < (int)(sizeof isa_names / sizeof *isa_names); i++)
        if (!strcmp(name, isa_names[i]))
            return i < isa ? i : isa;
    return -1;
}

/* ---- the device ------------------------------------------------------------------------ */

void mo_device_latch(struct mo_device *dev, const char *fmt, ...)
{
    int none = 0;
    if (!dev || !atomic_compare_exchange_strong(&dev->has_error, &none, 1))
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(dev->why, sizeof dev->why, fmt, args);
    va_end(args);
}

static void cpu_close(struct mo_device *dev)
{
    if (!dev)
        return;
    mo_team_free(dev->team);
    free(dev->workspace);
    free(dev);
}

static const struct mo_qloops *qloops_of(enum mo_isa isa)
{
#if defined(__x86_64__)
    return isa == MO_ISA_C ? NULL : isa == MO_ISA_AVX2 ? &mo_qloops_avx2 :
           isa == MO_ISA_AVX512 ? &mo_qloops_avx512 : &mo_qloops_vnni;
#else
    (void)isa;
    return NULL;
#endif
}

static struct mo_device *open_with(int n_threads, enum mo_isa isa, char *why, size_t why_bytes)
{
    struct mo_device *dev = calloc(1, sizeof *dev);
    if (!dev) {
        snprintf(why, why_bytes, "out of memory");
        return NULL;
    }
    dev->isa = isa;
    dev->loops = isa == MO_ISA_C ? NULL : isa == MO_ISA_AVX2 ? &mo_loops_avx2 : &mo_loops_avx512;
    dev->loops16 = isa == MO_ISA_C ? NULL : isa == MO_ISA_AVX2 ? &mo_loops16_avx2 : &mo_loops16_avx512;
    dev->qloops = qloops_of(isa);
    dev->n_threads = n_threads < 1 ? 1 : n_threads;
    dev->workspace = aligned_alloc(64, MO_WORKSPACE_BYTES);
    dev->team = dev->n_threads > 1 ? mo_team_new(dev->n_threads) : NULL;
    if (!dev->workspace || (dev->n_threads > 1 && !dev->team)) {
        snprintf(why, why_bytes, "%d threads could not be started", dev->n_threads);
        cpu_close(dev);
        return NULL;
    }
    snprintf(dev->text, sizeof dev->text, "cpu, %s, %d thread%s", isa_names[isa], dev->n_threads,
             dev->n_threads == 1 ? "" : "s");
    return dev;
}

static struct mo_device *cpu_open(int index, int n_threads, char *why, size_t why_bytes)
{
    int isa = chosen_isa();
    if (index == 0 && isa >= 0)
        return open_with(n_threads, (enum mo_isa)isa, why, why_bytes);
    if (isa < 0)
        snprintf(why, why_bytes, "MOPT_ISA is none of c, avx2, avx512f, avx512vnni, amx");
    else
        snprintf(why, why_bytes, "there is only one CPU device, not number %d", index);
    return NULL;
}

static struct mo_device *reference_open(int index, int n_threads, char *why, size_t why_bytes)
{
    (void)index;
    return open_with(n_threads, MO_ISA_C, why, why_bytes);
}

static const char *cpu_describe(struct mo_device *dev)
{
    return dev->text;
}

/* Large blocks are touched all over in every step: ask for large pages. */
void *mo_cpu_alloc(size_t bytes)
{
    size_t large = (size_t)2 << 20, align = bytes >= large ? large : 64;
    if (bytes > SIZE_MAX - large)
        return NULL;
    void *mem = aligned_alloc(align, (bytes + align - 1) / align * align + (bytes ? 0 : align));
    if (mem && bytes >= large)
        madvise(mem, (bytes + align - 1) / align * align, MADV_HUGEPAGE);
    return mem;
}

static void *cpu_alloc(struct mo_device *dev, size_t bytes)
{
    (void)dev;
    return mo_cpu_alloc(bytes);
}

static void cpu_free(struct mo_device *dev, void *mem)
{
    (void)dev;
    free(mem);
}

static void cpu_copy_in(struct mo_device *dev, void *to, const void *host, size_t bytes)
{
    (void)dev;
    if (bytes)
        memcpy(to, host, bytes);
}

static void cpu_copy_out(struct mo_device *dev, void *host, const void *from, size_t bytes)
{
    cpu_copy_in(dev, host, from, bytes);
}

static int cpu_sync(struct mo_device *dev, char *why, size_t why_bytes)
{
    if (!atomic_load_explicit(&dev->has_error, memory_order_relaxed))
        return 0;
    snprintf(why, why_bytes, "%s", dev->why);
    atomic_store(&dev->has_error, 0);
    return 1;
}

/* ---- the tables ---------------------------------------------------------------------------- */

#define HOST_MEMBERS                                                                                       \
    .close = cpu_close, .describe = cpu_describe, .alloc = cpu_alloc, .free = cpu_free,                    \
    .upload = cpu_copy_in, .download = cpu_copy_out, .sync = cpu_sync, .is_host = true,           \
    .scratch_bytes = MO_WORKSPACE_BYTES, .fuses_attention = true

const struct mo_backend mo_backend_reference = {
    .name = "reference", .open = reference_open, HOST_MEMBERS,
    .conv_new = mo_ref_conv_new, .conv_free = mo_ref_conv_free, .conv_scratch_bytes = mo_ref_conv_scratch_bytes,
    .qconv_new = mo_ref_qconv_new, .qconv_free = mo_ref_qconv_free, .qconv_scratch_bytes = mo_ref_qconv_scratch_bytes,
#define MO_KERNEL(name, args) .name = mo_ref_##name,
#include "kernels/kernels.def"
#undef MO_KERNEL
};

/* Plain first, then what is faster: the override is the point. */
#pragma GCC diagnostic ignored "-Woverride-init"
const struct mo_backend mo_backend_cpu = {
    .name = "cpu", .open = cpu_open, HOST_MEMBERS,
#define MO_KERNEL(name, args) .name = mo_ref_##name,
#include "kernels/kernels.def"
#undef MO_KERNEL
    .conv_new = mo_cpu_conv_new, .conv_free = mo_cpu_conv_free, .conv_scratch_bytes = mo_cpu_conv_scratch_bytes,
    .packs_products = mo_cpu_packs_products, .qconv_new = mo_cpu_qconv_new, .qconv_free = mo_cpu_qconv_free,
    .qconv_scratch_bytes = mo_cpu_qconv_scratch_bytes, .qconv = mo_cpu_qconv, .qpool = mo_cpu_qpool,
    .qbinary = mo_cpu_qbinary, .quantize = mo_cpu_quantize, .lookup = mo_cpu_lookup, .qfirst = mo_cpu_qfirst,
    .conv_pack = mo_cpu_conv_pack, .conv = mo_cpu_conv, .conv_grad_input = mo_cpu_conv_grad_input,
    .conv_grad_weight = mo_cpu_conv_grad_weight, .gemm = mo_cpu_gemm, .gemm_batched = mo_cpu_gemm_batched,
    .attention = mo_cpu_attention, .attention_grad = mo_cpu_attention_grad,
    .unary = mo_cpu_unary, .unary_grad = mo_cpu_unary_grad, .softmax = mo_cpu_softmax,
    .softmax_grad = mo_cpu_softmax_grad, .layernorm = mo_cpu_layernorm, .layernorm_grad = mo_cpu_layernorm_grad,
    .dropout = mo_cpu_dropout, .dropout_grad = mo_cpu_dropout_grad, .gemm_csr = mo_cpu_gemm_csr,
    .gemm_csr_grad = mo_cpu_gemm_csr_grad, .cell = mo_cpu_cell, .cell_grad = mo_cpu_cell_grad,
    .batchnorm_stats = mo_cpu_batchnorm_stats, .batchnorm = mo_cpu_batchnorm, .batchnorm_grad = mo_cpu_batchnorm_grad,
    .pool = mo_cpu_pool, .pool_grad = mo_cpu_pool_grad, .axpy = mo_cpu_axpy, .sgd_step = mo_cpu_sgd_step,
    .unary_bf16 = mo_cpu_unary_bf16, .unary_grad_bf16 = mo_cpu_unary_grad_bf16, .axpy_bf16 = mo_cpu_axpy_bf16,
    .gemm_bf16 = mo_cpu_gemm_bf16, .gemm_batched_bf16 = mo_cpu_gemm_batched_bf16,
    .conv_bf16 = mo_cpu_conv_bf16, .conv_grad_input_bf16 = mo_cpu_conv_grad_input_bf16,
    .conv_grad_weight_bf16 = mo_cpu_conv_grad_weight_bf16, .pool_bf16 = mo_cpu_pool_bf16,
    .pool_grad_bf16 = mo_cpu_pool_grad_bf16, .batchnorm_stats_bf16 = mo_cpu_batchnorm_stats_bf16,
    .batchnorm_bf16 = mo_cpu_batchnorm_bf16, .batchnorm_grad_bf16 = mo_cpu_batchnorm_grad_bf16,
    .adam_step = mo_cpu_adam_step, .rmsprop_step = mo_cpu_rmsprop_step, .sum_squares = mo_cpu_sum_squares,
    .range = mo_cpu_range, .histogram = mo_cpu_histogram,
};

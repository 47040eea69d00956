/* cpu.h - the CPU device as its kernels see it.
 *
 * mo_ref_NAME is the plain C form of every kernel: short, what the fast ones are
 * compared with. It needs of the device the latch, and the team where it cuts its
 * work (split.h); so it is not to be called from inside a slice. */
#ifndef MO_CPU_H
#define MO_CPU_H

#include <stdatomic.h>

#include "kernels/backend.h"

struct mo_team;
struct mo_loops;
struct mo_qloops;

/* Instruction sets, each includes those before it. MOPT_ISA=c, avx2, avx512f, avx512vnni, amx lowers the tier. */
enum mo_isa { MO_ISA_C, MO_ISA_AVX2, MO_ISA_AVX512, MO_ISA_VNNI, MO_ISA_AMX };

#define MO_WORKSPACE_BYTES ((size_t)4 << 20)

struct mo_device {
    struct mo_team *team;           /* NULL: everything runs in the caller's thread */
    int n_threads;
    enum mo_isa isa;
    char text[96];                  /* what describe gives */
    const struct mo_loops *loops;   /* inner loops of the tier (loops.h); NULL on the plain C tier */
    const struct mo_loops *loops16; /* the same over bfloat16 */
    const struct mo_qloops *qloops; /* likewise for 8-bit convolution (qconv.h) */
    void *workspace;                /* MO_WORKSPACE_BYTES for partial sums within one kernel, 64-byte aligned */
    atomic_int has_error;
    char why[192];                  /* the first error since the last sync; valid when has_error */
};

/* Remember the first error of a kernel until sync asks. Safe from any thread. */
__attribute__((format(printf, 2, 3))) void mo_device_latch(struct mo_device *dev, const char *fmt, ...);

/* Memory for free(): aligned to 64 bytes, on large pages where it is large. */
void *mo_cpu_alloc(size_t bytes);

extern const struct mo_backend mo_backend_cpu;

/* Plain C with the tables of prepared convolutions that go with it. */
struct mo_conv *mo_ref_conv_new(struct mo_device *dev, const struct mo_conv_desc *desc);
void mo_ref_conv_free(struct mo_device *dev, struct mo_conv *conv);
size_t mo_ref_conv_scratch_bytes(const struct mo_conv *conv, bool backward);
const struct mo_conv_desc *mo_ref_conv_desc(const struct mo_conv *conv);
struct mo_qconv *mo_ref_qconv_new(struct mo_device *dev, const struct mo_qconv_desc *desc);
void mo_ref_qconv_free(struct mo_device *dev, struct mo_qconv *q);
size_t mo_ref_qconv_scratch_bytes(const struct mo_qconv *q);

#define MO_KERNEL(name, args) void mo_ref_##name args;
#include "kernels/kernels.def"
#undef MO_KERNEL

#endif

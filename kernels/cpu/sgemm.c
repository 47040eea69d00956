/* sgemm.c - see sgemm.h. */
#include "kernels/cpu/sgemm.h"

const struct mo_sgemm_loops *mo_sgemm_loops(enum mo_isa isa)
{
#if defined(__x86_64__)
    return isa == MO_ISA_C ? NULL : isa == MO_ISA_AVX2 ? &mo_sgemm_avx2 : &mo_sgemm_avx512;
#else
    (void)isa;
    return NULL;
#endif
}

size_t mo_sgemm_packed_floats(const struct mo_sgemm_loops *l, int64_t n, int64_t k)
{
    return (size_t)(mo_sgemm_panels(l, n) * l->panel) * (size_t)k;
}

void mo_sgemm_pack(const struct mo_sgemm_loops *l, bool tb, int64_t n, int64_t k, const float *b, int64_t ldb, float *to)
{
    int64_t n_panels = mo_sgemm_panels(l, n);
    for (int64_t k0 = 0; k0 < k; k0 += MO_SGEMM_K) {
        int64_t each = k - k0 < MO_SGEMM_K ? k - k0 : MO_SGEMM_K;
        l->pack(tb, each, n, b + (tb ? k0 : k0 * ldb), ldb, n_panels, to);
        to += n_panels * l->panel * each;
    }
}

void mo_sgemm_packed(const struct mo_sgemm_loops *l, const struct mo_sgemm_block *p)
{
    struct mo_sgemm_block part = *p;
    int64_t n_panels = mo_sgemm_panels(l, p->n);
    part.b_row = l->panel;
    for (int64_t k0 = 0; k0 < p->k; k0 += MO_SGEMM_K) {
        bool is_last = k0 + MO_SGEMM_K >= p->k;
        part.k = is_last ? p->k - k0 : MO_SGEMM_K;
        part.a = p->a + k0 * p->a_col;
        part.beta = k0 ? 1 : p->beta;
        part.bias = is_last ? p->bias : NULL;
        part.residual = is_last ? p->residual : NULL;
        part.act = is_last ? p->act : MO_ACT_NONE;
        part.b_panel = l->panel * part.k;
        l->block(&part);
        part.b += n_panels * l->panel * part.k;
    }
}

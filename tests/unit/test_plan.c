/* The memory planner: nothing that lives at the same time overlaps, and the block
 * is near the most bytes that ever live. */
#include <check.h>
#include <stdlib.h>

#include "lib/run/private.h"

static void random_spans(struct mo_rng *rng, struct mo_span *spans, uint32_t n, uint32_t n_steps, bool like_training)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t first = mo_rng_below(rng, n_steps), length = mo_rng_below(rng, 6);
        spans[i] = (struct mo_span){ .bytes = mo_rng_below(rng, 8) ? 64 + mo_rng_below(rng, 100000) : 0 };
        if (like_training && mo_rng_below(rng, 2)) {
            /* kept from forward to backward */
            first = mo_rng_below(rng, n_steps / 2);
            length = n_steps - 1 - 2 * first;
        }
        spans[i].first_step = first;
        spans[i].last_step = MO_MIN(first + length, n_steps - 1);
    }
}

static size_t peak(const struct mo_span *spans, uint32_t n, uint32_t n_steps)
{
    size_t most = 0;
    for (uint32_t step = 0; step < n_steps; step++) {
        size_t live = 0;
        for (uint32_t i = 0; i < n; i++)
            if (spans[i].first_step <= step && step <= spans[i].last_step)
                live += (spans[i].bytes + 63) / 64 * 64;
        most = MO_MAX(most, live);
    }
    return most;
}

static void check_no_overlap(const struct mo_span *spans, uint32_t n, size_t total)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct mo_span *a = &spans[i];
        ck_assert_uint_eq(a->offset % MO_ALIGN_BYTES, 0);
        ck_assert_uint_le(a->offset + a->bytes, total);
        for (uint32_t k = 0; k < i; k++) {
            const struct mo_span *b = &spans[k];
            bool in_time = a->first_step <= b->last_step && b->first_step <= a->last_step;
            bool in_space = a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
            ck_assert_msg(!(in_time && in_space && a->bytes && b->bytes), "buffers %u and %u lie on each other", i, k);
        }
    }
}

START_TEST(random_lifetimes)
{
    double sum_short = 0, sum_training = 0;
    for (int round = 0; round < 60; round++) {
        struct mo_rng rng = mo_rng_new(5, MO_RNG_TEST, (uint64_t)round);
        uint32_t n = 10 + mo_rng_below(&rng, 400), n_steps = 4 + mo_rng_below(&rng, 300);
        struct mo_span *spans = mo_mem_new(n, sizeof *spans);
        random_spans(&rng, spans, n, n_steps, round % 2);
        size_t total = mo_place(spans, n);
        ck_assert_uint_ne(total, SIZE_MAX);
        check_no_overlap(spans, n, total);
        double ratio = (double)total / (double)MO_MAX(peak(spans, n, n_steps), (size_t)1);
        ck_assert_msg(ratio < 1.5, "round %d: %.3f times the peak", round, ratio);
        *(round % 2 ? &sum_training : &sum_short) += ratio / 30;
        mo_mem_free(spans);
    }
    ck_assert_msg(sum_short < 1.15, "on average %.3f times the peak", sum_short);
    ck_assert_msg(sum_training < 1.10, "with training's lifetimes %.3f times the peak", sum_training);
}
END_TEST

START_TEST(nothing_to_place)
{
    struct mo_span one = { .bytes = 0, .first_step = 0, .last_step = 9 };
    ck_assert_uint_eq(mo_place(NULL, 0), 0);
    ck_assert_uint_eq(mo_place(&one, 1), 0);
}
END_TEST

START_TEST(same_spans_same_places)
{
    struct mo_span a[100], b[100];
    struct mo_rng rng = mo_rng_new(9, MO_RNG_TEST, 0);
    random_spans(&rng, a, 100, 50, true);
    for (int i = 0; i < 100; i++)
        b[i] = a[i];
    ck_assert_uint_eq(mo_place(a, 100), mo_place(b, 100));
    for (int i = 0; i < 100; i++)
        ck_assert_uint_eq(a[i].offset, b[i].offset);
}
END_TEST

Suite *suite_plan(void);
Suite *suite_plan(void)
{
    Suite *s = suite_create("plan");
    TCase *c = tcase_create("plan");
    tcase_add_test(c, random_lifetimes);
    tcase_add_test(c, nothing_to_place);
    tcase_add_test(c, same_spans_same_places);
    suite_add_tcase(s, c);
    return s;
}

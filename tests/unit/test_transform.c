/* Transforms against what torchvision made of one small image (transform_values.h, written by transform_values.py), the
 * grammar of lists, and what random ones draw. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/data_support.h"

#include "tests/unit/transform_values.h"

enum { H = 11, W = 13, C = 3 };

static struct rig rig;
static struct mo_arena arena;
static struct mo_scratch scratch;
static uint8_t rgb[H * W * C], grey[H * W];

static void setup(void)
{
    rig_open(&rig);
    for (int i = 0; i < H * W * C; i++) {
        int c = i % C, x = i / C % W, y = i / C / W;
        rgb[i] = (uint8_t)((x * 17 + y * 29 + c * 61 + x * y * 7 % 50) % 256);
        if (!c)
            grey[i / C] = rgb[i];
    }
}

static void teardown(void)
{
    mo_arena_release(&arena);
    mo_scratch_release(&scratch);
    rig_close(&rig);
}

static struct mo_image image_of(int channels)
{
    return (struct mo_image){.height = H, .width = W, .channels = channels, .stride = (size_t)(W * channels),
                             .pixels = channels == 1 ? grey : rgb};
}

static struct mo_pipeline parsed(const char *list)
{
    struct mo_pipeline p;
    ck_assert_msg(!mo_pipeline_parse(&rig.ctx, &arena, list, &p), "%s: %s", list, rig.ctx.error);
    return p;
}

static struct mo_image applied(const char *list, int channels, uint64_t which)
{
    struct mo_image image = image_of(channels);
    struct mo_pipeline p = parsed(list);
    struct mo_rng rng = mo_rng_new(1, MO_RNG_TEST, which);
    ck_assert(mo_pipeline_apply(&p, &rng, &scratch, &image));
    return image;
}

static int at(const struct mo_image *image, int i)
{
    int row = image->width * image->channels;
    return image->pixels[(size_t)(i / row) * image->stride + (size_t)(i % row)];
}

static int byte_of(const char *hex, int i)
{
    unsigned x = 0;
    ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &x), 1);
    return (int)x;
}

static void check_bytes(const struct mo_image *image, const char *hex, const char *name)
{
    int n = image->height * image->width * image->channels;
    ck_assert_uint_eq(strlen(hex), 2 * (size_t)n);
    for (int i = 0; i < n; i++)
        ck_assert_msg(at(image, i) == byte_of(hex, i), "%s: byte %d is %d, torchvision has %d", name, i, at(image, i),
                      byte_of(hex, i));
}

START_TEST(test_torchvision)
{
    const char *list = stored[_i].list;
    struct mo_image image = applied(list, stored[_i].in_channels, 0);
    ck_assert_int_eq(image.height, stored[_i].height);
    ck_assert_int_eq(image.width, stored[_i].width);
    ck_assert_int_eq(image.channels, stored[_i].channels);
    check_bytes(&image, stored[_i].hex, list);
    struct mo_pipeline p = parsed(list);
    struct mo_image size = image_of(stored[_i].in_channels);
    mo_pipeline_size(&p, &size);
    ck_assert_int_eq(size.height, image.height);
    ck_assert_int_eq(size.width, image.width);
    ck_assert_int_eq(size.channels, image.channels);
}
END_TEST

START_TEST(test_pad)
{
    struct mo_image image = image_of(C);
    ck_assert(mo_pad(&scratch, &image, 4, 3, 4, 3, false));
    check_bytes(&image, padded_constant, "pad");
    image = image_of(C);
    ck_assert(mo_pad(&scratch, &image, 4, 3, 4, 3, true));
    check_bytes(&image, padded_reflect, "pad, reflect");
}
END_TEST

START_TEST(test_normalize)
{
    struct mo_pipeline p = parsed("scale,normalize=imagenet");
    float x[C * H * W];
    for (int i = 0; i < C * H * W; i++) /* to planes */
        x[i] = rgb[i % (H * W) * C + i / (H * W)];
    mo_pipeline_values(&p, x, C * H * W, C, W);
    for (size_t i = 0; i < MO_COUNT(normalized); i++)
        ck_assert_float_eq_tol(x[29 * i], normalized[i], 1e-6f);
}
END_TEST

/* Every crop of the padded image comes up, at its own place. */
START_TEST(test_pad_crop)
{
    bool seen[5][5] = {{false}};
    int n_seen = 0;
    for (uint64_t which = 0; which < 400; which++) {
        struct mo_image out = applied("pad-crop=2", 1, which);
        ck_assert_int_eq(out.height, H);
        ck_assert_int_eq(out.width, W);
        int found = -1;
        for (int shift = 0; shift < 25 && found < 0; shift++) {
            bool same = true;
            for (int i = 0; i < H * W && same; i++) {
                int y = i / W + shift / 5 - 2, x = i % W + shift % 5 - 2;
                int want = y < 0 || y >= H || x < 0 || x >= W ? 0 : grey[y * W + x];
                same = at(&out, i) == want;
            }
            found = same ? shift : -1;
        }
        ck_assert_int_ge(found, 0);
        n_seen += !seen[found / 5][found % 5];
        seen[found / 5][found % 5] = true;
    }
    ck_assert_int_eq(n_seen, 25);
}
END_TEST

/* Shifts by whole pixels, as far as the share allows and no farther. */
START_TEST(test_translate)
{
    int most_x = 0, most_y = 0;
    for (uint64_t which = 0; which < 300; which++) {
        struct mo_image out = applied("translate=0.25:0.1", 1, which);
        bool found = false;
        for (int dy = -H; dy <= H && !found; dy++)
            for (int dx = -W; dx <= W && !found; dx++) {
                bool same = true;
                for (int i = 0; i < H * W && same; i++) {
                    int y = i / W - dy, x = i % W - dx;
                    same = at(&out, i) == (y < 0 || y >= H || x < 0 || x >= W ? 0 : grey[y * W + x]);
                }
                if (same) {
                    most_x = MO_MAX(most_x, abs(dx));
                    most_y = MO_MAX(most_y, abs(dy));
                    found = true;
                }
            }
        ck_assert(found);
    }
    ck_assert_int_eq(most_x, 3); /* 0.25 x 13 = 3.25 */
    ck_assert_int_eq(most_y, 1); /* 0.1 x 11 = 1.1 */
}
END_TEST

START_TEST(test_random_resized_crop)
{
    struct mo_image whole = image_of(C), out;
    uint8_t resized[5 * 5 * C];
    ck_assert(mo_resize(&scratch, &whole, 5, 5));
    memcpy(resized, whole.pixels, sizeof resized);
    out = applied("random-resized-crop=5:1:1", C, 3); /* all of the area: the image itself, or the middle of it */
    ck_assert_int_eq(out.height, 5);
    ck_assert_int_eq(out.width, 5);
    double total = 0;
    for (int i = 0; i < 5 * 5 * C; i++)
        total += abs(at(&out, i) - resized[i]);
    ck_assert_double_lt(total / (5 * 5 * C), 25);
    int n_different = 0;
    for (uint64_t which = 0; which < 20; which++) {
        out = applied("random-resized-crop=7x6", C, which);
        ck_assert_int_eq(out.height, 7);
        ck_assert_int_eq(out.width, 6);
        n_different += at(&out, 0) != resized[0];
    }
    ck_assert_int_gt(n_different, 10);
}
END_TEST

/* A share P of flips, and the same draws for the same stream. */
START_TEST(test_chance)
{
    int n = 0;
    for (uint64_t which = 0; which < 1000; which++) {
        struct mo_image out = applied("hflip=0.3", 1, which);
        n += at(&out, 0) != grey[0];
        struct mo_image again = applied("hflip=0.3", 1, which);
        ck_assert_int_eq(at(&out, 0), at(&again, 0));
    }
    ck_assert_int_gt(n, 250);
    ck_assert_int_lt(n, 350);
}
END_TEST

/* With one factor of 1 on each side jitter changes nothing; with more it stays within the factors. */
START_TEST(test_color_jitter)
{
    struct mo_image out = applied("color-jitter=0:0:0", C, 1);
    for (int i = 0; i < H * W * C; i++)
        ck_assert_int_eq(at(&out, i), rgb[i]);
    out = applied("color-jitter=0.5:0:0", C, 2);
    double factor = (double)at(&out, 30) / rgb[30];
    ck_assert_double_ge(factor, 0.45);
    ck_assert_double_le(factor, 1.5);
    for (int i = 0; i < H * W * C; i++)
        if (at(&out, i) < 255)
            ck_assert_double_eq_tol(at(&out, i), factor * rgb[i], 3);
}
END_TEST

START_TEST(test_rgb_bgr)
{
    struct mo_image out = applied("rgb", 1, 0);
    for (int i = 0; i < H * W * C; i++)
        ck_assert_int_eq(at(&out, i), grey[i / C]);
    out = applied("bgr", C, 0);
    for (int i = 0; i < H * W * C; i++)
        ck_assert_int_eq(at(&out, i), rgb[i / C * C + 2 - i % C]);
    /* every step works behind a crop, whose rows are not next to each other */
    static const char *const lists[] = {"hflip=1", "vflip=1", "grey", "bgr", "resize=3x3", "rotate=30:30", "pad-crop=1",
                                        "brightness=0.5:0.5", "contrast=0.5:0.5", "saturation=0.5:0.5"};
    for (size_t i = 0; i < MO_COUNT(lists); i++) {
        char list[64];
        uint8_t tight[5 * 4 * C];
        snprintf(list, sizeof list, "center-crop=5x4,%s", lists[i]);
        out = applied(list, C, 7);
        struct mo_image part = applied("center-crop=5x4", C, 7);
        for (int k = 0; k < 5 * 4 * C; k++)
            tight[k] = (uint8_t)at(&part, k);
        part = (struct mo_image){.height = 5, .width = 4, .channels = C, .stride = 4 * C, .pixels = tight};
        struct mo_pipeline p = parsed(lists[i]);
        struct mo_scratch other = {0};
        struct mo_rng rng = mo_rng_new(1, MO_RNG_TEST, 7);
        ck_assert(mo_pipeline_apply(&p, &rng, &other, &part));
        for (int k = 0; k < out.height * out.width * out.channels; k++)
            ck_assert_msg(at(&out, k) == at(&part, k), "%s", lists[i]);
        mo_scratch_release(&other);
    }
}
END_TEST

START_TEST(test_text)
{
    struct mo_pipeline p = parsed("pad-crop=4:reflect,hflip,random-resized-crop=224,scale,standardize");
    ck_assert_str_eq(mo_pipeline_text(&arena, &p, true), "resize=256,center-crop=224x224,scale,standardize");
    ck_assert(!mo_pipeline_is_settled(&p));
    double mean[3] = {10, 20, 30}, deviation[3] = {1, 2, 0}, low[3] = {0, 0, 30}, high[3] = {50, 60, 30};
    const struct mo_stats stats = {.n = 3, .mean = mean, .deviation = deviation, .low = low, .high = high};
    p = parsed("scale=0.5,standardize=channel");
    p.steps[1].axis = MO_AXIS_CHANNEL;
    ck_assert(!mo_pipeline_fit(&rig.ctx, &arena, &stats, &p));
    const char *text = mo_pipeline_text(&arena, &p, true);
    ck_assert_str_eq(text, "scale=0.5,standardize=channel/5:10:15/0.5:1:1");
    p = parsed(text); /* what was written is read as it was */
    ck_assert_str_eq(mo_pipeline_text(&arena, &p, false), text);
    float x[3] = {12, 24, 30};
    mo_pipeline_values(&p, x, 3, 3, 1);
    ck_assert_float_eq(x[0], 2);
    ck_assert_float_eq(x[1], 2);
    ck_assert_float_eq(x[2], 0);
    p = parsed("minmax=-1:1:feature");
    p.steps[0].axis = MO_AXIS_FEATURE;
    ck_assert(!mo_pipeline_fit(&rig.ctx, &arena, &stats, &p));
    float y[3] = {0, 60, 30};
    mo_pipeline_values(&p, y, 3, 1, 3);
    ck_assert_float_eq_tol(y[0], -1, 1e-6f);
    ck_assert_float_eq_tol(y[1], 1, 1e-6f);
    p = parsed("standardize=all");
    ck_assert(!mo_pipeline_fit(&rig.ctx, &arena, &stats, &p));
    ck_assert_uint_eq(p.steps[0].n, 1);
    ck_assert_float_eq(p.steps[0].sub[0], 20);
    ck_assert_float_eq_tol(p.steps[0].div[0], (float)sqrt(5.0 / 3 + 200.0 / 3), 1e-5f);
}
END_TEST

static const struct { const char *list, *words; } wrong[] = {
    {"hfilp", "did you mean 'hflip'"},
    {"", "there is no transform ''"},
    {"hflip=2", "2 is no probability"},
    {"resize", "is no size"},
    {"resize=0", "is no size"},
    {"resize=10x", "is no size"},
    {"resize=99999", "is no size"},
    {"rotate=abc", "is not a number"},
    {"rotate=1:2:3", "more than 2 numbers"},
    {"rotate=-5", "below 0"},
    {"random-scale=2:1", "no range"},
    {"standardize,hflip", "put it before 'standardize'"},
    {"normalize=0/0", "a deviation is 0"},
    {"normalize=1:2/3:4:5", "2 numbers before '/', 3 after it"},
    {"normalize", "imagenet"},
    {"brightness=-1", "below 0"},
    {"scale=0", "is no factor"},
    {"none=3", "is not one of its arguments"},
    {"minmax=3:3", "no range"},
    {"translate=2", "no share"},
    {"pad-crop=0.5", "no number of pixels"},
    {"random-resized-crop=10:0:1", "no range of shares"},
    {"hflip,,vflip", "there is no transform ''"},
};

START_TEST(test_wrong)
{
    struct mo_pipeline p;
    ck_assert_int_eq(mo_pipeline_parse(&rig.ctx, &arena, wrong[_i].list, &p), MOPT_USAGE);
    ck_assert_msg(strstr(rig.ctx.error, wrong[_i].words), "%s: %s", wrong[_i].list, rig.ctx.error);
}
END_TEST

/* Every row of the table: a name, a grammar that begins with it, and exactly one kind of work. */
START_TEST(test_table)
{
    const struct mo_transform *t;
    size_t n = 0;
    for (; (t = mo_transform_at(n)); n++) {
        ck_assert_msg(!strncmp(t->grammar, t->name, strlen(t->name)), "%s", t->name);
        ck_assert_ptr_nonnull(t->parse);
        ck_assert_msg(!t->apply == !!(t->flags & MO_TRANSFORM_VALUES), "%s", t->name);
        ck_assert_msg(!t->fit == !(t->flags & MO_TRANSFORM_FITS), "%s", t->name);
    }
    ck_assert_uint_ge(n, 20);
}
END_TEST

Suite *suite_transform(void);
Suite *suite_transform(void)
{
    Suite *s = suite_create("transform");
    TCase *c = tcase_create("transform");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, test_torchvision, 0, (int)MO_COUNT(stored));
    tcase_add_test(c, test_pad);
    tcase_add_test(c, test_normalize);
    tcase_add_test(c, test_pad_crop);
    tcase_add_test(c, test_translate);
    tcase_add_test(c, test_random_resized_crop);
    tcase_add_test(c, test_chance);
    tcase_add_test(c, test_color_jitter);
    tcase_add_test(c, test_rgb_bgr);
    tcase_add_test(c, test_text);
    tcase_add_loop_test(c, test_wrong, 0, (int)MO_COUNT(wrong));
    tcase_add_test(c, test_table);
    suite_add_tcase(s, c);
    return s;
}

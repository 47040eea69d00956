/* Data sets and their stream: splits, statistics of the training part alone, transforms kept in the model, shapes that
 * fit, and batches that do not depend on the number of workers. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/convert.h"
#include "tests/support/data_support.h"

enum { N = 200, SIDE = 6, N_CLASSES = 4 };

static struct rig rig;
static struct mopt_model *model;
static struct mopt_dataset *data;
static uint8_t pixels[N * SIDE * SIDE], labels[N];

/* Images of 6x6 whose brightness grows with their number, sorted by class; class 3 is rare. */
static void write_idx(void)
{
    static uint8_t bytes[16 + sizeof pixels];
    const uint8_t head[16] = {0, 0, 8, 3, 0, 0, 0, N, 0, 0, 0, SIDE, 0, 0, 0, SIDE};
    const uint8_t label_head[8] = {0, 0, 8, 1, 0, 0, 0, N};
    for (int i = 0; i < N * SIDE * SIDE; i++)
        pixels[i] = (uint8_t)(i / (SIDE * SIDE) + i * 7 % 50);
    for (int i = 0; i < N; i++)
        labels[i] = i < 80 ? 0 : i < 140 ? 1 : i < 190 ? 2 : 3;
    memcpy(bytes, head, 16);
    memcpy(bytes + 16, pixels, sizeof pixels);
    rig_file(&rig, "train-images-idx3-ubyte", bytes, sizeof bytes);
    memcpy(bytes, label_head, 8);
    memcpy(bytes + 8, labels, N);
    rig_file(&rig, "train-labels-idx1-ubyte", bytes, 8 + N);
}

static void setup(void)
{
    rig_open(&rig);
    write_idx();
    model = model_of(MO_F32, 4, (int64_t[]){MO_UNKNOWN, 1, SIDE, SIDE});
    rig.settings.data = rig_spec(&rig, "idx", "");
    data = NULL;
}

static void teardown(void)
{
    mo_dataset_close(data);
    mopt_model_free(model);
    rig_close(&rig);
}

static struct mopt_dataset *opened(void)
{
    mo_dataset_close(data);
    data = NULL;
    enum mopt_status s = mo_dataset_open(&rig.ctx, &rig.settings, model, 5, &data);
    ck_assert_msg(!s, "%s", rig.ctx.error);
    return data;
}

static void refused(enum mopt_status status, const char *words)
{
    mo_dataset_close(data);
    data = NULL;
    enum mopt_status s = mo_dataset_open(&rig.ctx, &rig.settings, model, 5, &data);
    ck_assert_msg(s == status && strstr(rig.ctx.error, words), "status %d, '%s' (wanted '%s')", (int)s, rig.ctx.error, words);
    mopt_clear(&rig.ctx);
}

static void new_model(enum mo_dtype dtype, int rank, const int64_t *dims)
{
    mopt_model_free(model);
    model = model_of(dtype, rank, dims);
}

/* ---- the stream ---------------------------------------------------------------------- */

static const char *const streams[] = {"standardize", "pad-crop=2,hflip,rotate=20:bilinear,brightness=0.3,standardize",
                                      "random-resized-crop=6,scale"};

START_TEST(test_workers)
{
    struct mo_loader_options how = {.split = MO_SPLIT_TRAIN, .batch = 17, .shuffle = true, .augment = true, .seed = 3};
    uint64_t want[2] = {0};
    rig.settings.transform = streams[_i];
    for (int workers = 0; workers <= 4; workers += workers ? workers : 1) {
        rig.settings.workers = workers;
        opened();
        for (uint64_t epoch = 0; epoch < 2; epoch++) {
            uint64_t hash = stream_hash(&rig, data, &how, epoch, 0);
            want[epoch] = workers ? want[epoch] : hash;
            ck_assert_uint_eq(hash, want[epoch]);
        }
    }
    ck_assert_uint_ne(want[0], want[1]);
    how.seed = 4;
    ck_assert_uint_ne(stream_hash(&rig, data, &how, 0, 0), want[0]);
}
END_TEST

/* The batches from b on are the same whether the epoch began there or not; one loader serves many epochs. */
START_TEST(test_resume)
{
    const struct mo_loader_options how = {.split = MO_SPLIT_TRAIN, .batch = 16, .shuffle = true, .augment = true, .seed = 3};
    rig.settings.transform = streams[1];
    rig.settings.workers = 3;
    opened();
    struct mo_loader *l;
    const struct mo_batch *b;
    uint32_t first[16];
    uint64_t hash = 0, again = 0;
    ck_assert(!mo_loader_new(&rig.ctx, data, &how, &l));
    ck_assert_uint_eq(mo_loader_n_batches(l), 12); /* 180 of 16 */
    for (int round = 0; round < 3; round++) { /* whole; from batch 5; broken off and begun again */
        size_t from = round == 1 ? 5 : 0, n = 0;
        uint64_t h = 0;
        ck_assert(!mo_loader_start(l, 9, from));
        for (size_t k = from;; k++) {
            ck_assert(!mo_loader_next(l, &b));
            if (!b->n || (round == 2 && k == 3))
                break;
            n += b->n;
            if (k == 7 && !round)
                memcpy(first, b->index, sizeof first);
            if (k == 7 && round == 1)
                ck_assert_mem_eq(first, b->index, sizeof first);
            if (k >= 5)
                h = mo_hash64(b->x[0], b->n * SIDE * SIDE * 4, h);
        }
        if (!round)
            ck_assert_uint_eq(n, 180);
        hash = round == 0 ? h : hash;
        again = round == 1 ? h : again;
    }
    ck_assert_uint_eq(hash, again);
    ck_assert(!mo_loader_start(l, 9, 12));
    ck_assert(!mo_loader_next(l, &b));
    ck_assert_uint_eq(b->n, 0);
    ck_assert_int_eq(mo_loader_start(l, 9, 13), MOPT_USAGE);
    mo_loader_free(l);
}
END_TEST

/* Each sample once an epoch; its label and pixels are its own. */
START_TEST(test_batches)
{
    const struct mo_loader_options how = {.split = MO_SPLIT_TRAIN, .batch = 32, .shuffle = true, .seed = 1};
    bool seen[N] = {false};
    size_t n_seen = 0;
    struct mo_loader *l;
    const struct mo_batch *b;
    rig.settings.transform = "none";
    opened();
    ck_assert(!mo_loader_new(&rig.ctx, data, &how, &l));
    ck_assert(!mo_loader_start(l, 0, 0));
    for (;;) {
        ck_assert(!mo_loader_next(l, &b));
        if (!b->n)
            break;
        ck_assert_int_eq(b->shape[0].dim[0], (int64_t)b->n);
        for (size_t i = 0; i < b->n; i++, n_seen++) {
            uint32_t k = b->index[i];
            ck_assert(!seen[k]);
            seen[k] = true;
            ck_assert_int_eq(b->labels[i], labels[k]);
            for (int p = 0; p < SIDE * SIDE; p++)
                ck_assert_float_eq(((const float *)b->x[0])[i * SIDE * SIDE + (size_t)p], pixels[k * SIDE * SIDE + (uint32_t)p]);
        }
    }
    ck_assert_uint_eq(n_seen, 180);
    mo_loader_free(l);
}
END_TEST

START_TEST(test_shapes_of_epochs)
{
    opened();
    struct mo_loader *l;
    const struct mo_batch *b;
    struct mo_loader_options how = {.split = MO_SPLIT_TRAIN, .batch = 50, .drop_last = true};
    ck_assert(!mo_loader_new(&rig.ctx, data, &how, &l));
    ck_assert_uint_eq(mo_loader_n_batches(l), 3);
    mo_loader_free(l);
    how = (struct mo_loader_options){.split = MO_SPLIT_VALIDATION, .batch = 16, .pad = true};
    ck_assert(!mo_loader_new(&rig.ctx, data, &how, &l));
    ck_assert(!mo_loader_start(l, 0, 0));
    ck_assert(!mo_loader_next(l, &b));
    ck_assert(!mo_loader_next(l, &b)); /* 20 samples: 16, then 4 and 12 copies */
    ck_assert_uint_eq(b->n, 4);
    ck_assert_int_eq(b->shape[0].dim[0], 16);
    const float *x = b->x[0];
    ck_assert_mem_eq(x + 3 * SIDE * SIDE, x + 15 * SIDE * SIDE, SIDE * SIDE * 4);
    mo_loader_free(l);
    how = (struct mo_loader_options){.split = MO_SPLIT_ALL_TRAIN, .batch = 64, .limit = 10};
    ck_assert(!mo_loader_new(&rig.ctx, data, &how, &l));
    ck_assert(!mo_loader_start(l, 0, 0));
    ck_assert(!mo_loader_next(l, &b));
    ck_assert_uint_eq(b->n, 10);
    for (size_t i = 0; i < 10; i++)
        ck_assert_uint_eq(b->index[i], 20 * i); /* evenly over the split: every class */
    mo_loader_free(l);
    how = (struct mo_loader_options){.split = MO_SPLIT_TRAIN, .batch = 1000};
    ck_assert(!mo_loader_new(&rig.ctx, data, &how, &l));
    ck_assert_uint_eq(mo_loader_n_batches(l), 1);
    mo_loader_free(l);
    how.batch = 0;
    ck_assert_int_eq(mo_loader_new(&rig.ctx, data, &how, &l), MOPT_USAGE);
}
END_TEST

/* ---- splits ------------------------------------------------------------------------------ */

static void count_classes(enum mo_split split, int *count)
{
    memset(count, 0, N_CLASSES * sizeof *count);
    for (size_t i = 0; i < data->part[split].n; i++)
        count[labels[data->part[split].items[i]]]++;
}

START_TEST(test_split)
{
    int seen[N] = {0}, count[N_CLASSES];
    rig.settings.val_split = 0.25;
    opened();
    ck_assert_uint_eq(mo_dataset_count(data, MO_SPLIT_TRAIN), 150);
    ck_assert_uint_eq(mo_dataset_count(data, MO_SPLIT_VALIDATION), 50);
    ck_assert_uint_eq(mo_dataset_count(data, MO_SPLIT_EVAL), 50);
    ck_assert_uint_eq(mo_dataset_count(data, MO_SPLIT_ALL_TRAIN), N);
    ck_assert(!mo_dataset_has_test(data));
    for (int split = MO_SPLIT_TRAIN; split <= MO_SPLIT_VALIDATION; split++)
        for (size_t i = 0; i < data->part[split].n; i++)
            seen[data->part[split].items[i]]++;
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(seen[i], 1);
    uint32_t was[50];
    memcpy(was, data->part[MO_SPLIT_VALIDATION].items, sizeof was);
    opened();
    ck_assert_mem_eq(was, data->part[MO_SPLIT_VALIDATION].items, sizeof was);
    rig.settings.subset = (struct mo_amount){MO_AMOUNT_COUNT, 30};
    rig.settings.stratify = true;
    opened();
    ck_assert_uint_eq(mo_dataset_count(data, MO_SPLIT_TRAIN), 30);
    count_classes(MO_SPLIT_VALIDATION, count); /* 80 60 50 10 in a quarter: 20 15 12.5 2.5 */
    ck_assert_int_eq(count[0], 20);
    ck_assert_int_eq(count[1], 15);
    ck_assert_int_eq(count[2] + count[3], 15);
    count_classes(MO_SPLIT_TRAIN, count);
    ck_assert_int_eq(count[0], 12);
    ck_assert_int_eq(count[1], 9);
    rig.settings.subset = (struct mo_amount){MO_AMOUNT_FRACTION, 0.001};
    refused(MOPT_USAGE, "leaves none");
    rig.settings.subset = (struct mo_amount){MO_AMOUNT_COUNT, 100000};
    opened();
    ck_assert_uint_eq(mo_dataset_count(data, MO_SPLIT_TRAIN), 150);
    ck_assert_int_ge(rig.n_warnings, 1);
}
END_TEST

/* ---- statistics ------------------------------------------------------------------------------ */

START_TEST(test_image_statistics)
{
    rig.settings.subset = (struct mo_amount){MO_AMOUNT_COUNT, 40};
    opened();
    double mean = 0, square = 0, n = 40 * SIDE * SIDE;
    for (size_t i = 0; i < 40; i++)
        for (int p = 0; p < SIDE * SIDE; p++)
            mean += pixels[data->part[MO_SPLIT_TRAIN].items[i] * SIDE * SIDE + (uint32_t)p] / 255.0 / n;
    for (size_t i = 0; i < 40; i++)
        for (int p = 0; p < SIDE * SIDE; p++) {
            double d = pixels[data->part[MO_SPLIT_TRAIN].items[i] * SIDE * SIDE + (uint32_t)p] / 255.0 - mean;
            square += d * d / n;
        }
    const struct mo_step *step = &data->eval_steps.steps[data->eval_steps.n_steps - 1];
    ck_assert_float_eq_tol(step->sub[0], (float)mean, 1e-6f);
    ck_assert_float_eq_tol(step->div[0], (float)sqrt(square), 1e-6f);
    char want[128];
    snprintf(want, sizeof want, "scale,standardize=%.9g/%.9g", (double)step->sub[0], (double)step->div[0]);
    ck_assert_str_eq(mo_dataset_transform(data, false), want);
    ck_assert(mo_dataset_is_default(data));
    ck_assert(!mo_dataset_is_augmented(data));
}
END_TEST

START_TEST(test_table_statistics)
{
    char text[4096] = "a,b,c,y\n";
    for (int i = 0; i < 50; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d,%s,5,%d\n", i, i % 3 ? "u" : "v", i % 2);
    rig_text(&rig, "t.csv", text);
    rig.settings.data = rig_spec(&rig, "csv", "t.csv");
    new_model(MO_F32, 2, (int64_t[]){MO_UNKNOWN, 4});
    opened();
    const struct mo_indexes *train = &data->part[MO_SPLIT_TRAIN];
    double mean = 0, square = 0;
    for (size_t i = 0; i < train->n; i++)
        mean += train->items[i] / (double)train->n;
    for (size_t i = 0; i < train->n; i++)
        square += (train->items[i] - mean) * (train->items[i] - mean) / (double)train->n;
    const struct mo_step *step = &data->eval_steps.steps[0];
    ck_assert_uint_eq(step->n, 4);
    ck_assert_float_eq_tol(step->sub[0], (float)mean, 1e-4f);
    ck_assert_float_eq_tol(step->div[0], (float)sqrt(square), 1e-4f);
    for (int k = 1; k < 3; k++) { /* the one-hot columns stay 0 and 1 */
        ck_assert_float_eq(step->sub[k], 0);
        ck_assert_float_eq(step->div[k], 1);
    }
    ck_assert_float_eq(step->sub[3], 5); /* never changes: deviation 1 */
    ck_assert_float_eq(step->div[3], 1);
}
END_TEST

/* ---- what the model keeps --------------------------------------------------------------------- */

START_TEST(test_note)
{
    const struct mo_loader_options how = {.split = MO_SPLIT_ALL_TRAIN, .batch = 32};
    rig.settings.transform = "pad-crop=1,hflip";
    opened(); /* only augmentation is said: the values are prepared by default */
    ck_assert_ptr_nonnull(strstr(mo_dataset_transform(data, true), "pad-crop=1,hflip,scale,standardize="));
    ck_assert(mo_dataset_is_augmented(data));
    uint64_t hash = stream_hash(&rig, data, &how, 0, 0);
    ck_assert(!mo_dataset_note(&rig.ctx, data, model));
    const char *noted = mo_model_meta(model, "mopt.transform");
    ck_assert_str_eq(noted, mo_dataset_transform(data, false));
    ck_assert_ptr_null(strstr(noted, "pad-crop"));
    rig.settings.transform = NULL; /* another part of the data, yet the same numbers */
    rig.settings.subset = (struct mo_amount){MO_AMOUNT_COUNT, 10};
    opened();
    ck_assert_str_eq(mo_dataset_transform(data, false), noted);
    ck_assert(!mo_dataset_is_default(data));
    ck_assert_uint_eq(stream_hash(&rig, data, &how, 0, 0), hash);
    rig.settings.transform = "hflip"; /* new augmentation, the model's values */
    opened();
    char want[200];
    snprintf(want, sizeof want, "hflip,%s", noted);
    ck_assert_str_eq(mo_dataset_transform(data, true), want);
    rig.settings.transform = NULL; /* evaluation data alone */
    rig.settings.eval_data = rig.settings.data;
    rig.settings.data = NULL;
    opened();
    ck_assert_uint_eq(mo_dataset_count(data, MO_SPLIT_EVAL), N);
    ck_assert_uint_eq(mo_dataset_count(data, MO_SPLIT_TRAIN), 0);
    struct mo_loader *l;
    ck_assert_int_eq(mo_loader_new(&rig.ctx, data, &how, &l), MOPT_DATA);
    mopt_clear(&rig.ctx);
    ck_assert(mo_model_set_meta(model, "mopt.transform", "standardize"));
    refused(MOPT_USAGE, "takes its numbers from training data");
    ck_assert(mo_model_set_meta(model, "mopt.transform", "nonsense"));
    refused(MOPT_USAGE, "there is no transform 'nonsense'");
}
END_TEST

/* A table's columns and classes go with the model, into a later run on another file. */
START_TEST(test_note_schema)
{
    rig_text(&rig, "a.csv", "1,red,yes\n2,green,no\n3,blue,yes\n4,red,no\n5,red,no\n");
    rig_text(&rig, "b.csv", "6,green,no\n");
    new_model(MO_F32, 2, (int64_t[]){MO_UNKNOWN, 4});
    rig.settings.data = rig_spec(&rig, "csv", "a.csv");
    opened();
    ck_assert(!mo_dataset_note(&rig.ctx, data, model));
    rig.settings.data = NULL;
    rig.settings.eval_data = rig_spec(&rig, "csv", "b.csv");
    opened();
    struct mo_loader *l;
    const struct mo_batch *b;
    ck_assert(!mo_loader_new(&rig.ctx, data, &(struct mo_loader_options){.split = MO_SPLIT_EVAL, .batch = 4}, &l));
    ck_assert(!mo_loader_start(l, 0, 0));
    ck_assert(!mo_loader_next(l, &b));
    ck_assert_int_eq(b->labels[0], 0);
    ck_assert_float_eq(((const float *)b->x[0])[2], 1); /* blue, green, red */
    mo_loader_free(l);
    rig.settings.schema = MO_SCHEMA_DATA;
    refused(MOPT_DATA, "input 'x' takes samples of 4");
}
END_TEST

/* ---- shapes ------------------------------------------------------------------------------------ */

static const struct { int rank; int64_t dim[4]; bool fits; int64_t batch; } shapes[] = {
    {4, {-1, 1, 6, 6}, true, 0},  {4, {1, 1, 6, 6}, true, 1},   {4, {8, 1, 6, 6}, true, 8},   {2, {-1, 36}, true, 0},
    {3, {-1, 36, 1}, true, 0},    {4, {-1, 6, 6, 1}, true, 0},  {4, {-1, 1, -1, -1}, true, 0}, {3, {1, 6, 6}, true, 1},
    {1, {36}, true, 1},           {2, {6, 6}, true, 1},         {-1, {0}, true, 0},           {2, {-1, -1}, true, 0},
    {4, {-1, 3, 6, 6}, false, 0}, {4, {-1, 1, 5, 6}, false, 0}, {4, {-1, 1, 4, 9}, false, 0}, {2, {-1, 35}, false, 0},
};

START_TEST(test_shapes)
{
    new_model(MO_F32, MO_MAX(shapes[_i].rank, 0), shapes[_i].dim);
    if (shapes[_i].rank < 0)
        model->graph.values[0].shape.rank = MO_UNKNOWN;
    if (!shapes[_i].fits) {
        refused(MOPT_DATA, "gives 1x6x6");
        return;
    }
    opened();
    ck_assert_int_eq(mo_dataset_model_batch(data), shapes[_i].batch);
    struct mo_loader *l;
    const struct mo_batch *b;
    size_t n = mo_dataset_has_batch(data) ? 3 : 1;
    ck_assert(!mo_loader_new(&rig.ctx, data, &(struct mo_loader_options){.split = MO_SPLIT_TRAIN, .batch = n}, &l));
    ck_assert(!mo_loader_start(l, 0, 0));
    ck_assert(!mo_loader_next(l, &b));
    ck_assert_int_eq(mo_shape_elems(&b->shape[0]), (int64_t)n * SIDE * SIDE);
    if (shapes[_i].rank > 0)
        ck_assert_int_eq(b->shape[0].rank, shapes[_i].rank);
    mo_loader_free(l);
}
END_TEST

START_TEST(test_shapes_by_transform)
{
    new_model(MO_F32, 4, (int64_t[]){MO_UNKNOWN, 3, 8, 8});
    refused(MOPT_DATA, "resize=HEIGHTxWIDTH, grey or rgb");
    rig.settings.transform = "rgb,resize=8";
    opened();
    ck_assert_int_eq(data->channels, 3);
    ck_assert_int_eq(data->height, 8);
    new_model(MO_U8, 4, (int64_t[]){MO_UNKNOWN, 8, 8, 3}); /* bytes, channels last */
    opened();
    ck_assert(data->is_interleaved);
    ck_assert_str_eq(mo_dataset_transform(data, false), "rgb,resize=8,none");
    rig.settings.transform = "rgb,resize=8,standardize";
    refused(MOPT_USAGE, "gives fractions, but input 'x' takes uint8");
    new_model(MO_STRING, 4, (int64_t[]){MO_UNKNOWN, 3, 8, 8});
    rig.settings.transform = "rgb,resize=8,none";
    refused(MOPT_UNSUPPORTED, "which data cannot be converted to");
    new_model(MO_F32, 4, (int64_t[]){MO_UNKNOWN, 3, 6, 6});
    rig.settings.transform = "rgb,normalize=0.1:0.2/1:1";
    refused(MOPT_DATA, "has numbers for 2 channels");
    rig.settings.transform = "rgb,standardize=feature";
    refused(MOPT_USAGE, "images have channels");
}
END_TEST

/* ---- sparse rows, types, bad samples ---------------------------------------------------------------- */

START_TEST(test_sparse)
{
    rig_text(&rig, "t", "1 1:2 4:3\n0 2:5\n1\n0 1:1 2:2 3:3\n");
    rig.settings.data = rig_spec(&rig, "svmlight", "t");
    rig.settings.transform = "scale=0.5";
    rig.settings.val_split = 0;
    new_model(MO_F32, 2, (int64_t[]){MO_UNKNOWN, 6});
    opened();
    struct mo_loader *l;
    const struct mo_batch *b;
    ck_assert(!mo_loader_new(&rig.ctx, data, &(struct mo_loader_options){.split = MO_SPLIT_TRAIN, .batch = 3, .pad = true}, &l));
    ck_assert(!mo_loader_start(l, 0, 0));
    ck_assert(!mo_loader_next(l, &b));
    static const int64_t starts[] = {0, 2, 3, 3}, last_starts[] = {0, 3, 3, 3};
    static const int32_t columns[] = {0, 3, 1};
    static const float values[] = {1, 1.5f, 2.5f};
    ck_assert(b->is_sparse);
    ck_assert_int_eq(b->shape[0].dim[1], 6);
    ck_assert_mem_eq(b->row_start, starts, sizeof starts);
    ck_assert_mem_eq(b->column, columns, sizeof columns);
    ck_assert_mem_eq(b->value, values, sizeof values);
    ck_assert(!mo_loader_next(l, &b));
    ck_assert_uint_eq(b->n, 1);
    ck_assert_mem_eq(b->row_start, last_starts, sizeof last_starts); /* the padding has empty rows */
    mo_loader_free(l);
    rig.settings.transform = "standardize";
    refused(MOPT_USAGE, "would fill the zeros");
    rig.settings.transform = NULL;
    opened();
    ck_assert_str_eq(mo_dataset_transform(data, true), "none");
    new_model(MO_F32, 2, (int64_t[]){MO_UNKNOWN, 3});
    refused(MOPT_DATA, "takes samples of 3");
}
END_TEST

START_TEST(test_convert)
{
    static const float in[] = {0, 1.5f, -2.5f, 300, -1e20f, 65504, 6e-8f, INFINITY, 0.1f};
    enum { N_IN = MO_COUNT(in) };
    uint16_t half[N_IN], bfloat[N_IN];
    float back[N_IN];
    int8_t small[N_IN];
    int64_t large[N_IN];
    mo_convert(MO_F32, in, MO_F16, half, N_IN);
    mo_convert(MO_F16, half, MO_F32, back, N_IN);
    static const float want[] = {0, 1.5f, -2.5f, 300, -INFINITY, 65504, 0x1p-24f, INFINITY, 0.0999755859375f};
    for (size_t i = 0; i < N_IN; i++)
        ck_assert_float_eq(back[i], want[i]);
    mo_convert(MO_F32, in, MO_BF16, bfloat, N_IN);
    mo_convert(MO_BF16, bfloat, MO_F32, back, N_IN);
    ck_assert_float_eq(back[1], 1.5f);
    ck_assert_float_eq_tol(back[8], 0.1f, 0.0004f);
    mo_convert(MO_F32, in, MO_I8, small, N_IN);
    ck_assert_int_eq(small[2], -2);
    ck_assert_int_eq(small[3], 127);
    ck_assert_int_eq(small[4], -128);
    mo_convert(MO_F32, in, MO_I64, large, N_IN);
    ck_assert_int_eq(large[3], 300);
    ck_assert_int_eq(large[7], 9223372036854774784);
    static const int64_t ints[] = {-1, (int64_t)1 << 60, 7};
    int64_t same[3];
    uint8_t bytes[3];
    mo_convert(MO_I64, ints, MO_I64, same, 3);
    ck_assert_mem_eq(ints, same, sizeof ints);
    mo_convert(MO_I64, ints, MO_BOOL, bytes, 3);
    ck_assert_int_eq(bytes[0], 1);
    for (int h = 0; h < 65536; h++) { /* every half comes back as it was; NaN as a NaN */
        uint16_t a = (uint16_t)h, b;
        float x;
        mo_convert(MO_F16, &a, MO_F32, &x, 1);
        mo_convert(MO_F32, &x, MO_F16, &b, 1);
        ck_assert(a == b || (x != x && (b & 0x7c00) == 0x7c00 && b & 0x3ff));
    }
    ck_assert(!mo_convert_known(MO_STRING));
    ck_assert(!mo_convert_known(MO_I4));
}
END_TEST

static size_t count_epoch(void)
{
    struct mo_loader *l;
    const struct mo_batch *b;
    size_t n = 0;
    ck_assert(!mo_loader_new(&rig.ctx, data, &(struct mo_loader_options){.split = MO_SPLIT_ALL_TRAIN, .batch = 4}, &l));
    for (uint64_t epoch = 0; epoch < 2; epoch++) {
        n = 0;
        ck_assert(!mo_loader_start(l, epoch, 0));
        do {
            ck_assert_msg(!mo_loader_next(l, &b), "%s", rig.ctx.error);
            n += b->n;
        } while (b->n);
    }
    mo_loader_free(l);
    return n;
}

/* A row without a label in the middle: left out, said once, counted once; an error when strict. */
START_TEST(test_bad_samples)
{
    char text[1024] = "";
    for (int i = 0; i < 40; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d,%s\n", i, i == 13 || (i >= 20 && i < 24) ? "?" : i % 2 ? "1" : "0");
    rig_text(&rig, "t.csv", text);
    rig.settings.data = rig_spec(&rig, "csv", "t.csv");
    new_model(MO_F32, 2, (int64_t[]){MO_UNKNOWN, 1});
    for (int workers = 0; workers < 3; workers++) {
        rig.settings.workers = workers;
        rig.n_warnings = 0;
        opened();
        ck_assert_uint_eq(count_epoch(), 35); /* one batch of four is missing as a whole */
        ck_assert_uint_eq(mo_dataset_n_skipped(data), 5);
        ck_assert_int_eq(rig.n_warnings, 5);
        ck_assert_ptr_nonnull(strstr(rig.last_warning, "line 24 has no label"));
    }
    rig.settings.strict = true;
    rig.settings.transform = "none";
    opened();
    struct mo_loader *l;
    const struct mo_batch *b;
    enum mopt_status s = MOPT_OK;
    ck_assert(!mo_loader_new(&rig.ctx, data, &(struct mo_loader_options){.split = MO_SPLIT_ALL_TRAIN, .batch = 4}, &l));
    ck_assert(!mo_loader_start(l, 0, 0));
    do
        s = mo_loader_next(l, &b);
    while (!s && b->n);
    ck_assert_int_eq(s, MOPT_DATA);
    ck_assert_ptr_nonnull(strstr(rig.ctx.error, "line 14 has no label"));
    mopt_clear(&rig.ctx);
    mo_loader_free(l);
    rig.settings.transform = "standardize"; /* statistics meet it first */
    refused(MOPT_DATA, "has no label");
}
END_TEST

START_TEST(test_wrong)
{
    rig.settings.data = NULL;
    refused(MOPT_USAGE, "no data");
    rig.settings.data = rig_spec(&rig, "idx", "");
    rig.settings.transform = "standardize";
    rig.settings.eval_transform = "standardize,hflip";
    refused(MOPT_USAGE, "put it before");
    rig.settings.eval_transform = NULL;
    rig_text(&rig, "t.csv", "1,0\n2,1\n");
    rig.settings.eval_data = rig_spec(&rig, "csv", "t.csv");
    refused(MOPT_DATA, "different kinds of samples");
    rig.settings.eval_data = NULL;
    rig.settings.data = rig_spec(&rig, "csv", "t.csv");
    rig.settings.transform = "hflip";
    refused(MOPT_USAGE, "is for images");
    rig.settings.transform = NULL;
    rig_text(&rig, "r.csv", "1,0.5\n2,1.5\n");
    rig.settings.data = rig_spec(&rig, "csv", "r.csv");
    rig.settings.stratify = true;
    refused(MOPT_USAGE, "--stratify needs class labels");
}
END_TEST

Suite *suite_data(void);
Suite *suite_data(void)
{
    Suite *s = suite_create("data");
    TCase *c = tcase_create("data");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, test_workers, 0, (int)MO_COUNT(streams));
    tcase_add_test(c, test_resume);
    tcase_add_test(c, test_batches);
    tcase_add_test(c, test_shapes_of_epochs);
    tcase_add_test(c, test_split);
    tcase_add_test(c, test_image_statistics);
    tcase_add_test(c, test_table_statistics);
    tcase_add_test(c, test_note);
    tcase_add_test(c, test_note_schema);
    tcase_add_loop_test(c, test_shapes, 0, (int)MO_COUNT(shapes));
    tcase_add_test(c, test_shapes_by_transform);
    tcase_add_test(c, test_sparse);
    tcase_add_test(c, test_convert);
    tcase_add_test(c, test_bad_samples);
    tcase_add_test(c, test_wrong);
    suite_add_tcase(s, c);
    return s;
}

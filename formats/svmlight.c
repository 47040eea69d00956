/* svmlight.c - sparse rows as text: "LABEL COLUMN:VALUE COLUMN:VALUE ... # comment", columns rising. Columns count from 1
 * unless a 0 is there (or zero-based= says). Kept as a sparse matrix; never made dense.
 *
 * Labels: whole numbers are classes (as they are when the smallest is 0, else their sorted values: -1 and +1 become 0
 * and 1), others are values. The schema keeps the number of columns and the labels. */
#include "formats/blob.h"
#include "formats/sources.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CLASSES = 1000, MAX_NUMBER = 63 };
#define MAX_COLUMNS ((int64_t)1 << 31)

struct svm {
    struct mo_source base;
    struct mo_arena arena;
    uint64_t *row_start;            /* n_samples + 1 */
    int32_t *column;
    float *value;
    float *target;
    int32_t *label;
    double *labels; int n_labels;   /* classes by number, sorted; NULL: 0, 1, ... */
    int64_t first_column;           /* 0 or 1 */
    uint64_t n_dropped;             /* values in columns that the training data did not have */
};

/* The text, line by line. */
struct text { const char *path; const uint8_t *at, *end; size_t line; };

/* ---- words of the text ------------------------------------------------------------- */

static void skip_spaces(struct text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\t' || *t->at == '\r'))
        t->at++;
}

static bool at_line_end(struct text *t)
{
    skip_spaces(t);
    return t->at == t->end || *t->at == '\n' || *t->at == '#';
}

static void skip_line(struct text *t)
{
    while (t->at < t->end && *t->at != '\n')
        t->at++;
    if (t->at < t->end)
        t->at++;
    t->line++;
}

static bool take_number(struct text *t, double *x)
{
    char word[MAX_NUMBER + 1], *end;
    size_t n = 0;
    while (t->at + n < t->end && n < MAX_NUMBER && strchr("0123456789+-.eE", t->at[n]) && t->at[n])
        n++;
    memcpy(word, t->at, n);
    word[n] = 0;
    *x = strtod(word, &end);
    t->at += n;
    return n && !*end && isfinite(*x);
}

static bool take_column(struct text *t, int64_t *column)
{
    int digits = 0;
    *column = 0;
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9' && digits < 11; t->at++, digits++)
        *column = 10 * *column + (*t->at - '0');
    if (!digits || t->at == t->end || *t->at != ':')
        return false;
    t->at++;
    return true;
}

/* "qid:7" of ranking data is passed over. */
static void skip_query(struct text *t)
{
    skip_spaces(t);
    if (t->end - t->at > 4 && !memcmp(t->at, "qid:", 4))
        while (t->at < t->end && *t->at != ' ' && *t->at != '\t' && *t->at != '\n')
            t->at++;
}

/* ---- one line ------------------------------------------------------------------------ */

struct seen { int64_t low, high; uint64_t n_values, n_rows; };

static enum mopt_status bad_line(struct mopt_ctx *ctx, const struct text *t, const char *what)
{
    return mo_fail(ctx, MOPT_DATA, "%s: line %zu: %s", t->path, t->line, what);
}

/* The next line with a label; *is_over at the end. With svm->column set the values are stored, else counted. */
static enum mopt_status read_line(struct mopt_ctx *ctx, struct text *t, struct svm *svm, struct seen *seen, bool *is_over)
{
    double label, value;
    int64_t column, last = -1;
    while (t->at < t->end && at_line_end(t))
        skip_line(t);
    *is_over = t->at == t->end;
    if (*is_over)
        return MOPT_OK;
    if (!take_number(t, &label) || (t->at < t->end && !strchr(" \t\r\n#", *t->at)))
        return bad_line(ctx, t, "its label is not a number");
    if (svm->target)
        svm->target[seen->n_rows] = (float)label;
    skip_query(t);
    while (!at_line_end(t)) {
        if (!take_column(t, &column) || !take_number(t, &value))
            return bad_line(ctx, t, "expected COLUMN:VALUE");
        if (column >= MAX_COLUMNS || column <= last)
            return bad_line(ctx, t, column <= last ? "columns do not rise" : "a column is beyond 2147483647");
        last = column;
        if (!seen->n_values || column < seen->low)
            seen->low = column;
        if (!seen->n_values++ || column > seen->high)
            seen->high = column;
        if (!svm->column)
            continue;
        if (column - svm->first_column >= svm->base.n_columns || column < svm->first_column) {
            svm->n_dropped++;
            continue;
        }
        uint64_t at = svm->row_start[seen->n_rows + 1]++;
        svm->column[at] = (int32_t)(column - svm->first_column);
        svm->value[at] = (float)value;
    }
    seen->n_rows++;
    return MOPT_OK;
}

static enum mopt_status read_lines(struct mopt_ctx *ctx, const char *path, const struct mo_blob *blob, struct svm *svm,
                                   struct seen *seen)
{
    struct text t = {.path = path, .at = blob->bytes, .end = blob->bytes + blob->n_bytes, .line = 1};
    *seen = (struct seen){.high = -1};
    for (;;) {
        bool is_over;
        if (svm->column)
            svm->row_start[seen->n_rows + 1] = svm->row_start[seen->n_rows];
        MO_TRY(read_line(ctx, &t, svm, seen, &is_over));
        if (is_over)
            return MOPT_OK;
        if (seen->n_rows >= UINT32_MAX)
            return mo_fail(ctx, MOPT_LIMIT, "%s: has more than %u rows", path, UINT32_MAX);
        if (seen->n_rows % 8192 == 0)
            MO_TRY(mo_stopped(ctx));
        if (!svm->column && seen->n_rows > blob->n_bytes)
            return bad_line(ctx, &t, "the text cannot have so many rows");
    }
}

/* ---- labels ------------------------------------------------------------------------------ */

static int by_number(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorted different labels, when they are whole and few. False: they are values. */
static bool find_classes(struct svm *svm)
{
    double list[MAX_CLASSES];
    int n = 0;
    for (size_t i = 0; i < svm->base.n_samples; i++) {
        double x = (double)svm->target[i];
        if (x != floor(x) || fabs(x) > 1e6)
            return false;
        if (bsearch(&x, list, (size_t)n, sizeof *list, by_number))
            continue;
        if (n == MAX_CLASSES)
            return false;
        list[n++] = x;
        qsort(list, (size_t)n, sizeof *list, by_number);
    }
    if (list[0] == 0 && list[n - 1] < 100 * MAX_CLASSES) {
        svm->base.n_classes = (int)list[n - 1] + 1;
        return true;
    }
    svm->labels = mo_arena_new(&svm->arena, (size_t)n, sizeof *svm->labels);
    if (!svm->labels)
        return false;
    memcpy(svm->labels, list, (size_t)n * sizeof *list);
    svm->n_labels = svm->base.n_classes = n;
    return true;
}

static enum mopt_status number_labels(struct mopt_ctx *ctx, struct svm *svm)
{
    svm->label = mo_mem_new(svm->base.n_samples, sizeof *svm->label);
    if (!svm->label)
        return mo_no_memory(ctx, svm->base.n_samples * sizeof *svm->label, svm->base.path);
    for (size_t i = 0; i < svm->base.n_samples; i++) {
        double x = (double)svm->target[i];
        const double *found = &x;
        bool ok = x >= 0 && x < svm->base.n_classes && x == floor(x);
        if (svm->labels)
            ok = (found = bsearch(&x, svm->labels, (size_t)svm->n_labels, sizeof x, by_number)) != NULL;
        if (!ok)
            return mo_fail(ctx, MOPT_DATA, "%s: label %g of row %zu is none of the training data's", svm->base.path, x,
                           i + 1);
        svm->label[i] = svm->labels ? (int32_t)(found - svm->labels) : (int32_t)x;
    }
    return MOPT_OK;
}

/* ---- schema ---------------------------------------------------------------------------------- */

static enum mopt_status write_schema(struct mopt_ctx *ctx, struct svm *svm)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = root && cJSON_AddStringToObject(root, "format", "svmlight") &&
              cJSON_AddNumberToObject(root, "columns", (double)svm->base.n_columns) &&
              cJSON_AddNumberToObject(root, "first", (double)svm->first_column) &&
              cJSON_AddNumberToObject(root, "classes", svm->base.n_classes);
    if (ok && svm->labels) {
        cJSON *labels = cJSON_CreateDoubleArray(svm->labels, svm->n_labels);
        ok = labels && cJSON_AddItemToObject(root, "labels", labels);
    }
    char *text = ok ? cJSON_PrintUnformatted(root) : NULL;
    svm->base.schema = mo_arena_text(&svm->arena, text);
    cJSON_free(text);
    cJSON_Delete(root);
    return svm->base.schema ? MOPT_OK : mo_no_memory(ctx, 0, "a schema");
}

static bool read_labels(struct svm *svm, const cJSON *labels)
{
    const cJSON *item;
    int n = cJSON_GetArraySize(labels);
    if (!cJSON_IsArray(labels) || n != svm->base.n_classes)
        return false;
    svm->labels = mo_arena_new(&svm->arena, (size_t)n + 1, sizeof *svm->labels);
    if (!svm->labels)
        return false;
    cJSON_ArrayForEach(item, labels)
    {
        if (!cJSON_IsNumber(item) || (svm->n_labels && svm->labels[svm->n_labels - 1] >= item->valuedouble))
            return false;
        svm->labels[svm->n_labels++] = item->valuedouble;
    }
    return true;
}

static enum mopt_status read_schema(struct mopt_ctx *ctx, struct svm *svm, const char *text)
{
    cJSON *root = cJSON_Parse(text);
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(root, "format");
    const cJSON *columns = cJSON_GetObjectItemCaseSensitive(root, "columns");
    const cJSON *first = cJSON_GetObjectItemCaseSensitive(root, "first");
    const cJSON *classes = cJSON_GetObjectItemCaseSensitive(root, "classes");
    const cJSON *labels = cJSON_GetObjectItemCaseSensitive(root, "labels");
    bool ok = cJSON_IsString(format) && !strcmp(format->valuestring, "svmlight") && cJSON_IsNumber(columns) &&
              cJSON_IsNumber(first) && cJSON_IsNumber(classes) && columns->valuedouble >= 1 &&
              columns->valuedouble <= (double)MAX_COLUMNS && (first->valueint == 0 || first->valueint == 1) &&
              classes->valueint >= 0;
    if (ok) {
        svm->base.n_columns = (int64_t)columns->valuedouble;
        svm->first_column = first->valueint;
        svm->base.n_classes = classes->valueint;
        ok = !labels || read_labels(svm, labels);
    }
    cJSON_Delete(root);
    return ok ? MOPT_OK
              : mo_fail(ctx, MOPT_DATA,
                        "the model was trained on data of another format (or its schema is broken); "
                        "--schema data numbers classes anew");
}

/* ---- opening ------------------------------------------------------------------------------------ */

static enum mopt_status read_sample(struct mo_source *source, size_t index, struct mo_sample_buffer *buffer,
                                    struct mo_sample *sample, char *why, size_t why_bytes)
{
    (void)buffer, (void)why, (void)why_bytes;
    const struct svm *svm = (const struct svm *)source;
    uint64_t at = svm->row_start[index];
    sample->columns = svm->column + at;
    sample->values = svm->value + at;
    sample->n_values = (size_t)(svm->row_start[index + 1] - at);
    sample->label = svm->label ? svm->label[index] : 0;
    sample->targets = svm->target + index;
    return MOPT_OK;
}

static int64_t label_of(struct mo_source *source, size_t index)
{
    return ((const struct svm *)source)->label[index];
}

static void close_svm(struct mo_source *source)
{
    struct svm *svm = (struct svm *)source;
    mo_mem_free(svm->row_start);
    mo_mem_free(svm->column);
    mo_mem_free(svm->value);
    mo_mem_free(svm->target);
    mo_mem_free(svm->label);
    mo_arena_release(&svm->arena);
    mo_mem_free(svm);
}

static enum mopt_status settle_columns(struct mopt_ctx *ctx, const struct mo_source_spec *spec, const struct seen *seen,
                                       struct svm *svm)
{
    int zero_based;
    const char *said = mo_spec_value(spec, "columns");
    MO_TRY(mo_spec_choice(ctx, spec, "zero-based", "auto|0|1", 0, &zero_based));
    svm->first_column = zero_based ? zero_based == 1 : !(seen->n_values && seen->low == 0);
    svm->base.n_columns = MO_MAX(seen->high + 1 - svm->first_column, (int64_t)1);
    if (said) {
        char *end;
        long long n = strtoll(said, &end, 10);
        if (*end || n < 1 || n > MAX_COLUMNS)
            return mo_fail(ctx, MOPT_USAGE, "data key 'columns': '%s' is no number of columns", said);
        svm->base.n_columns = n;
    }
    return MOPT_OK;
}

static enum mopt_status settle_target(struct mopt_ctx *ctx, const struct mo_source_spec *spec, struct svm *svm,
                                      bool has_schema)
{
    int target;
    MO_TRY(mo_spec_choice(ctx, spec, "target", "auto|classes|regression", 0, &target));
    bool are_classes = has_schema ? svm->base.n_classes > 0 : target != 2 && find_classes(svm);
    if (target == 1 && !are_classes)
        return mo_fail(ctx, MOPT_DATA, "%s: its labels are no classes: not whole, or more than %d", svm->base.path,
                       MAX_CLASSES);
    svm->base.target = are_classes ? MO_TARGET_CLASS : MO_TARGET_VALUES;
    svm->base.n_targets = 1;
    svm->base.label = are_classes ? label_of : NULL;
    return are_classes ? number_labels(ctx, svm) : MOPT_OK;
}

static enum mopt_status make_room(struct mopt_ctx *ctx, const struct seen *seen, struct svm *svm)
{
    uint64_t bytes = seen->n_values * 8 + seen->n_rows * 16;
    MO_TRY(mo_source_fits(ctx, svm->base.path, bytes));
    svm->base.n_samples = seen->n_rows;
    svm->base.held_bytes = bytes;
    svm->row_start = mo_mem_new(seen->n_rows + 2, sizeof *svm->row_start);
    svm->column = mo_mem_new(seen->n_values + 1, sizeof *svm->column);
    svm->value = mo_mem_new(seen->n_values + 1, sizeof *svm->value);
    svm->target = mo_mem_new(seen->n_rows + 1, sizeof *svm->target);
    bool ok = svm->row_start && svm->column && svm->value && svm->target;
    return ok ? MOPT_OK : mo_no_memory(ctx, bytes, svm->base.path);
}

static enum mopt_status read_matrix(struct mopt_ctx *ctx, const struct mo_source_spec *spec, const struct mo_blob *blob,
                                    const char *schema, struct svm *svm)
{
    struct seen seen;
    MO_TRY(read_lines(ctx, svm->base.path, blob, svm, &seen));
    if (!seen.n_rows)
        return mo_fail(ctx, MOPT_DATA, "%s: has no row", svm->base.path);
    if (schema)
        MO_TRY(read_schema(ctx, svm, schema));
    else
        MO_TRY(settle_columns(ctx, spec, &seen, svm));
    MO_TRY(make_room(ctx, &seen, svm));
    MO_TRY(read_lines(ctx, svm->base.path, blob, svm, &seen));
    if (svm->n_dropped)
        mo_warn(ctx, "data", "%s: %llu values stand in columns that the training data did not have: left out",
                svm->base.path, (unsigned long long)svm->n_dropped);
    MO_TRY(settle_target(ctx, spec, svm, schema != NULL));
    return write_schema(ctx, svm);
}

static enum mopt_status open_svmlight(struct mopt_ctx *ctx, const struct mo_source_spec *spec, enum mo_part part,
                                      const char *schema, struct mo_source **source)
{
    struct mo_blob blob;
    if (part == MO_PART_TEST)
        return MOPT_OK;
    struct svm *svm = mo_mem_new(1, sizeof *svm);
    if (!svm)
        return mo_no_memory(ctx, sizeof *svm, spec->path[0]);
    svm->base = (struct mo_source){.format = "svmlight", .path = mo_arena_text(&svm->arena, spec->path[0]),
                                   .kind = MO_SAMPLE_SPARSE, .is_cheap = true, .read = read_sample, .close = close_svm};
    enum mopt_status s = svm->base.path ? mo_blob_open(ctx, spec->path[0], &blob) : mo_no_memory(ctx, 0, "a path");
    if (!s) {
        s = read_matrix(ctx, spec, &blob, schema, svm);
        mo_blob_close(&blob);
    }
    if (s)
        close_svm(&svm->base);
    else
        *source = &svm->base;
    return s;
}

const struct mo_source_format mo_format_svmlight = {
    .name = "svmlight",
    .grammar = "FILE[,columns=N][,zero-based=0|1][,target=classes|regression]",
    .help = "sparse rows as text (LIBSVM)",
    .keys = "columns|zero-based|target",
    .max_paths = 1,
    .open = open_svmlight,
};

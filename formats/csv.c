/* csv.c - tables as text, read whole.
 *
 * The first pass finds what each column is, the second fills a matrix of floats: a number as it is, a word as one
 * column for each word it may be (one-hot). Missing (empty, ?, NA, nan): a number becomes the column's mean in the
 * training file, a word a word of its own. What columns mean is kept as a schema, so that another file gets the same
 * matrix; words that the training file never had are zeros in all columns.
 *
 * A first row is a header where it has words above a column of numbers. Classes: words sorted; whole numbers as they
 * are when the smallest is 0, else their sorted values. Numbers that are not whole, or have more than 100 different
 * values, are a regression target. */
#include "formats/csv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WHOLE_CLASSES = 100, MIN_HASH = 64 };
/* From this share on a column is meant to be numbers, and a word in it is a mistake. */
static const double number_share = 0.9;

struct csv {
    struct mo_source base;
    struct mo_arena arena;
    struct csv_schema schema;
    float *x;
    int32_t *labels;                /* -1: missing */
    float *targets;                 /* NAN: missing */
    uint32_t *lines;                /* line of each row, for words about it */
    uint8_t *is_categorical;
    int64_t n_features;
};

/* A set of words of one column. */
struct words { const char **slot; uint32_t n, room; bool is_full; };

/* What the first pass sees of one column, the first row apart. */
struct seen {
    struct words words;
    uint64_t n_numbers, n_others, n_missing;
    size_t line_of_other;           /* the first */
    char other[40];
    bool is_whole;                  /* every number is */
    double sum, low, high;
};

/* ---- words ------------------------------------------------------------------------ */

static enum mopt_status grow_words(struct mopt_ctx *ctx, struct words *w)
{
    struct words bigger = {.n = w->n, .room = w->room ? 2 * w->room : MIN_HASH};
    bigger.slot = mo_mem_new(bigger.room, sizeof *bigger.slot);
    if (!bigger.slot)
        return mo_no_memory(ctx, bigger.room * sizeof *bigger.slot, "words of a column");
    for (uint32_t i = 0; i < w->room; i++)
        if (w->slot[i]) {
            uint64_t at = mo_hash64(w->slot[i], strlen(w->slot[i]), 0);
            while (bigger.slot[at &= bigger.room - 1])
                at++;
            bigger.slot[at] = w->slot[i];
        }
    mo_mem_free(w->slot);
    *w = bigger;
    return MOPT_OK;
}

static enum mopt_status add_word(struct mopt_ctx *ctx, struct mo_arena *arena, struct words *w, const char *word)
{
    if (w->is_full)
        return MOPT_OK;
    if (2 * w->n >= w->room)
        MO_TRY(grow_words(ctx, w));
    uint64_t at = mo_hash64(word, strlen(word), 0);
    for (; w->slot[at &= w->room - 1]; at++)
        if (!strcmp(w->slot[at], word))
            return MOPT_OK;
    if (w->n == CSV_MAX_WORDS) {
        w->is_full = true;
        return MOPT_OK;
    }
    w->n++;
    w->slot[at] = mo_arena_text(arena, word);
    return w->slot[at] ? MOPT_OK : mo_no_memory(ctx, strlen(word), "words of a column");
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum mopt_status sort_words(struct mopt_ctx *ctx, struct mo_arena *arena, const struct words *w, bool with_missing,
                                   const char ***sorted, int *n)
{
    const char **list = mo_arena_new(arena, w->n + 1, sizeof *list);
    if (!list)
        return mo_no_memory(ctx, w->n * sizeof *list, "words of a column");
    *n = 0;
    if (with_missing)
        list[(*n)++] = "";
    for (uint32_t i = 0; i < w->room; i++)
        if (w->slot[i])
            list[(*n)++] = w->slot[i];
    qsort(list, (size_t)*n, sizeof *list, by_text);
    *sorted = list;
    return MOPT_OK;
}

/* ---- the first pass ------------------------------------------------------------------ */

static enum mopt_status see(struct mopt_ctx *ctx, struct mo_arena *arena, struct seen *seen, const char *field,
                            size_t line)
{
    double x;
    if (csv_is_missing(field)) {
        seen->n_missing++;
        return MOPT_OK;
    }
    if (csv_number(field, &x)) {
        seen->low = seen->n_numbers ? MO_MIN(seen->low, x) : x;
        seen->high = seen->n_numbers ? MO_MAX(seen->high, x) : x;
        seen->is_whole = (seen->is_whole || !seen->n_numbers) && x == floor(x) && fabs(x) < 1e9;
        seen->sum += x;
        seen->n_numbers++;
    } else if (!seen->n_others++) {
        seen->line_of_other = line;
        snprintf(seen->other, sizeof seen->other, "%s", field);
    }
    return add_word(ctx, arena, &seen->words, field);
}

struct scan {
    struct csv_rows rows;
    struct seen *seen;
    size_t n_columns, n_rows;
    char **first;                   /* fields of the first row */
    size_t first_line;
};

static enum mopt_status scan_first(struct mopt_ctx *ctx, struct mo_arena *arena, struct scan *scan)
{
    struct csv_rows *rows = &scan->rows;
    MO_TRY(csv_rows_next(ctx, rows));
    if (!rows->n_fields)
        return mo_fail(ctx, MOPT_DATA, "%s: has no row", rows->path);
    scan->n_columns = rows->n_fields;
    scan->first_line = rows->line;
    scan->first = mo_arena_new(arena, scan->n_columns, sizeof *scan->first);
    scan->seen = mo_mem_new(scan->n_columns, sizeof *scan->seen);
    if (!scan->first || !scan->seen)
        return mo_no_memory(ctx, scan->n_columns * sizeof *scan->seen, rows->path);
    for (size_t c = 0; c < scan->n_columns; c++)
        if (!(scan->first[c] = mo_arena_text(arena, rows->field[c])))
            return mo_no_memory(ctx, 0, rows->path);
    return MOPT_OK;
}

static enum mopt_status check_width(struct mopt_ctx *ctx, const struct csv_rows *rows, size_t n_columns,
                                    size_t first_line)
{
    if (rows->n_fields != n_columns)
        return mo_fail(ctx, MOPT_DATA, "%s: line %zu has %zu fields, line %zu has %zu", rows->path, rows->line,
                       rows->n_fields, first_line, n_columns);
    return MOPT_OK;
}

static enum mopt_status scan_rows(struct mopt_ctx *ctx, struct mo_arena *arena, struct scan *scan)
{
    struct csv_rows *rows = &scan->rows;
    for (;;) {
        MO_TRY(csv_rows_next(ctx, rows));
        if (!rows->n_fields)
            return MOPT_OK;
        MO_TRY(check_width(ctx, rows, scan->n_columns, scan->first_line));
        for (size_t c = 0; c < scan->n_columns; c++)
            MO_TRY(see(ctx, arena, &scan->seen[c], rows->field[c], rows->line));
        if (++scan->n_rows >= UINT32_MAX)
            return mo_fail(ctx, MOPT_LIMIT, "%s: has more than %u rows", rows->path, UINT32_MAX);
        if (scan->n_rows % 8192 == 0)
            MO_TRY(mo_stopped(ctx));
    }
}

/* Of a file of one row: words alone teach nothing, so that it is a header. With a schema a row of words may be a sample. */
static bool is_words_only(const struct scan *scan)
{
    double x;
    bool has_word = false;
    for (size_t c = 0; c < scan->n_columns; c++) {
        if (csv_number(scan->first[c], &x))
            return false;
        has_word |= !csv_is_missing(scan->first[c]);
    }
    return has_word;
}

/* The first row is the names that the training file's header had. */
static bool has_names_of(const struct csv_schema *schema, const struct scan *scan)
{
    double x;
    bool has_word = false;
    if ((size_t)schema->n_columns != scan->n_columns)
        return false;
    for (size_t c = 0; c < scan->n_columns; c++) {
        if (strcmp(schema->column[c].name, scan->first[c]) != 0)
            return false;
        has_word |= !csv_number(scan->first[c], &x);
    }
    return has_word;
}

static bool looks_like_header(const struct scan *scan, const struct csv_schema *schema)
{
    double x;
    if (schema ? has_names_of(schema, scan) : !scan->n_rows && is_words_only(scan))
        return true;
    for (size_t c = 0; c < scan->n_columns; c++)
        if (scan->seen[c].n_numbers && !scan->seen[c].n_others && !csv_is_missing(scan->first[c]) &&
            !csv_number(scan->first[c], &x))
            return true;
    return false;
}

/* ---- what the columns are --------------------------------------------------------------- */

enum { KEY_CLASSES = 1, KEY_REGRESSION };

static int find_column(const struct scan *scan, bool has_header, const char *name)
{
    char *end;
    for (size_t c = 0; has_header && c < scan->n_columns; c++)
        if (!strcmp(scan->first[c], name))
            return (int)c;
    long i = strtol(name, &end, 10);
    if (*end || end == name)
        return -1;
    if (i < 0)
        i += (long)scan->n_columns;
    return i >= 0 && (size_t)i < scan->n_columns ? (int)i : -1;
}

static enum mopt_status no_such_column(struct mopt_ctx *ctx, const struct scan *scan, bool has_header, const char *key,
                                       const char *name)
{
    const char *near = has_header ? mo_nearest(name, (const char *const *)scan->first, scan->n_columns) : NULL;
    if (near)
        return mo_fail(ctx, MOPT_USAGE, "%s: data key '%s': there is no column '%s'; did you mean '%s'?",
                       scan->rows.path, key, name, near);
    return mo_fail(ctx, MOPT_USAGE, "%s: data key '%s': there is no column '%s'; give %sits number from 0 to %zu",
                   scan->rows.path, key, name, has_header ? "a name of the header or " : "", scan->n_columns - 1);
}

/* Marks the columns that a list "a,b" (or a:b) names. */
static enum mopt_status mark_columns(struct mopt_ctx *ctx, const struct mo_source_spec *spec, const char *key,
                                     const struct scan *scan, bool has_header, uint8_t *marks)
{
    const char *list = mo_spec_value(spec, key);
    while (list && *list) {
        char name[256];
        size_t n = strcspn(list, ",:");
        snprintf(name, sizeof name, "%.*s", (int)MO_MIN(n, sizeof name - 1), list);
        int c = find_column(scan, has_header, name);
        if (c < 0)
            return no_such_column(ctx, scan, has_header, key, name);
        marks[c] = 1;
        list += n + (list[n] != 0);
    }
    return MOPT_OK;
}

static enum mopt_status settle_column(struct mopt_ctx *ctx, struct mo_arena *arena, const struct scan *scan, size_t c,
                                      bool is_words, struct csv_column *column)
{
    const struct seen *s = &scan->seen[c];
    if (!s->n_others && !is_words) {
        column->kind = CSV_NUMBER;
        column->mean = s->n_numbers ? s->sum / (double)s->n_numbers : 0;
        return MOPT_OK;
    }
    if (!is_words && (double)s->n_numbers >= number_share * (double)(s->n_numbers + s->n_others))
        return mo_fail(ctx, MOPT_DATA, "%s: line %zu: '%s' in column '%s' is not a number as the others are; "
                       "categorical=%s takes them as words", scan->rows.path, s->line_of_other, s->other, column->name,
                       column->name);
    if (s->words.is_full)
        return mo_fail(ctx, MOPT_LIMIT, "%s: column '%s' has more than %d different words; drop=%s leaves it out",
                       scan->rows.path, column->name, CSV_MAX_WORDS, column->name);
    column->kind = CSV_WORDS;
    return sort_words(ctx, arena, &s->words, s->n_missing > 0, &column->words, &column->n_words);
}

/* Classes of a label column. */
static enum mopt_status settle_label(struct mopt_ctx *ctx, struct mo_arena *arena, const struct scan *scan, int target,
                                     struct csv_schema *schema)
{
    const struct seen *s = &scan->seen[schema->label];
    bool is_number = !s->n_others && s->n_numbers;
    if (!s->n_others && !s->n_numbers)
        return mo_fail(ctx, MOPT_DATA, "%s: every label in column '%s' is missing", scan->rows.path,
                       schema->column[schema->label].name);
    schema->is_regression = target == KEY_REGRESSION ||
                            (target != KEY_CLASSES && is_number &&
                             (!s->is_whole || s->words.n > MAX_WHOLE_CLASSES || s->words.is_full));
    if (schema->is_regression) {
        if (s->n_others)
            return mo_fail(ctx, MOPT_DATA, "%s: line %zu: target '%s' is not a number", scan->rows.path,
                           s->line_of_other, s->other);
        return MOPT_OK;
    }
    if (s->words.is_full)
        return mo_fail(ctx, MOPT_LIMIT, "%s: more than %d different labels", scan->rows.path, CSV_MAX_WORDS);
    MO_TRY(sort_words(ctx, arena, &s->words, false, &schema->classes, &schema->n_classes));
    schema->is_plain = is_number && s->is_whole && s->low == 0 && s->high < CSV_MAX_CLASSES;
    if (schema->is_plain) { /* 0 to the largest, whether it is there or not */
        schema->n_classes = (int)s->high + 1;
        schema->classes = NULL;
    }
    return MOPT_OK;
}

static enum mopt_status make_schema(struct mopt_ctx *ctx, struct csv *csv, const struct mo_source_spec *spec,
                                    const struct scan *scan, bool has_header)
{
    struct csv_schema *schema = &csv->schema;
    const char *label = mo_spec_value(spec, "label");
    int target;
    MO_TRY(mo_spec_choice(ctx, spec, "target", "auto|classes|regression|none", 0, &target));
    schema->n_columns = (int)scan->n_columns;
    schema->column = mo_arena_new(&csv->arena, scan->n_columns, sizeof *schema->column);
    uint8_t *is_words = mo_arena_new(&csv->arena, 2 * scan->n_columns, 1), *is_dropped = is_words + scan->n_columns;
    if (!schema->column || !is_words)
        return mo_no_memory(ctx, scan->n_columns * sizeof *schema->column, spec->path[0]);
    MO_TRY(mark_columns(ctx, spec, "categorical", scan, has_header, is_words));
    MO_TRY(mark_columns(ctx, spec, "drop", scan, has_header, is_dropped));
    schema->label = target == 3 ? -1 : label ? find_column(scan, has_header, label) : (int)scan->n_columns - 1;
    if (label && schema->label < 0)
        return no_such_column(ctx, scan, has_header, "label", label);
    for (int c = 0; c < schema->n_columns; c++) {
        struct csv_column *column = &schema->column[c];
        column->name = has_header ? scan->first[c] : mo_arena_printf(&csv->arena, "%d", c);
        if (!column->name)
            return mo_no_memory(ctx, 0, spec->path[0]);
        column->kind = c == schema->label ? CSV_LABEL : CSV_DROP;
        if (c != schema->label && !is_dropped[c])
            MO_TRY(settle_column(ctx, &csv->arena, scan, (size_t)c, is_words[c], column));
    }
    return schema->label < 0 ? MOPT_OK : settle_label(ctx, &csv->arena, scan, target, schema);
}

/* ---- the second pass ------------------------------------------------------------------------ */

/* A class by its name; one that the training file has without the full stop behind it is that one (the census data
 * of the UCI archive come so). */
static int class_of(const struct csv_schema *schema, char *field)
{
    double x;
    if (schema->is_plain)
        return csv_number(field, &x) && x == floor(x) && x >= 0 && x < schema->n_classes ? (int)x : -1;
    int found = csv_find(schema->classes, schema->n_classes, field);
    size_t n = strlen(field);
    if (found < 0 && n && field[n - 1] == '.') {
        field[n - 1] = 0;
        found = csv_find(schema->classes, schema->n_classes, field);
        field[n - 1] = '.';
    }
    return found;
}

static enum mopt_status fill_label(struct mopt_ctx *ctx, struct csv *csv, const struct csv_rows *rows, size_t row)
{
    const struct csv_schema *schema = &csv->schema;
    char *field = rows->field[schema->label];
    double x;
    if (schema->is_regression) {
        csv->targets[row] = NAN;
        if (csv_is_missing(field))
            return MOPT_OK;
        if (!csv_number(field, &x))
            return mo_fail(ctx, MOPT_DATA, "%s: line %zu: target '%s' is not a number", rows->path, rows->line, field);
        csv->targets[row] = (float)x;
        return MOPT_OK;
    }
    csv->labels[row] = -1;
    if (csv_is_missing(field))
        return MOPT_OK;
    csv->labels[row] = class_of(schema, field);
    if (csv->labels[row] < 0)
        return mo_fail(ctx, MOPT_DATA, "%s: line %zu: label '%s' is none of the %d classes of the training data",
                       rows->path, rows->line, field, schema->n_classes);
    return MOPT_OK;
}

static enum mopt_status fill_row(struct mopt_ctx *ctx, struct csv *csv, const struct csv_rows *rows, size_t row)
{
    float *x = csv->x + row * (size_t)csv->n_features;
    for (int c = 0; c < csv->schema.n_columns; c++) {
        struct csv_column *column = &csv->schema.column[c];
        const char *field = rows->field[c];
        double number = column->mean;
        if (column->kind == CSV_NUMBER) {
            if (!csv_is_missing(field) && !csv_number(field, &number))
                return mo_fail(ctx, MOPT_DATA, "%s: line %zu: '%s' in column '%s' is not a number", rows->path, rows->line,
                               field, column->name);
            *x++ = (float)number;
        } else if (column->kind == CSV_WORDS) {
            int word = csv_find(column->words, column->n_words, csv_is_missing(field) ? "" : field);
            if (word >= 0)
                x[word] = 1;
            else
                column->n_strange++;
            x += column->n_words;
        }
    }
    csv->lines[row] = (uint32_t)MO_MIN(rows->line, (size_t)UINT32_MAX);
    return csv->schema.label < 0 ? MOPT_OK : fill_label(ctx, csv, rows, row);
}

static void count_features(struct csv *csv)
{
    for (int c = 0; c < csv->schema.n_columns; c++) {
        const struct csv_column *column = &csv->schema.column[c];
        csv->n_features += column->kind == CSV_NUMBER ? 1 : column->kind == CSV_WORDS ? column->n_words : 0;
    }
}

static void mark_features(struct csv *csv)
{
    uint8_t *mark = csv->is_categorical;
    for (int c = 0; c < csv->schema.n_columns; c++) {
        const struct csv_column *column = &csv->schema.column[c];
        if (column->kind == CSV_NUMBER)
            *mark++ = 0;
        else if (column->kind == CSV_WORDS) {
            memset(mark, 1, (size_t)column->n_words);
            mark += column->n_words;
        }
    }
}

static enum mopt_status make_matrix(struct mopt_ctx *ctx, struct csv *csv, size_t n_rows)
{
    const char *path = csv->base.path;
    count_features(csv);
    size_t n = (size_t)csv->n_features, bytes;
    if (!n)
        return mo_fail(ctx, MOPT_DATA, "%s: no column is left for the input", path);
    if (!mo_mul_size(n, n_rows, &bytes) || !mo_mul_size(bytes, sizeof *csv->x, &bytes))
        return mo_fail(ctx, MOPT_LIMIT, "%s: impossible size", path);
    MO_TRY(mo_source_fits(ctx, path, bytes));
    csv->x = mo_mem_new(bytes, 1);
    csv->lines = mo_mem_new(n_rows, sizeof *csv->lines);
    csv->is_categorical = mo_mem_new(n, 1);
    csv->labels = mo_mem_new(n_rows, sizeof *csv->labels);
    csv->targets = mo_mem_new(n_rows, sizeof *csv->targets);
    if (!csv->x || !csv->lines || !csv->is_categorical || !csv->labels || !csv->targets)
        return mo_no_memory(ctx, bytes, path);
    csv->base.held_bytes = bytes + n_rows * (sizeof *csv->lines + sizeof *csv->labels + sizeof *csv->targets);
    mark_features(csv);
    return MOPT_OK;
}

static enum mopt_status fill_matrix(struct mopt_ctx *ctx, struct csv *csv, struct csv_rows *rows, bool has_header,
                                    size_t n_rows)
{
    if (has_header)
        MO_TRY(csv_rows_next(ctx, rows));
    for (size_t row = 0; row < n_rows; row++) {
        MO_TRY(csv_rows_next(ctx, rows));
        MO_TRY(fill_row(ctx, csv, rows, row));
    }
    for (int c = 0; c < csv->schema.n_columns; c++)
        if (csv->schema.column[c].n_strange)
            mo_warn(ctx, "data", "%s: %lld values of column '%s' are not in the training data: all zeros", rows->path,
                    (long long)csv->schema.column[c].n_strange, csv->schema.column[c].name);
    return MOPT_OK;
}

/* ---- as a source -------------------------------------------------------------------------------- */

static enum mopt_status read_sample(struct mo_source *source, size_t index, struct mo_sample_buffer *buffer,
                                    struct mo_sample *sample, char *why, size_t why_bytes)
{
    (void)buffer;
    const struct csv *csv = (const struct csv *)source;
    sample->data[0] = csv->x + index * (size_t)csv->n_features;
    if (source->target == MO_TARGET_CLASS)
        sample->label = csv->labels[index];
    else if (source->target == MO_TARGET_VALUES)
        sample->targets = csv->targets + index;
    if ((source->target == MO_TARGET_CLASS && csv->labels[index] < 0) ||
        (source->target == MO_TARGET_VALUES && isnan(csv->targets[index]))) {
        snprintf(why, why_bytes, "%s: line %u has no label", source->path, csv->lines[index]);
        return MOPT_DATA;
    }
    return MOPT_OK;
}

static int64_t label_of(struct mo_source *source, size_t index)
{
    return ((const struct csv *)source)->labels[index];
}

static void close_csv(struct mo_source *source)
{
    struct csv *csv = (struct csv *)source;
    mo_mem_free(csv->x);
    mo_mem_free(csv->labels);
    mo_mem_free(csv->targets);
    mo_mem_free(csv->lines);
    mo_mem_free(csv->is_categorical);
    mo_arena_release(&csv->arena);
    mo_mem_free(csv);
}

static enum mopt_status describe(struct mopt_ctx *ctx, struct csv *csv, size_t n_rows)
{
    struct mo_source *base = &csv->base;
    base->n_samples = n_rows;
    base->n_inputs = 1;
    base->shape[0] = mo_shape_of(1, csv->n_features);
    base->dtype[0] = MO_F32;
    base->is_categorical = csv->is_categorical;
    base->target = csv->schema.label < 0          ? MO_TARGET_NONE
                   : csv->schema.is_regression    ? MO_TARGET_VALUES
                                                  : MO_TARGET_CLASS;
    base->n_targets = 1;
    base->n_classes = csv->schema.n_classes;
    base->class_names = csv->schema.classes;
    base->label = base->target == MO_TARGET_CLASS ? label_of : NULL;
    base->schema = csv_schema_write(&csv->arena, &csv->schema);
    return base->schema ? MOPT_OK : mo_no_memory(ctx, 0, "a schema");
}

static enum mopt_status choose_separator(struct mopt_ctx *ctx, const struct mo_source_spec *spec,
                                         const struct mo_blob *blob, char *separator)
{
    int which;
    MO_TRY(mo_spec_choice(ctx, spec, "separator", "auto|comma|semicolon|tab|space", 0, &which));
    *separator = which ? " ,;\t "[which] : csv_guess_separator(blob);
    return MOPT_OK;
}

static enum mopt_status use_schema(struct mopt_ctx *ctx, struct csv *csv, const struct scan *scan, const char *text)
{
    MO_TRY(csv_schema_read(ctx, &csv->arena, text, &csv->schema));
    if ((size_t)csv->schema.n_columns != scan->n_columns)
        return mo_fail(ctx, MOPT_DATA, "%s: has %zu columns, the training data had %d (--schema data takes it as new data)",
                       csv->base.path, scan->n_columns, csv->schema.n_columns);
    return MOPT_OK;
}

static enum mopt_status read_table(struct mopt_ctx *ctx, struct csv *csv, const struct mo_source_spec *spec,
                                   const struct mo_blob *blob, struct scan *scan, const char *schema)
{
    int header;
    char separator;
    MO_TRY(mo_spec_choice(ctx, spec, "header", "auto|0|1", 0, &header));
    MO_TRY(choose_separator(ctx, spec, blob, &separator));
    csv_rows_start(&scan->rows, spec->path[0], blob, separator);
    MO_TRY(scan_first(ctx, &csv->arena, scan));
    MO_TRY(scan_rows(ctx, &csv->arena, scan));
    if (schema)
        MO_TRY(use_schema(ctx, csv, scan, schema));
    bool has_header = header ? header == 2 : looks_like_header(scan, schema ? &csv->schema : NULL);
    if (!has_header) {
        for (size_t c = 0; c < scan->n_columns; c++)
            MO_TRY(see(ctx, &csv->arena, &scan->seen[c], scan->first[c], scan->first_line));
        scan->n_rows++;
    }
    if (!scan->n_rows)
        return mo_fail(ctx, MOPT_DATA, "%s: has a header and no row", spec->path[0]);
    if (!schema)
        MO_TRY(make_schema(ctx, csv, spec, scan, has_header));
    MO_TRY(make_matrix(ctx, csv, scan->n_rows));
    csv_rows_start(&scan->rows, spec->path[0], blob, separator);
    MO_TRY(fill_matrix(ctx, csv, &scan->rows, has_header, scan->n_rows));
    return describe(ctx, csv, scan->n_rows);
}

static enum mopt_status open_csv(struct mopt_ctx *ctx, const struct mo_source_spec *spec, enum mo_part part,
                                 const char *schema, struct mo_source **source)
{
    struct mo_blob blob;
    struct scan scan = {0};
    if (part == MO_PART_TEST)
        return MOPT_OK;
    struct csv *csv = mo_mem_new(1, sizeof *csv);
    if (!csv)
        return mo_no_memory(ctx, sizeof *csv, spec->path[0]);
    csv->base = (struct mo_source){.format = "csv", .path = mo_arena_text(&csv->arena, spec->path[0]),
                                   .kind = MO_SAMPLE_TENSOR, .is_cheap = true, .read = read_sample, .close = close_csv};
    enum mopt_status s = csv->base.path ? mo_blob_open(ctx, spec->path[0], &blob) : mo_no_memory(ctx, 0, "a path");
    if (!s) {
        s = read_table(ctx, csv, spec, &blob, &scan, schema);
        mo_blob_close(&blob);
    }
    for (size_t c = 0; scan.seen && c < scan.n_columns; c++)
        mo_mem_free(scan.seen[c].words.slot);
    mo_mem_free(scan.seen);
    csv_rows_release(&scan.rows);
    if (s)
        close_csv(&csv->base);
    else
        *source = &csv->base;
    return s;
}

const struct mo_source_format mo_format_csv = {
    .name = "csv",
    .grammar = "FILE[,label=NAME][,target=classes|regression|none][,header=0|1][,categorical=A,B][,drop=A,B]"
               "[,separator=comma|semicolon|tab|space]",
    .help = "a table; the label is the last column unless named",
    .keys = "label|target|header|categorical*|drop*|separator",
    .max_paths = 1,
    .open = open_csv,
};

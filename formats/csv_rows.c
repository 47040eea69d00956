/* csv_rows.c - fields of a row: quotes, doubled quotes, line ends of any kind, spaces around fields taken away. */
#include "formats/csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void csv_rows_start(struct csv_rows *rows, const char *path, const struct mo_blob *blob, char separator)
{
    rows->path = path;
    rows->at = blob->bytes;
    rows->end = blob->bytes + blob->n_bytes;
    if (blob->n_bytes >= 3 && !memcmp(rows->at, "\xef\xbb\xbf", 3))
        rows->at += 3;
    rows->separator = separator;
    rows->line = 0;
    rows->next_line = 1;
}

void csv_rows_release(struct csv_rows *rows)
{
    mo_mem_free(rows->text);
    mo_mem_free(rows->field);
    *rows = (struct csv_rows){0};
}

static bool is_space(int c, char separator)
{
    return (c == ' ' || c == '\t') && c != separator;
}

/* Past spaces, and past line ends too when they are only blank lines. */
static void skip_blank_lines(struct csv_rows *rows)
{
    for (const uint8_t *p = rows->at; p < rows->end; p++) {
        if (*p == '\n') {
            rows->next_line++;
            rows->at = p + 1;
        } else if (*p != '\r' && !is_space(*p, rows->separator))
            return;
        else if (p + 1 == rows->end)
            rows->at = rows->end;
    }
}

/* End of the row: its line feed or the end; quotes hide line feeds. Counts the fields. */
static const uint8_t *row_end(struct csv_rows *rows, size_t *n_fields)
{
    bool quoted = false;
    const uint8_t *p = rows->at;
    *n_fields = 1;
    for (; p < rows->end && (quoted || *p != '\n'); p++) {
        if (*p == '"')
            quoted = !quoted;
        rows->next_line += *p == '\n';
        *n_fields += !quoted && *p == (uint8_t)rows->separator;
    }
    return p;
}

/* One field from *at, copied to *to with a 0 behind it. */
static void take_field(const struct csv_rows *rows, const uint8_t **at, const uint8_t *end, char **to)
{
    const uint8_t *p = *at;
    char *start = *to, *out = start, *keep = start;
    bool quoted = false;
    while (p < end && is_space(*p, rows->separator))
        p++;
    for (; p < end && (quoted || *p != (uint8_t)rows->separator); p++) {
        if (*p == '"' && quoted && p + 1 < end && p[1] == '"')
            *out++ = (char)*p++;
        else if (*p == '"')
            quoted = !quoted;
        else
            *out++ = *p ? (char)*p : ' ';
        if (quoted || (*p != ' ' && *p != '\t' && *p != '\r'))
            keep = out; /* spaces behind this are taken away */
    }
    *keep = 0;
    *to = keep + 1;
    *at = p < end ? p + 1 : end;
}

enum mopt_status csv_rows_next(struct mopt_ctx *ctx, struct csv_rows *rows)
{
    size_t n_fields = 0;
    skip_blank_lines(rows);
    rows->n_fields = 0;
    if (rows->at >= rows->end)
        return MOPT_OK;
    rows->line = rows->next_line;
    const uint8_t *end = row_end(rows, &n_fields);
    if (n_fields > CSV_MAX_COLUMNS)
        return mo_fail(ctx, MOPT_LIMIT, "%s: line %zu has more than %d fields", rows->path, rows->line, CSV_MAX_COLUMNS);
    size_t bytes = (size_t)(end - rows->at) + n_fields + 1;
    if (bytes > rows->text_bytes) {
        mo_mem_free(rows->text);
        rows->text_bytes = 2 * bytes;
        rows->text = mo_mem_new(rows->text_bytes, 1);
    }
    if (n_fields > rows->room) {
        mo_mem_free(rows->field);
        rows->room = n_fields;
        rows->field = mo_mem_new(n_fields, sizeof *rows->field);
    }
    if (!rows->text || !rows->field) {
        rows->text_bytes = rows->room = 0;
        return mo_no_memory(ctx, bytes, rows->path);
    }
    char *to = rows->text;
    for (size_t i = 0; i < n_fields; i++) {
        rows->field[i] = to;
        take_field(rows, &rows->at, end, &to);
    }
    rows->n_fields = n_fields;
    rows->at = end < rows->end ? end + 1 : end;
    rows->next_line++;
    return MOPT_OK;
}

char csv_guess_separator(const struct mo_blob *blob)
{
    static const char candidates[] = ",;\t";
    size_t count[3] = {0}, best = 0;
    bool quoted = false;
    for (size_t i = 0; i < blob->n_bytes && (quoted || blob->bytes[i] != '\n'); i++) {
        quoted ^= blob->bytes[i] == '"';
        for (size_t k = 0; k < 3; k++)
            count[k] += !quoted && blob->bytes[i] == (uint8_t)candidates[k];
    }
    for (size_t k = 1; k < 3; k++)
        if (count[k] > count[best])
            best = k;
    return candidates[best];
}

bool csv_is_missing(const char *field)
{
    static const char *const words[] = {"", "?", "NA", "N/A", "nan", "NaN", "null"};
    for (size_t i = 0; i < MO_COUNT(words); i++)
        if (!strcmp(field, words[i]))
            return true;
    return false;
}

bool csv_number(const char *field, double *x)
{
    char *end;
    if (!*field || field[strspn(field, "0123456789+-.eE")])
        return false;
    *x = strtod(field, &end);
    return !*end && end != field && isfinite(*x);
}

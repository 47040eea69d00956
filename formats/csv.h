/* csv.h - what csv.c, csv_rows.c and csv_schema.c share. */
#ifndef MO_CSV_H
#define MO_CSV_H

#include "formats/blob.h"
#include "formats/sources.h"

enum { CSV_MAX_COLUMNS = 1 << 16, CSV_MAX_WORDS = 4096, CSV_MAX_CLASSES = 100000 };

/* ---- rows: bytes to fields ---- */

struct csv_rows {
    const char *path;
    const uint8_t *at, *end;
    char separator;
    size_t line;                    /* of the row that was read last, from 1 */
    size_t next_line;
    char *text; size_t text_bytes;  /* the fields of the row, each with a 0 behind it */
    char **field; size_t n_fields, room;
};
void csv_rows_start(struct csv_rows *rows, const char *path, const struct mo_blob *blob, char separator);
void csv_rows_release(struct csv_rows *rows);
/* The next row that is not blank; n_fields 0 at the end. */
MOPT_MUST_CHECK enum mopt_status csv_rows_next(struct mopt_ctx *ctx, struct csv_rows *rows);
/* The separator that the first line shows: the most frequent of , ; and tab outside quotes. */
char csv_guess_separator(const struct mo_blob *blob);
bool csv_is_missing(const char *field);
bool csv_number(const char *field, double *x);      /* finite; nothing behind it */

/* ---- schema: what a column means ---- */

enum csv_kind { CSV_NUMBER, CSV_WORDS, CSV_DROP, CSV_LABEL };
struct csv_column {
    enum csv_kind kind;
    const char *name;
    double mean;                    /* NUMBER: stands for missing ones */
    const char **words; int n_words;/* WORDS: sorted; "" stands for missing */
    int64_t n_strange;              /* values of this file that are none of the words */
};
struct csv_schema {
    struct csv_column *column; int n_columns;
    int label;                      /* column; -1: none */
    bool is_regression;
    bool is_plain;                  /* classes are numbers from 0 as they stand */
    const char **classes; int n_classes;    /* sorted */
};
/* JSON text in the arena; NULL: no memory. */
const char *csv_schema_write(struct mo_arena *arena, const struct csv_schema *schema);
/* Everything is checked; MOPT_DATA where it is not a schema of a csv file. */
MOPT_MUST_CHECK enum mopt_status csv_schema_read(struct mopt_ctx *ctx, struct mo_arena *arena, const char *text,
                                                 struct csv_schema *schema);
/* Index of the word in the sorted list; -1. */
int csv_find(const char *const *words, int n_words, const char *word);

#endif

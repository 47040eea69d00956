/* option.h - filling an options struct from text by its table (mopt.h: struct mopt_option). */
#ifndef MO_OPTION_H
#define MO_OPTION_H

#include "lib/base/base.h"

struct mo_list { const char **items; size_t n; };           /* texts in the given arena */

enum mo_amount_kind { MO_AMOUNT_NONE, MO_AMOUNT_FRACTION, MO_AMOUNT_COUNT };
struct mo_amount { enum mo_amount_kind kind; double value; };   /* "0.5", "50%": fraction; "1000": count */

/* Field types by kind: BOOL bool, INT int64_t, FLOAT double, TEXT const char *,
 * CHOICE int (index into choices), LIST struct mo_list, AMOUNT struct mo_amount. */

/* Defaults into every field of the struct. */
void mo_options_default(const struct mopt_option *table, void *options);
/* The row of that name, groups looked through; *base_offset is added to row->offset. NULL: none. */
const struct mopt_option *mo_option_find(const struct mopt_option *table, const char *name, size_t *base_offset);
/* Parse and store one value. "" or "true"/"false" for BOOL. Fails with MOPT_USAGE and a sentence
 * such as: option 'amount': 1.4 is above 1. Texts are copied into the arena. */
MOPT_MUST_CHECK enum mopt_status mo_option_set(struct mopt_ctx *ctx, struct mo_arena *arena,
                                               const struct mopt_option *table, void *options,
                                               const char *name, const char *value);
MOPT_MUST_CHECK enum mopt_status mo_amount_parse(struct mopt_ctx *ctx, const char *text, struct mo_amount *amount);
/* Names of all rows, for mo_nearest; into the arena. */
const char **mo_option_names(struct mo_arena *arena, const struct mopt_option *table, size_t *n);

#endif

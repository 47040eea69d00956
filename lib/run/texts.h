/* texts.h - texts while a model runs.
 *
 * An element of a string tensor is the number of a text, 8 bytes, so that whatever moves elements moves texts too, on any
 * device, and equal texts have equal numbers. The empty text is 0: what is filled with zeros holds empty texts. One pool
 * belongs to a run and to the runs of the bodies in it; a text stays, and stays where it is, until
 * the run ends. */
#ifndef MO_RUN_TEXTS_H
#define MO_RUN_TEXTS_H

#include "lib/base/base.h"

struct mo_texts;

struct mo_texts *mo_texts_new(void);        /* NULL: no memory */
void mo_texts_free(struct mo_texts *t);
/* The number of these bytes. MOPT_LIMIT: they would take the pool beyond the context's limit of memory. */
MOPT_MUST_CHECK enum mopt_status mo_texts_number(struct mopt_ctx *ctx, struct mo_texts *t, const char *text, size_t n_bytes,
                                                 int64_t *number);
/* The text of a number, ended by a 0 that *n_bytes (or NULL) does not count. NULL: no text has it. */
const char *mo_texts_at(const struct mo_texts *t, int64_t number, size_t *n_bytes);
/* Several as they come from files, texts[i] ended by 0, and in one block, each ended by 0 (of n_bytes in all). */
MOPT_MUST_CHECK enum mopt_status mo_texts_numbers(struct mopt_ctx *ctx, struct mo_texts *t, const char *const *texts,
                                                  size_t n, int64_t *numbers);
MOPT_MUST_CHECK enum mopt_status mo_texts_parse(struct mopt_ctx *ctx, struct mo_texts *t, const char *block,
                                                size_t n_bytes, size_t n, int64_t *numbers);
/* The other way: such a block in new memory (mo_mem_free). */
MOPT_MUST_CHECK enum mopt_status mo_texts_block(struct mopt_ctx *ctx, const struct mo_texts *t, const int64_t *numbers,
                                                size_t n, char **block, size_t *n_bytes);

#endif

/* text.h - what operators on strings share: elements as texts and back, numbers as texts. Plain C on host memory. */
#ifndef MO_OPS_TEXT_H
#define MO_OPS_TEXT_H

#include "lib/ops/host.h"

/* Element i of input k, which holds strings; fails where it is no text's number. */
MOPT_MUST_CHECK enum mopt_status mo_text_in(struct mo_host *h, uint32_t k, int64_t i, const char **text, size_t *n_bytes);
/* The number of a text in this run. */
MOPT_MUST_CHECK enum mopt_status mo_text_number(struct mo_host *h, const char *text, size_t n_bytes, int64_t *number);
/* The texts of a STRINGS attribute, or of a TENSOR of strings, as numbers in new memory (mo_mem_free). */
MOPT_MUST_CHECK enum mopt_status mo_text_attr(struct mo_run *r, const struct mo_attr *a, int64_t **numbers, size_t *n);
/* Fails unless the type is that of strings, or not known yet. */
MOPT_MUST_CHECK enum mopt_status mo_check_texts(struct mopt_ctx *ctx, const struct mo_value *v);
/* Cast where one side is of strings: every element of input 0 into output 0. */
MOPT_MUST_CHECK enum mopt_status mo_text_cast(struct mo_run *r, const struct mo_node *n);

/* A function of one element of a host operator. */
typedef enum mopt_status mo_text_fn(struct mo_host *h, int64_t i, void *to);
/* Output 0, as large as it was inferred, filled element by element. */
MOPT_MUST_CHECK enum mopt_status mo_text_each(struct mo_run *r, const struct mo_node *n, mo_text_fn *fn);

#endif

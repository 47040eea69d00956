/* inspect.h - what the files of the inspect pass share. */
#ifndef MO_INSPECT_H
#define MO_INSPECT_H

#include "lib/passes/pass.h"

/* Rows for the nodes of g, whose shapes were inferred: for those with parameters or multiply-adds, or for all. reads:
 * with the range and mean of weights. */
MOPT_MUST_CHECK enum mopt_status mo_inspect_layers(struct mo_job *job, struct mo_graph *g, bool all, bool has_shapes,
                                                   bool reads, struct mopt_report *report);
/* "Nx1x28x28": a dimension's name where it has one. */
const char *mo_inspect_shape(const struct mo_value *v, char *buf, size_t buf_bytes);

#endif

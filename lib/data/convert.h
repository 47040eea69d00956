/* convert.h - elements of one type as another. */
#ifndef MO_CONVERT_H
#define MO_CONVERT_H

#include "lib/graph/graph.h"

/* Whether the type is a number of whole bytes that mo_convert knows (no strings, no packed or 8-bit floats). */
bool mo_convert_known(enum mo_dtype dtype);
/* n elements: floats rounded to nearest, floats to integers truncated and kept within range. */
void mo_convert(enum mo_dtype from, const void *in, enum mo_dtype to, void *out, size_t n);

#endif

/* reference.h - the plain C kernels as a backend: what others are compared with. */
#ifndef MO_REFERENCE_H
#define MO_REFERENCE_H

#include "kernels/backend.h"

extern const struct mo_backend mo_backend_reference;

#endif

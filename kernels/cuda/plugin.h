/* plugin.h - what the plug-in libmopt-cuda.so gives to load.c. */
#ifndef MO_PLUGIN_H
#define MO_PLUGIN_H

#include "kernels/backend.h"

#define MO_PLUGIN_FILE "libmopt-cuda.so"
#define MO_PLUGIN_SYMBOL "mo_cuda_plugin"

/* All kernels with their arguments, as text: a plug-in of another build is refused by it. The first word counts the other
 * changes of struct mo_backend. */
static const char MO_PLUGIN_SIGNATURE[] = "2;"
#define MO_KERNEL(name, args) #name #args ";"
#include "kernels/kernels.def"
#undef MO_KERNEL
    ;

/* The table, or NULL when signature is not the plug-in's own. */
typedef const struct mo_backend *mo_plugin_fn(const char *signature);

#endif

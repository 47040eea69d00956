/* sources.h - data sets by name: the grammar of a spec and the table of formats.
 *
 *     FORMAT:PATH[,PATH][,KEY=VALUE...]
 *
 * A comma inside a path is written as \,. A format is one const struct
 * mo_source_format, last in its file formats/NAME.c, and one row in sources.c. */
#ifndef MO_SOURCES_H
#define MO_SOURCES_H

#include "formats/formats.h"
#include "lib/data/dataset.h"
#include "lib/data/host_tensor.h"

enum { MO_SPEC_MAX_PATHS = 4, MO_SPEC_MAX_KEYS = 16 };

struct mo_source_format;
struct mo_source_spec {
    const struct mo_source_format *format;
    const char *path[MO_SPEC_MAX_PATHS];
    int n_paths;
    const char *key[MO_SPEC_MAX_KEYS], *value[MO_SPEC_MAX_KEYS];
    int n_keys;
    char *text;                 /* what all of these point into */
};

struct mo_source_format {
    const char *name;
    const char *grammar;        /* what follows the colon */
    const char *help;
    const char *keys;           /* "label|drop*": what may stand before '='; *: takes a list a,b */
    int max_paths;
    enum mopt_status (*open)(struct mopt_ctx *ctx, const struct mo_source_spec *spec, enum mo_part part,
                             const char *schema, struct mo_source **source);
};
const struct mo_source_format *mo_source_format_at(size_t i);       /* NULL past the end */

/* ---- for formats ---- */

const char *mo_spec_value(const struct mo_source_spec *spec, const char *key);      /* NULL: not said */
/* "0|1|false|true|no|yes"; otherwise where it was not said. */
MOPT_MUST_CHECK enum mopt_status mo_spec_bool(struct mopt_ctx *ctx, const struct mo_source_spec *spec, const char *key,
                                              bool otherwise, bool *value);
/* One of "a|b|c" as its index; `otherwise` where it was not said. */
MOPT_MUST_CHECK enum mopt_status mo_spec_choice(struct mopt_ctx *ctx, const struct mo_source_spec *spec,
                                                const char *key, const char *choices, int otherwise, int *value);
/* Takes the bytes over a limit the user or the machine set: MOPT_LIMIT naming the path. */
MOPT_MUST_CHECK enum mopt_status mo_source_fits(struct mopt_ctx *ctx, const char *path, uint64_t bytes);

#endif

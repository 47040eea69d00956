/* passes.c - the table of passes, from passes.def. */
#include <string.h>

#include "lib/passes/pass.h"

#define PASS(name) extern const struct mo_pass mo_pass_##name;
#include "lib/passes/passes.def"
#undef PASS

static const struct mo_pass *const passes[] = {
#define PASS(name) &mo_pass_##name,
#include "lib/passes/passes.def"
#undef PASS
    NULL};

const struct mo_pass *mo_pass_at(size_t i)
{
    return i < MO_COUNT(passes) ? passes[i] : NULL;
}

const struct mo_pass *mo_pass_find(const char *name)
{
    for (size_t i = 0; passes[i]; i++)
        if (!strcmp(passes[i]->name, name))
            return passes[i];
    return NULL;
}

bool mopt_pass_at(size_t i, struct mopt_pass_info *info)
{
    const struct mo_pass *pass = mo_pass_at(i);
    if (!pass)
        return false;
    *info = (struct mopt_pass_info){pass->name, pass->help, pass->options};
    return true;
}

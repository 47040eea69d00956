/* load.c - finds the MPI plug-in at run time.
 *
 * All that needs MPI is in a plug-in, libmopt-mpi.so, so that the same mopt runs where there is none. It is looked for
 * at $MOPT_MPI_PLUGIN (and then only there); else beside the library or program that this code is in, in ../lib from
 * there, beside the running program, in ../lib from there, and where the loader looks. It stays loaded. */
#include <stdio.h>

#include "kernels/comm/comm.h"

#if MOPT_WITH_MPI

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/comm/plugin.h"

/* The plug-in at path; NULL, and why. MPI's own parts look for its symbols among the global ones. */
static const struct mo_comm *load_from(const char *path, char *why, size_t why_bytes)
{
    void *plugin = dlopen(path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
    if (!plugin) {
        snprintf(why, why_bytes, "%s", dlerror());
        return NULL;
    }
    mo_mpi_plugin_fn *give;
    *(void **)&give = dlsym(plugin, MO_MPI_SYMBOL);
    const struct mo_comm *table = give ? give(MO_MPI_SIGNATURE) : NULL;
    if (!give)
        snprintf(why, why_bytes, "'%s' is no plug-in of mopt", path);
    else if (!table)
        snprintf(why, why_bytes, "'%s' belongs to another build of mopt", path);
    dlclose(plugin);
    return table;
}

/* The plug-in in the folder of `file` or in ../lib from there. Files that are not there are passed over. */
static const struct mo_comm *load_beside(const char *file, char *why, size_t why_bytes)
{
    static const char *const folders[] = { "", "../lib/" };
    char real[PATH_MAX], path[PATH_MAX + 64];
    if (!realpath(file, real))
        return NULL;
    *(strrchr(real, '/') + 1) = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s%s" MO_MPI_FILE, real, folders[i]);
        const struct mo_comm *table = access(path, F_OK) ? NULL : load_from(path, why, why_bytes);
        if (table || *why)
            return table;
    }
    return NULL;
}

static const struct mo_comm *load(char *why, size_t why_bytes)
{
    const char *named = getenv("MOPT_MPI_PLUGIN");
    const struct mo_comm *table = NULL;
    Dl_info self;
    why[0] = 0;
    if (named && named[0])
        return load_from(named, why, why_bytes);
    if (dladdr(__extension__ (const void *)load, &self) && self.dli_fname)
        table = load_beside(self.dli_fname, why, why_bytes);
    if (!table && !why[0])
        table = load_beside("/proc/self/exe", why, why_bytes);
    /* one that is there and does not load is not passed over for another */
    return table || why[0] ? table : load_from(MO_MPI_FILE, why, why_bytes);
}

#else

static const struct mo_comm *load(char *why, size_t why_bytes)
{
    snprintf(why, why_bytes, "this mopt was built without MPI (make MPI=1)");
    return NULL;
}

#endif

const struct mo_comm *mo_comm_find(char *why, size_t why_bytes)
{
    struct mo_launch launch = mo_comm_launch();
    if (!launch.is_launched)
        return &mo_comm_self;
    const struct mo_comm *table = load(why, why_bytes);
    return !table && launch.size == 1 ? &mo_comm_self : table;
}

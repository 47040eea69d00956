/* load.c - finds the plug-ins of MPI and NCCL at run time.
 *
 * All that needs these libraries is in plug-ins, so that the same mopt runs where there are none. libmopt-mpi.so is looked
 * for at $MOPT_MPI_PLUGIN (and then only there), libmopt-nccl.so at $MOPT_NCCL_PLUGIN; else beside the library or program
 * that this code is in, in ../lib from there, beside the running program, in ../lib from there, and where the loader looks.
 * They stay loaded. */
#include <stdio.h>

#include "kernels/comm/comm.h"

#if MOPT_WITH_MPI

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/comm/plugin.h"

struct plugin { const char *file, *variable, *symbol; };

/* The symbol of the plug-in at path; NULL, and why. MPI's own parts look for its symbols among the global ones. */
static void *load_from(const struct plugin *p, const char *path, char *why, size_t why_bytes)
{
    void *plugin = dlopen(path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
    if (!plugin) {
        snprintf(why, why_bytes, "%s", dlerror());
        return NULL;
    }
    void *give = dlsym(plugin, p->symbol);
    if (!give)
        snprintf(why, why_bytes, "'%s' is no plug-in of mopt", path);
    dlclose(plugin);
    return give;
}

/* The plug-in in the folder of `file` or in ../lib from there. Files that are not there are passed over. */
static void *load_beside(const struct plugin *p, const char *file, char *why, size_t why_bytes)
{
    static const char *const folders[] = { "", "../lib/" };
    char real[PATH_MAX], path[PATH_MAX + 64];
    if (!realpath(file, real))
        return NULL;
    *(strrchr(real, '/') + 1) = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s%s%s", real, folders[i], p->file);
        void *give = access(path, F_OK) ? NULL : load_from(p, path, why, why_bytes);
        if (give || *why)
            return give;
    }
    return NULL;
}

static void *load(const struct plugin *p, char *why, size_t why_bytes)
{
    const char *named = getenv(p->variable);
    void *give = NULL;
    Dl_info self;
    why[0] = 0;
    if (named && named[0])
        return load_from(p, named, why, why_bytes);
    if (dladdr(__extension__ (const void *)load, &self) && self.dli_fname)
        give = load_beside(p, self.dli_fname, why, why_bytes);
    if (!give && !why[0])
        give = load_beside(p, "/proc/self/exe", why, why_bytes);
    /* one that is there and does not load is not passed over for another */
    return give || why[0] ? give : load_from(p, p->file, why, why_bytes);
}

static const struct mo_comm *load_mpi(char *why, size_t why_bytes)
{
    static const struct plugin plugin = { MO_MPI_FILE, "MOPT_MPI_PLUGIN", MO_MPI_SYMBOL };
    mo_mpi_plugin_fn *give;
    *(void **)&give = load(&plugin, why, why_bytes);
    const struct mo_comm *table = give ? give(MO_MPI_SIGNATURE) : NULL;
    if (give && !table)
        snprintf(why, why_bytes, "the MPI plug-in belongs to another build of mopt");
    return table;
}

const struct mo_comm_device *mo_comm_device_find(char *why, size_t why_bytes)
{
    static const struct plugin plugin = { MO_NCCL_FILE, "MOPT_NCCL_PLUGIN", MO_NCCL_SYMBOL };
    mo_nccl_plugin_fn *give;
    *(void **)&give = load(&plugin, why, why_bytes);
    const struct mo_comm_device *table = give ? give(MO_MPI_SIGNATURE) : NULL;
    if (give && !table)
        snprintf(why, why_bytes, "the NCCL plug-in belongs to another build of mopt");
    return table;
}

#else

static const struct mo_comm *load_mpi(char *why, size_t why_bytes)
{
    snprintf(why, why_bytes, "this mopt was built without MPI (make MPI=1)");
    return NULL;
}

const struct mo_comm_device *mo_comm_device_find(char *why, size_t why_bytes)
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
    const struct mo_comm *table = load_mpi(why, why_bytes);
    return !table && launch.size == 1 ? &mo_comm_self : table;
}

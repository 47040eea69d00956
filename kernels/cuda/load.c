/* load.c - finds the CUDA backend at run time.
 *
 * All that needs CUDA is in a plug-in, libmopt-cuda.so, so that the same mopt runs
 * where there is none. It is looked for at $MOPT_CUDA_PLUGIN (and then only there);
 * else beside the library or program that this code is in, in ../lib from there,
 * beside the running program, in ../lib from there, and where the loader looks.
 * A mopt that was built without CUDA has no plug-in of its own and takes only one
 * that is named. Once found it stays loaded: the loader keeps count, this file
 * keeps nothing. */
#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/plugin.h"

/* The plug-in at path; NULL, and why. */
static const struct mo_backend *load_from(const char *path, char *why, size_t why_bytes)
{
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!plugin) {
        snprintf(why, why_bytes, "%s", dlerror());
        return NULL;
    }
    mo_plugin_fn *give;
    *(void **)&give = dlsym(plugin, MO_PLUGIN_SYMBOL);
    const struct mo_backend *table = give ? give(MO_PLUGIN_SIGNATURE) : NULL;
    if (!give)
        snprintf(why, why_bytes, "'%s' is no plug-in of mopt", path);
    else if (!table)
        snprintf(why, why_bytes, "'%s' belongs to another build of mopt", path);
    dlclose(plugin);        /* RTLD_NODELETE: the table stays where it is */
    return table;
}

/* The plug-in's file as $MOPT_CUDA_PLUGIN gives it; NULL: not named. */
static const char *named_plugin(void)
{
    const char *named = getenv("MOPT_CUDA_PLUGIN");
    return named && named[0] ? named : NULL;
}

#if MOPT_WITH_CUDA
/* The plug-in in the folder of `file` or in ../lib from there. Files that are not there are passed over. */
static const struct mo_backend *load_beside(const char *file, char *why, size_t why_bytes)
{
    static const char *const folders[] = { "", "../lib/" };
    char real[PATH_MAX], path[PATH_MAX + 64];
    if (!realpath(file, real))
        return NULL;
    *(strrchr(real, '/') + 1) = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s%s" MO_PLUGIN_FILE, real, folders[i]);
        const struct mo_backend *table = access(path, F_OK) ? NULL : load_from(path, why, why_bytes);
        if (table)
            return table;
    }
    return NULL;
}

static const struct mo_backend *search(char *why, size_t why_bytes)
{
    Dl_info self;
    const struct mo_backend *table = NULL;
    why[0] = 0;
    if (dladdr(__extension__ (const void *)search, &self) && self.dli_fname)
        table = load_beside(self.dli_fname, why, why_bytes);
    if (!table && !why[0])
        table = load_beside("/proc/self/exe", why, why_bytes);
    /* one that is there and does not load is not passed over for another */
    return table || why[0] ? table : load_from(MO_PLUGIN_FILE, why, why_bytes);
}
#endif

static const struct mo_backend *load(char *why, size_t why_bytes)
{
    if (named_plugin())
        return load_from(named_plugin(), why, why_bytes);
#if MOPT_WITH_CUDA
    return search(why, why_bytes);
#else
    snprintf(why, why_bytes, "this mopt was built without CUDA (make CUDA=1)");
    return NULL;
#endif
}

bool mo_cuda_has_driver(void)
{
    if (named_plugin() || !MOPT_WITH_CUDA)
        return named_plugin();
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver)
        dlclose(driver);
    return driver;
}

static struct mo_device *open_none(int index, int n_threads, char *why, size_t why_bytes)
{
    char reason[PATH_MAX + 128];
    const struct mo_backend *table = load(reason, sizeof reason);
    if (table)      /* it has come since */
        snprintf(why, why_bytes, "cuda: the plug-in was not there at first; start again");
    else
        snprintf(why, why_bytes, "cuda: no plug-in: %s", reason);
    (void)index, (void)n_threads;
    return NULL;
}

static const struct mo_backend none = { .name = "cuda", .open = open_none };

const struct mo_backend *mo_cuda_backend(void)
{
    char why[256];
    const struct mo_backend *table = load(why, sizeof why);
    return table ? table : &none;
}

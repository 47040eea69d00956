/* onednn.c - finding and loading oneDNN. */
#include "kernels/cpu/onednn.h"

#include <dlfcn.h>
#include <pthread.h>

static struct mo_onednn library;
static bool is_loaded;
static enum mo_isa wanted_isa;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local bool has_entered;

static bool resolve(void *handle)
{
#define X(name)                                                   \
    *(void **)&library.name = dlsym(handle, "dnnl_" #name);       \
    if (!library.name)                                            \
        return false;
    MO_ONEDNN_FUNCTIONS(X)
#undef X
    *(void **)&library.omp_set_num_threads = dlsym(handle, "omp_set_num_threads");
    return true;
}

static void load(void)
{
    void *handle = dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!handle || !resolve(handle))
        return;
    /* fails harmlessly when somebody else in the process has used the library before */
    if (wanted_isa == MO_ISA_AVX2)
        library.set_max_cpu_isa(dnnl_cpu_isa_avx2);
    else if (wanted_isa == MO_ISA_AVX512)
        library.set_max_cpu_isa(dnnl_cpu_isa_avx512_core);
    else if (wanted_isa == MO_ISA_VNNI)
        library.set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
    is_loaded = library.engine_create(&library.engine, dnnl_cpu, 0) == dnnl_success;
}

const struct mo_onednn *mo_onednn_load(enum mo_isa isa)
{
    wanted_isa = isa;
    pthread_once(&once, load);
    return is_loaded ? &library : NULL;
}

void mo_onednn_enter(const struct mo_onednn *lib)
{
    if (has_entered)
        return;
    has_entered = true;
    if (lib->omp_set_num_threads)
        lib->omp_set_num_threads(1);
}

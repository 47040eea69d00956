/* blas_memory.c - scratch memory of OpenBLAS, one block for each thread.
 *
 * The single-threaded build takes a product's scratch block from a table that has no lock ("USE_LOCKING" is off in
 * Debian's package), so two threads that begin a product at the same moment can be given the same block, and both
 * results are wrong: one in ten pairs of simultaneous calls, measured. The linker's --wrap (in LIBS of the Makefile)
 * sends OpenBLAS's own calls here. A thread asks the table once, under a lock, and keeps its block until it ends. */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

void *__real_blas_memory_alloc(int position);
void __real_blas_memory_free(void *block);
void *__wrap_blas_memory_alloc(int position);
void __wrap_blas_memory_free(void *block);

struct own { void *block; bool is_used; };

static _Thread_local struct own own;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static void free_locked(void *block)
{
    pthread_mutex_lock(&lock);
    __real_blas_memory_free(block);
    pthread_mutex_unlock(&lock);
}

static void *alloc_locked(int position)
{
    pthread_mutex_lock(&lock);
    void *block = __real_blas_memory_alloc(position);
    pthread_mutex_unlock(&lock);
    return block;
}

static void make_key(void)
{
    pthread_key_create(&key, free_locked);
}

void *__wrap_blas_memory_alloc(int position)
{
    if (own.is_used) /* a second block at once */
        return alloc_locked(position);
    if (!own.block) {
        pthread_once(&once, make_key);
        own.block = alloc_locked(position);
        pthread_setspecific(key, own.block);
    }
    own.is_used = own.block != NULL;
    return own.block;
}

void __wrap_blas_memory_free(void *block)
{
    if (block == own.block)
        own.is_used = false;
    else
        free_locked(block);
}

/* torture.c - a verb of mopt with its first allocation failed, then with its second, and so on until it gets through:
 *
 *     torture [-s STRIDE] [-o FILE] VERB ARGUMENT...
 *
 * Each time in a child, in two ways: that allocation alone fails, and that one with all that come after it. All of the
 * process count, also those of libraries, since malloc is this file's. The verb must end with a status and words, leave
 * no FILE, and leave no more blocks than it leaves when it succeeds (under AddressSanitizer, LeakSanitizer looks too);
 * where it got through all the same, FILE must be what it is otherwise. STRIDE n: the steps grow by a 1/n of where they
 * are, so that long runs are sampled. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

int mopt_main(int argc, char **argv);

/* ---- the allocator ------------------------------------------------------------------------ */

#if defined(__SANITIZE_ADDRESS__)
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t n);
void *REAL(calloc)(size_t count, size_t each);
void *REAL(realloc)(void *old, size_t n);
void *REAL(memalign)(size_t align, size_t n);
void REAL(free)(void *mem);

enum { NEVER = -1, MAX_ALLOCATIONS = 1000000, LEAST_ALLOCATIONS = 10, MAX_FAULTS = 5, MAX_STATUS = 6, TIMEOUT_S = 60 };
static atomic_long left = NEVER;        /* allocations until one fails */
static bool fails_on;                   /* and those after it too */
static atomic_long n_live;

static bool must_fail(void)
{
    long n = atomic_load(&left);
    while (n > 0)
        if (atomic_compare_exchange_weak(&left, &n, n - 1))
            return false;
    if (n == 0 && !fails_on)
        return atomic_compare_exchange_strong(&left, &n, NEVER);
    return n == 0;
}

static void *counted(void *mem)
{
    if (mem)
        atomic_fetch_add(&n_live, 1);
    else
        errno = ENOMEM;
    return mem;
}

void *malloc(size_t n)
{
    return counted(must_fail() ? NULL : REAL(malloc)(n));
}

void *calloc(size_t count, size_t each)
{
    return counted(must_fail() ? NULL : REAL(calloc)(count, each));
}

void *realloc(void *old, size_t n)
{
    if (!old)
        return malloc(n);
    if (n && must_fail())
        return NULL;
    void *mem = REAL(realloc)(old, n);
    if (!n)
        atomic_fetch_sub(&n_live, 1);
    return mem;
}

void *aligned_alloc(size_t align, size_t n)
{
    return counted(must_fail() ? NULL : REAL(memalign)(align, n));
}

int posix_memalign(void **mem, size_t align, size_t n)
{
    *mem = aligned_alloc(align, n);
    return *mem ? 0 : ENOMEM;
}

void free(void *mem)
{
    if (mem)
        atomic_fetch_sub(&n_live, 1);
    REAL(free)(mem);
}

/* ---- one run --------------------------------------------------------------------------------- */

struct result { bool ended, is_through; int code; long n_live; };
static struct result *shared;           /* by the child */
static const char *out_path;

static void child(char **arguments, int argc, long fail_at, bool all)
{
    int out = open("torture.out", O_WRONLY | O_CREAT | O_TRUNC, 0600), err = open("torture.err", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0 || err < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
        _exit(99);
    alarm(TIMEOUT_S);
    fails_on = all;
    long before = atomic_load(&n_live);
    atomic_store(&left, fail_at);
    int code = mopt_main(argc, arguments);
    bool is_through = atomic_exchange(&left, NEVER) > 0;
    *shared = (struct result){true, is_through, code, atomic_load(&n_live) - before};
    exit(code);
}

static int run(char **arguments, int argc, long fail_at, bool all)
{
    int status;
    *shared = (struct result){0};
    if (out_path)
        unlink(out_path);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        child(arguments, argc, fail_at, all);
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("torture");
        exit(99);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A file's size and FNV-1a hash; 0: it is not there. */
static uint64_t hash_of(const char *path)
{
    FILE *f = path ? fopen(path, "rb") : NULL;
    uint64_t h = 14695981039346656037u;
    if (!f)
        return 0;
    for (int c; (c = fgetc(f)) != EOF;)
        h = (h ^ (uint64_t)c) * 1099511628211u;
    fclose(f);
    return h;
}

static void complain(char **arguments, long n, bool all, const char *what)
{
    fprintf(stderr, "torture: allocation %ld%s of", n, all ? " and all after it" : "");
    for (char **a = arguments + 1; *a; a++)
        fprintf(stderr, " %s", *a);
    fprintf(stderr, ": %s\n", what);
    (void)!system("tail -30 torture.err >&2");
}

static const char *fault(int code, const struct result *good, uint64_t good_hash)
{
    static char text[160];
    if (!shared->ended || code > MAX_STATUS || code != shared->code) {
        snprintf(text, sizeof text, "ended with %d after returning %d", code, shared->ended ? shared->code : -1);
        return text;
    }
    if (code == 0)
        return hash_of(out_path) != good_hash ? "succeeded with another output" : NULL;
    if (shared->n_live > good->n_live) {
        snprintf(text, sizeof text, "left %ld blocks, a success leaves %ld", shared->n_live, good->n_live);
        return text;
    }
    uint64_t there = hash_of(out_path); /* a report that fails behind it does not undo a whole output */
    if (there && there != good_hash)
        return "failed and left half an output";
    FILE *f = fopen("torture.err", "rb");
    int first = f ? fgetc(f) : EOF;
    if (f)
        fclose(f);
    return first == EOF ? "failed without a word" : NULL;
}

static long torture(char **arguments, int argc, long stride, bool all)
{
    long n_failed = 0;
    int code = run(arguments, argc, NEVER, false);
    const struct result good = *shared;
    const uint64_t good_hash = hash_of(out_path);
    if (code) {
        complain(arguments, NEVER, all, "fails by itself");
        return 1;
    }
    for (long n = 0; n_failed < MAX_FAULTS && n < MAX_ALLOCATIONS; n += stride ? 1 + n / stride : 1) {
        code = run(arguments, argc, n, all);
        const char *why = fault(code, &good, good_hash);
        if (why) {
            complain(arguments, n, all, why);
            n_failed++;
        } else if (shared->is_through) {
            printf("%s: %ld allocations%s: a status each\n", arguments[1], n, all ? " and all after" : "");
            return n_failed + (n < LEAST_ALLOCATIONS);
        }
    }
    return n_failed;
}

int main(int argc, char **argv)
{
    long stride = 0, n_failed = 0;
    int option;
    while ((option = getopt(argc, argv, "+s:o:")) != -1) {
        if (option == 's')
            stride = atol(optarg);
        else if (option == 'o')
            out_path = optarg;
        else
            return 2;
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || optind >= argc)
        return 2;
    argv += optind - 1;
    argc -= optind - 1;
    static char name[] = "mopt";
    argv[0] = name;
    for (int all = 0; all < 2; all++)
        n_failed += torture(argv, argc, stride, all);
    unlink("torture.out");
    unlink("torture.err");
    return n_failed != 0;
}

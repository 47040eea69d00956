/* mopt.h - read a model, change it, measure it, write it back.
 *
 *     struct mopt_ctx *ctx = mopt_open("cpu", 0);
 *     struct mopt_recipe *recipe = NULL;
 *     struct mopt_model *model = NULL;
 *     if (!ctx || mopt_model_read(ctx, "in.onnx", &model) ||
 *         mopt_recipe_new(ctx, &recipe) ||
 *         mopt_recipe_add(ctx, recipe, "prune") ||
 *         mopt_recipe_set(ctx, recipe, "amount", "0.5") ||
 *         mopt_apply(ctx, recipe, model, NULL, 0, NULL) ||
 *         mopt_model_write(ctx, model, "out.onnx", 0))
 *             fprintf(stderr, "%s\n", ctx ? mopt_error(ctx) : "out of memory");
 *     mopt_recipe_free(recipe), mopt_model_free(model), mopt_close(ctx);
 *
 * Every function that can fail returns a status, 0 when it worked; the words
 * are in the context. A context serves one thread. What a function called
 * _new, _open or _read gives out, the caller frees. The library never prints
 * and never exits; files are opened only where a path is given to it. */
#ifndef MOPT_H
#define MOPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#define MOPT_VERSION "0.1.0"

/* The one list of outcomes. Name, exit code of the program, words. */
#define MOPT_STATUS_LIST(X)                                     \
    X(OK, 0, "ok")                                              \
    X(FAILED, 1, "failed")                                      \
    X(USAGE, 2, "wrong usage or recipe")                        \
    X(GATE, 3, "a gate failed")                                 \
    X(UNSUPPORTED, 4, "unsupported operator or model")          \
    X(DATA, 5, "bad data")                                      \
    X(LIMIT, 6, "out of memory or over a limit")                \
    X(INTERRUPTED, 130, "interrupted")

enum mopt_status {
#define X(name, code, text) MOPT_##name = code,
    MOPT_STATUS_LIST(X)
#undef X
};

#if defined(__GNUC__)
#define MOPT_MUST_CHECK __attribute__((warn_unused_result))
#define MOPT_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define MOPT_MUST_CHECK
#define MOPT_PRINTF(f, a)
#endif

struct mopt_ctx;
struct mopt_model;
struct mopt_recipe;
struct mopt_report;

/* ---- context ---------------------------------------------------------- */

/* device: "cpu", "cuda", "cuda:1" or "auto". n_threads 0: as many as the
 * machine grants this process (affinity and cgroup). NULL when out of memory;
 * a device that cannot be had is said by the first call that needs it. */
struct mopt_ctx *mopt_open(const char *device, int n_threads);
void mopt_close(struct mopt_ctx *ctx);
/* Changes of mind before the first work: device NULL, threads 0, bytes 0 keep what is there. max_memory_bytes
 * bounds what a model or a shape may make the library allocate (three quarters of the memory granted). */
MOPT_MUST_CHECK enum mopt_status mopt_configure(struct mopt_ctx *ctx, const char *device, int n_threads,
                                                uint64_t max_memory_bytes);

/* Joins the ranks that a launcher (mpirun, srun) started with this process; nothing without one. After mopt_configure and
 * before the first work. Passes that train or read data then share them; rank 0 alone writes files. The default number
 * of threads is divided among the ranks of a machine. */
MOPT_MUST_CHECK enum mopt_status mopt_join(struct mopt_ctx *ctx);
int mopt_rank(const struct mopt_ctx *ctx);
int mopt_n_ranks(const struct mopt_ctx *ctx);
/* Waits for the other ranks and leaves them. A rank that failed alone calls `say`, once, and ends the processes of all
 * of them when they do not come to their end too; it does not return then. Gives the status to end with: a failure of
 * any rank. */
enum mopt_status mopt_leave(struct mopt_ctx *ctx, enum mopt_status status, void (*say)(void *user), void *user);
/* The rank of this process by its environment, before anything is joined; 0 without a launcher. */
int mopt_launched_rank(void);

/* Where a run that is stopped (mopt_stop) leaves its checkpoint when its recipe names none. The text must live as
 * long as the context; NULL: nowhere. */
void mopt_rescue(struct mopt_ctx *ctx, const char *path_or_null);

/* The sentence that belongs to the last failure; never NULL. */
const char *mopt_error(const struct mopt_ctx *ctx);
const char *mopt_status_text(enum mopt_status status);
/* Forget the last failure, so that the context can be used again. */
void mopt_clear(struct mopt_ctx *ctx);

enum mopt_event_kind { MOPT_EVENT_LOG, MOPT_EVENT_WARNING, MOPT_EVENT_PROGRESS };

/* What long work tells. Progress: `done` of `total` in `unit`, and text such
 * as "loss 0.31". Strings are valid during the call only. */
struct mopt_event {
    enum mopt_event_kind kind;
    const char *phase;      /* "train", "calibrate", ... */
    const char *text;
    double done, total;     /* progress only; total 0: unknown */
    const char *unit;       /* "sample", "node", ... */
};
typedef void mopt_event_fn(void *user, const struct mopt_event *event);
void mopt_on_event(struct mopt_ctx *ctx, mopt_event_fn *fn, void *user);

/* Ask running work to stop at its next safe point (it then returns
 * MOPT_INTERRUPTED, checkpoint written). Async-signal-safe. */
void mopt_stop(struct mopt_ctx *ctx);

/* ---- models ----------------------------------------------------------- */

enum mopt_model_format { MOPT_FORMAT_ONNX };
enum { MOPT_WRITE_OVERWRITE = 1, MOPT_WRITE_EXTERNAL = 2 };

MOPT_MUST_CHECK enum mopt_status mopt_model_read(struct mopt_ctx *ctx, const char *path,
                                                 struct mopt_model **model);
/* path "-" is stdin. The same from memory; the bytes are copied where needed. External data is refused. */
MOPT_MUST_CHECK enum mopt_status mopt_model_parse(struct mopt_ctx *ctx, const void *bytes, size_t n_bytes,
                                                  struct mopt_model **model);
/* Writes to a temporary name in the same folder, flushes, renames. "-" is
 * stdout. An existing file is refused without MOPT_WRITE_OVERWRITE.
 * MOPT_WRITE_EXTERNAL puts large tensors into PATH.data. */
MOPT_MUST_CHECK enum mopt_status mopt_model_write(struct mopt_ctx *ctx, const struct mopt_model *model,
                                                  const char *path, unsigned flags);
void mopt_model_free(struct mopt_model *model);

/* A new untrained model; spec is a JSON text, see docs/CREATE.md, or
 * {"family": "lenet5", "input": [1,28,28], "classes": 10}. */
MOPT_MUST_CHECK enum mopt_status mopt_model_create(struct mopt_ctx *ctx, const char *spec_json, uint64_t seed,
                                                   struct mopt_model **model);

/* ---- recipes ---------------------------------------------------------- */

MOPT_MUST_CHECK enum mopt_status mopt_recipe_new(struct mopt_ctx *ctx, struct mopt_recipe **recipe);
MOPT_MUST_CHECK enum mopt_status mopt_recipe_read(struct mopt_ctx *ctx, const char *path,
                                                  struct mopt_recipe **recipe);
/* The recipe and the path of the model that a training checkpoint belongs to, set to go on from there. The
 * caller frees both (mopt_text_free). */
MOPT_MUST_CHECK enum mopt_status mopt_recipe_resume(struct mopt_ctx *ctx, const char *checkpoint,
                                                    struct mopt_recipe **recipe, char **model_path);
/* Append a step; later mopt_recipe_set calls belong to it. Before the first
 * step, and for keys that are not the step's own (data, seed, gates, ...),
 * set speaks of the whole job. Values are checked here, at once. */
MOPT_MUST_CHECK enum mopt_status mopt_recipe_add(struct mopt_ctx *ctx, struct mopt_recipe *recipe, const char *pass);
MOPT_MUST_CHECK enum mopt_status mopt_recipe_set(struct mopt_ctx *ctx, struct mopt_recipe *recipe,
                                                 const char *key, const char *value);
/* What `over` says of the whole job holds over what the recipe says. */
MOPT_MUST_CHECK enum mopt_status mopt_recipe_override(struct mopt_ctx *ctx, struct mopt_recipe *recipe,
                                                      const struct mopt_recipe *over);
/* The recipe as JSON text; the caller frees it with mopt_text_free. */
MOPT_MUST_CHECK enum mopt_status mopt_recipe_text(struct mopt_ctx *ctx, const struct mopt_recipe *recipe, char **text);
/* Everything that can be wrong with a recipe as a whole: a step without data, an option that has no effect beside the
 * others, a gate with nothing to judge. mopt_apply asks this first. */
MOPT_MUST_CHECK enum mopt_status mopt_recipe_check(struct mopt_ctx *ctx, const struct mopt_recipe *recipe);
void mopt_recipe_free(struct mopt_recipe *recipe);
void mopt_text_free(char *text);

/* Names for reports: of the model itself (i 0) and of the others beside it. */
MOPT_MUST_CHECK enum mopt_status mopt_recipe_name(struct mopt_ctx *ctx, struct mopt_recipe *recipe, size_t i,
                                                  const char *name);
/* What the report calls the job where that is not its one pass; the text must live as long as the recipe. */
void mopt_recipe_verb(struct mopt_recipe *recipe, const char *verb);
/* Run the steps on the model, which they change in place. `others` are models
 * beside it (bench, diff); may be NULL.
 * The report, when asked for, is given out also when a step failed. After a
 * failure the model may only be freed, except for MOPT_GATE, where it is whole.
 * model NULL, after it could not be read: nothing runs, and the report tells that failure. */
MOPT_MUST_CHECK enum mopt_status mopt_apply(struct mopt_ctx *ctx, const struct mopt_recipe *recipe,
                                            struct mopt_model *model,
                                            struct mopt_model *const *others, size_t n_others,
                                            struct mopt_report **report);

/* ---- reports: a tree of values ------------------------------------------ */

enum mopt_kind { MOPT_NULL, MOPT_BOOL, MOPT_INT, MOPT_NUMBER, MOPT_TEXT, MOPT_LIST, MOPT_OBJECT };
/* Look up by path, "totals.parameters" or "models.0.latency_ms.median"; NULL
 * where there is none. The tree keeps ownership. */
const struct mopt_report *mopt_report_at(const struct mopt_report *report, const char *path);
enum mopt_kind mopt_report_kind(const struct mopt_report *report);
double mopt_report_number(const struct mopt_report *report, double otherwise);      /* also ints and bools */
int64_t mopt_report_int(const struct mopt_report *report, int64_t otherwise);
const char *mopt_report_text(const struct mopt_report *report, const char *otherwise);
size_t mopt_report_count(const struct mopt_report *report);                         /* items of a list or object */
const struct mopt_report *mopt_report_item(const struct mopt_report *report, size_t i);
const char *mopt_report_key(const struct mopt_report *report, size_t i);            /* of an object's item */
/* As JSON; the caller frees with mopt_text_free. NULL: out of memory. */
char *mopt_report_json(const struct mopt_report *report);
/* One self-contained HTML page from JSON reports (texts). */
MOPT_MUST_CHECK enum mopt_status mopt_report_html(struct mopt_ctx *ctx, const char *const *json, size_t n,
                                                  char **html);
/* The report of a job that failed before it began: on the command line, in the recipe's file. */
MOPT_MUST_CHECK enum mopt_status mopt_report_failure(struct mopt_ctx *ctx, const char *verb, enum mopt_status status,
                                                     const char *words, struct mopt_report **report);
/* Adds to the report's files where the model was written to, with size and hash (XXH64) of that file. */
MOPT_MUST_CHECK enum mopt_status mopt_report_output(struct mopt_ctx *ctx, struct mopt_report *report, const char *path);
void mopt_report_free(struct mopt_report *report);

/* ---- files, for the program ---------------------------------------------- */

/* Write whole or not at all (temporary name, flush, rename). "-" is stdout. */
MOPT_MUST_CHECK enum mopt_status mopt_file_write(struct mopt_ctx *ctx, const char *path, const void *bytes,
                                                 size_t n_bytes, bool overwrite);
MOPT_MUST_CHECK enum mopt_status mopt_file_read(struct mopt_ctx *ctx, const char *path, char **bytes,
                                                size_t *n_bytes);

/* ---- reflection: what help, man page and completion are made of ----------- */

enum mopt_option_kind {
    MOPT_OPT_BOOL, MOPT_OPT_INT, MOPT_OPT_FLOAT, MOPT_OPT_TEXT, MOPT_OPT_CHOICE,
    MOPT_OPT_LIST,      /* may be given several times: a struct mo_list of texts */
    MOPT_OPT_AMOUNT,    /* 0.5, 50% or a count: struct mo_amount */
    MOPT_OPT_GROUP,     /* the rows of another table, at this offset */
};

/* One option. From this row come the flag, the recipe key, --help, the man
 * page, completion, and the range error. A table ends with a row of zeros. */
struct mopt_option {
    const char *name;               /* words with hyphens */
    enum mopt_option_kind kind;
    size_t offset;                  /* of the field in the pass's options struct */
    double def, min, max;           /* BOOL, INT, FLOAT; min == max: unbounded */
    const char *text_def;           /* TEXT, CHOICE, AMOUNT: default, may be NULL */
    const char *choices;            /* CHOICE: "a|b|c"; the field is an int index */
    const char *word;               /* what stands for the value in help: FILE, N, GLOB */
    const char *help;               /* one line */
    const struct mopt_option *group;
    const char *needs;              /* what must hold for it to have an effect, or giving it is an error: clauses that
                                     * must all hold, "data optimizer=adam|adamw !structured"; see lib/passes/needs.h */
};

struct mopt_pass_info {
    const char *name, *help;
    const struct mopt_option *options;
};
struct mopt_op_info {
    const char *type, *domain;
    int since_opset;
    bool has_forward, has_backward, has_macs, has_couple, has_quant;
};
/* The i-th row of the tables; false past the end. */
bool mopt_pass_at(size_t i, struct mopt_pass_info *info);
bool mopt_op_at(size_t i, struct mopt_op_info *info);
/* Options that belong to the job and not to one pass: data, gates, seed ... */
const struct mopt_option *mopt_job_options(void);
/* Whether an option of the job can have an effect when this pass is the only step. */
bool mopt_pass_takes(const char *pass, const char *option);
/* The one of the words that was probably meant, or NULL. */
const char *mopt_nearest(const char *word, const char *const *words, size_t n_words);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif

/* cli.h - what the verbs share: the parsed command line, running a recipe, printing. */
#ifndef MOPT_CLI_H
#define MOPT_CLI_H

#include <stdio.h>

#include "mopt.h"
#include "cmd/progress.h"

#define MO_CLI_TRY(call)                        \
    do {                                        \
        enum mopt_status try_status_ = (call);  \
        if (try_status_)                        \
            return try_status_;                 \
    } while (0)

struct command;

struct cli {
    const struct command *command;
    struct mopt_ctx *ctx;
    struct mopt_recipe *recipe;
    const char **paths; /* what is no flag, in order */
    size_t n_paths, room_paths;
    const char *out, *report_path, *device;
    const char *resume;     /* the checkpoint, when the verb was told of one */
    char *resume_model;     /* the model it belongs to; ours to free */
    size_t n_options;       /* options of the verb and the job that were given */
    int n_threads;
    uint64_t max_memory_bytes;
    bool has_said; /* the failure's words are out already */
    bool has_report; /* and its report */
    int said_to; /* of a rank that keeps silent: where stderr was; -1 */
    char words[512]; /* of a usage error */
    bool force, json, quiet, verbose, external_data, print_recipe, dry_run, help, list_rules;
    enum progress_mode progress_mode;
    struct progress progress;
    /* flags of a command that has its own table (create): the values, by row */
    const char **own_values;
};

enum command_flags {
    CMD_WRITES_MODEL = 1,   /* needs -o, refuses to overwrite */
    CMD_MAY_WRITE = 2,      /* takes -o */
    CMD_OWN_OPTIONS = 4,    /* options in `own`, not of a pass */
    CMD_NO_MODEL = 8,       /* the first path is no model: run() reads what it needs */
    CMD_RANKS = 16,         /* ranks share the work; else rank 0 does it alone */
    CMD_ONE_PROCESS = 32,   /* measures: refused beside other ranks */
    CMD_LISTS_RULES = 64,   /* its pass is made of switches that can be listed */
};

/* A verb: a row of the table in main.c. */
struct command {
    const char *name, *help, *usage;
    const char *pass;                   /* the recipe's one step; NULL: none yet */
    unsigned flags;
    size_t min_paths, max_paths;
    const struct mopt_option *own;
    enum mopt_status (*run)(struct cli *);                                  /* NULL: run_pass */
    void (*print)(struct cli *, const struct mopt_report *);                /* text for stdout; NULL: before/after */
    const char *examples;
};
extern const struct command *const commands[];

/* Words for a usage error; returns MOPT_USAGE. */
MOPT_PRINTF(2, 3) enum mopt_status cli_usage(struct cli *cli, const char *fmt, ...);
/* Read models, apply the recipe, print, write: the whole of most verbs. paths[0] is the model. */
MOPT_MUST_CHECK enum mopt_status cli_run_recipe(struct cli *cli, const char *const *paths, size_t n_paths);
MOPT_MUST_CHECK enum mopt_status cli_write_model(struct cli *cli, const struct mopt_model *model);
/* --json and --report. */
MOPT_MUST_CHECK enum mopt_status cli_give_report(struct cli *cli, const struct mopt_report *report);
/* Whether --report can be written, before any work. */
MOPT_MUST_CHECK enum mopt_status cli_check_report(struct cli *cli);
/* The same of a job that failed before it began; nothing when its report is out already. */
MOPT_MUST_CHECK enum mopt_status cli_report_failure(struct cli *cli, enum mopt_status status);
/* The value given to a command's own option, or NULL. */
const char *cli_own(const struct cli *cli, const char *name);
void cli_help(const struct command *command, FILE *to);
void cli_overview(FILE *to);

/* print.c */
void print_before_after(struct cli *cli, const struct mopt_report *report);
void print_metrics(const struct mopt_report *metrics, FILE *to);
void print_gates(const struct mopt_report *report, FILE *to);
/* "4.38 M", "12.3 kB" */
const char *human_count(double x, char *buf, size_t buf_bytes);
const char *human_bytes(double x, char *buf, size_t buf_bytes);

enum mopt_status cmd_create(struct cli *cli);
enum mopt_status cmd_run(struct cli *cli);
enum mopt_status cmd_report(struct cli *cli);
void print_eval(struct cli *, const struct mopt_report *);
void print_inspect(struct cli *, const struct mopt_report *);
void print_bench(struct cli *, const struct mopt_report *);
void print_diff(struct cli *, const struct mopt_report *);
void print_nothing(struct cli *, const struct mopt_report *);
extern const struct mopt_option create_options[];

#endif

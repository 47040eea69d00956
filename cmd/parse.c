/* parse.c - words to flags. Flags of passes are handed to the recipe as they are; this
 * file knows only the flags that every verb shares, in one table. */
#include "cmd/parse.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- flags that every verb shares --------------------------------------------- */

enum shared_kind { SHARED_BOOL, SHARED_TEXT, SHARED_INT, SHARED_PROGRESS, SHARED_BYTES };
struct shared {
    const char *name;
    char letter;
    enum shared_kind kind;
    size_t offset;
    const char *word, *help;
    unsigned not_for;       /* flags of commands that have no use for it */
    unsigned only_for;      /* flags of those that do; 0: all */
};
#define AT(field) offsetof(struct cli, field)
static const struct shared shared_flags[] = {
    {"output", 'o', SHARED_TEXT, AT(out), "FILE", "where the result goes; - is stdout"},
    {"force", 'f', SHARED_BOOL, AT(force), NULL, "overwrite an existing output"},
    {"external-data", 0, SHARED_BOOL, AT(external_data), NULL, "put large tensors into OUTPUT.data"},
    {"json", 0, SHARED_BOOL, AT(json), NULL, "the result on stdout as one JSON object", CMD_MAY_WRITE},
    {"report", 0, SHARED_TEXT, AT(report_path), "FILE", "write the JSON report there, also after a failure", CMD_MAY_WRITE},
    {"print-recipe", 0, SHARED_BOOL, AT(print_recipe), NULL, "print the recipe equal to these flags and stop",
     CMD_MAY_WRITE | CMD_OWN_OPTIONS},
    {"device", 0, SHARED_TEXT, AT(device), "NAME", "cpu, cuda, cuda:N or auto"},
    {"threads", 0, SHARED_INT, AT(n_threads), "N", "threads; 0: as many as are granted"},
    {"max-memory", 0, SHARED_BYTES, AT(max_memory_bytes), "SIZE", "refuse to use more (2GB)"},
    {"progress", 0, SHARED_PROGRESS, AT(progress_mode), "HOW", "auto, bar, plain, json or none"},
    {"quiet", 'q', SHARED_BOOL, AT(quiet), NULL, "no progress, no logs; warnings only"},
    {"verbose", 'v', SHARED_BOOL, AT(verbose), NULL, "logs too"},
    {"dry-run", 'n', SHARED_BOOL, AT(dry_run), NULL, "say what would be done; write nothing", CMD_MAY_WRITE},
    {"list-rules", 0, SHARED_BOOL, AT(list_rules), NULL, "print the rules in their order, each with its flag, and stop", 0, CMD_LISTS_RULES},
    {"help", 'h', SHARED_BOOL, AT(help), NULL, "this text"},
    {NULL}};

enum mopt_status cli_usage(struct cli *cli, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(cli->words, sizeof cli->words, fmt, args);
    va_end(args);
    fprintf(stderr, "mopt%s%s: %s\n", cli->command ? " " : "", cli->command ? cli->command->name : "", cli->words);
    fprintf(stderr, "try: mopt %s%s--help\n", cli->command ? cli->command->name : "", cli->command ? " " : "");
    cli->has_said = true;
    return MOPT_USAGE;
}

static const struct shared *find_shared(const char *name, size_t n, char letter)
{
    for (const struct shared *f = shared_flags; f->name; f++)
        if (letter ? f->letter == letter : strlen(f->name) == n && !memcmp(f->name, name, n))
            return f;
    return NULL;
}

static bool parse_size(const char *text, uint64_t *bytes)
{
    static const struct { const char *name; double factor; } units[] = {
        {"", 1}, {"B", 1}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
    char *end;
    double x = strtod(text, &end);
    for (size_t i = 0; end != text && i < sizeof units / sizeof *units; i++)
        if (!strcmp(end, units[i].name) && x > 0 && x * units[i].factor < 1e18) {
            *bytes = (uint64_t)(x * units[i].factor);
            return true;
        }
    return false;
}

static enum mopt_status no_such_progress(struct cli *cli, const char *value, const char *const *modes, size_t n)
{
    const char *near = mopt_nearest(value, modes, n);
    return cli_usage(cli, "option 'progress': '%s' is none of auto, bar, plain, json, none%s%s%s", value,
                     near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static enum mopt_status set_shared(struct cli *cli, const struct shared *f, const char *value, bool yes)
{
    void *field = (char *)cli + f->offset;
    static const char *const modes[] = {"auto", "bar", "plain", "json", "none"};
    char *end;
    if (f->not_for & cli->command->flags || (f->only_for && !(f->only_for & cli->command->flags)))
        return cli_usage(cli, "option '%s' does nothing here: leave it out", f->name);
    switch (f->kind) {
    case SHARED_BOOL:
        *(bool *)field = yes;
        return MOPT_OK;
    case SHARED_TEXT:
        *(const char **)field = value;
        return MOPT_OK;
    case SHARED_INT:
        *(int *)field = (int)strtol(value, &end, 10);
        if (end == value || *end || *(int *)field < 0 || *(int *)field > 4096)
            return cli_usage(cli, "option '%s': '%s' is no number of threads", f->name, value);
        return MOPT_OK;
    case SHARED_BYTES:
        if (!parse_size(value, field))
            return cli_usage(cli, "option '%s': '%s' is not like 500MB or 2GiB", f->name, value);
        return MOPT_OK;
    case SHARED_PROGRESS:
        for (int i = 0; i < 5; i++)
            if (!strcmp(value, modes[i])) {
                *(enum progress_mode *)field = (enum progress_mode)i;
                return MOPT_OK;
            }
        return no_such_progress(cli, value, modes, 5);
    }
    return MOPT_FAILED;
}

/* ---- flags of the tables --------------------------------------------------------- */

static const struct mopt_option *find_row(const struct mopt_option *table, const char *name, size_t n)
{
    for (const struct mopt_option *row = table; row && row->name; row++) {
        const struct mopt_option *inner = row->kind == MOPT_OPT_GROUP ? find_row(row->group, name, n) : NULL;
        if (inner)
            return inner;
        if (row->kind != MOPT_OPT_GROUP && strlen(row->name) == n && !memcmp(row->name, name, n))
            return row;
    }
    return NULL;
}

static const struct mopt_option *pass_options(const char *pass)
{
    struct mopt_pass_info info;
    for (size_t i = 0; pass && mopt_pass_at(i, &info); i++)
        if (!strcmp(info.name, pass))
            return info.options;
    return NULL;
}

/* What a flag means: an option of the verb, else a shared flag, else one of the job's. */
static void find_flag(const struct cli *cli, const char *name, size_t n, const struct mopt_option **row,
                      const struct shared **f)
{
    const struct command *c = cli->command;
    bool has_own = c->flags & CMD_OWN_OPTIONS;
    *row = find_row(has_own ? c->own : pass_options(c->pass), name, n);
    *f = *row ? NULL : find_shared(name, n, 0);
    if (!*row && !*f && !has_own)
        *row = find_row(mopt_job_options(), name, n);
}

static enum mopt_status set_option(struct cli *cli, const struct mopt_option *row, const char *value)
{
    if (cli->command->flags & CMD_OWN_OPTIONS) {
        cli->own_values[row - cli->command->own] = value;
        return MOPT_OK;
    }
    cli->n_options++;
    if (!strcmp(row->name, "resume"))
        cli->resume = value;
    return mopt_recipe_set(cli->ctx, cli->recipe, row->name, value);
}

/* --resume FILE and no model: everything but the output is in the checkpoint. */
static enum mopt_status resume_alone(struct cli *cli)
{
    if (!cli->resume || cli->n_paths)
        return MOPT_OK;
    if (cli->n_options > 1)
        return cli_usage(cli, "--resume without a model takes all options from the checkpoint: give none, or the model too");
    mopt_recipe_free(cli->recipe);
    cli->recipe = NULL;
    MO_CLI_TRY(mopt_recipe_resume(cli->ctx, cli->resume, &cli->recipe, &cli->resume_model));
    cli->paths[cli->n_paths++] = cli->resume_model;
    return MOPT_OK;
}

/* ---- the words ---------------------------------------------------------------------- */

struct words { char **argv; int argc, at; };

/* The flag's value: behind '=', or the next word. */
static enum mopt_status take_value(struct cli *cli, struct words *w, const char *name, int n, const char *equals,
                                   const char **value)
{
    if (equals)
        *value = equals + 1;
    else if (w->at + 1 < w->argc)
        *value = w->argv[++w->at];
    else
        return cli_usage(cli, "option '%.*s' needs a value", n, name);
    return MOPT_OK;
}

enum { MAX_NAMES = 256 };

static size_t add_names(const struct mopt_option *table, const char **names, size_t n)
{
    for (const struct mopt_option *row = table; row && row->name && n < MAX_NAMES; row++) {
        if (row->kind == MOPT_OPT_GROUP)
            n = add_names(row->group, names, n);
        else
            names[n++] = row->name;
    }
    return n;
}

static enum mopt_status unknown_flag(struct cli *cli, const char *name, int n)
{
    char key[64];
    const char *names[MAX_NAMES];
    bool has_own = cli->command->flags & CMD_OWN_OPTIONS;
    size_t n_names = add_names(has_own ? cli->command->own : pass_options(cli->command->pass), names, 0);
    n_names = has_own ? n_names : add_names(mopt_job_options(), names, n_names);
    for (const struct shared *f = shared_flags; f->name && n_names < MAX_NAMES; f++)
        names[n_names++] = f->name;
    snprintf(key, sizeof key, "%.*s", n, name);
    const char *near = mopt_nearest(key, names, n_names);
    return near ? cli_usage(cli, "there is no option '--%s'; did you mean '--%s'?", key, near)
                : cli_usage(cli, "there is no option '--%s'", key);
}

static enum mopt_status parse_long(struct cli *cli, struct words *w, const char *name)
{
    const char *equals = strchr(name, '='), *value = NULL;
    int n = equals ? (int)(equals - name) : (int)strlen(name);
    const struct mopt_option *row;
    const struct shared *f;
    find_flag(cli, name, (size_t)n, &row, &f);
    bool negated = false;
    if (!row && !f && n > 3 && !memcmp(name, "no-", 3)) {
        find_flag(cli, name + 3, (size_t)n - 3, &row, &f);
        negated = true;
        bool is_bool = row ? row->kind == MOPT_OPT_BOOL : f && f->kind == SHARED_BOOL;
        if (!is_bool || equals)
            return unknown_flag(cli, name, n);
    }
    if (row) {
        if (row->kind == MOPT_OPT_BOOL)
            return set_option(cli, row, negated ? "false" : equals ? equals + 1 : "true");
        MO_CLI_TRY(take_value(cli, w, name, n, equals, &value));
        return set_option(cli, row, value);
    }
    if (!f)
        return unknown_flag(cli, name, n);
    if (f->kind == SHARED_BOOL && equals)
        return cli_usage(cli, "option '%s' takes no value", f->name);
    if (f->kind != SHARED_BOOL)
        MO_CLI_TRY(take_value(cli, w, name, n, equals, &value));
    return set_shared(cli, f, value, !negated);
}

static enum mopt_status parse_short(struct cli *cli, struct words *w, const char *letters)
{
    for (; *letters; letters++) {
        const struct shared *f = find_shared(NULL, 0, *letters);
        if (!f)
            return cli_usage(cli, "there is no option '-%c'", *letters);
        const struct mopt_option *row; /* a verb may have an option of its own by that name */
        const struct shared *same;
        find_flag(cli, f->name, strlen(f->name), &row, &same);
        if (row ? row->kind == MOPT_OPT_BOOL : f->kind == SHARED_BOOL) {
            MO_CLI_TRY(row ? set_option(cli, row, "true") : set_shared(cli, f, NULL, true));
            continue;
        }
        const char *value = letters[1] ? letters + 1 : w->at + 1 < w->argc ? w->argv[++w->at] : NULL;
        if (!value)
            return cli_usage(cli, "option '-%c' needs a value", *letters);
        return row ? set_option(cli, row, value) : set_shared(cli, f, value, true);
    }
    return MOPT_OK;
}

static enum mopt_status parse_words(struct cli *cli, struct words *w)
{
    bool only_paths = false;
    for (; w->at < w->argc; w->at++) {
        const char *word = w->argv[w->at];
        if (!only_paths && !strcmp(word, "--"))
            only_paths = true;
        else if (!only_paths && word[0] == '-' && word[1] == '-')
            MO_CLI_TRY(parse_long(cli, w, word + 2));
        else if (!only_paths && word[0] == '-' && word[1])
            MO_CLI_TRY(parse_short(cli, w, word + 1));
        else
            cli->paths[cli->n_paths++] = word;
    }
    return MOPT_OK;
}

/* Behind a word that is wrong: a report that is asked for is given all the same. */
static void find_report(struct cli *cli, const struct words *w)
{
    for (int i = w->at; i < w->argc && !(cli->command->flags & CMD_MAY_WRITE); i++) {
        const char *word = w->argv[i];
        if (!strcmp(word, "--json"))
            cli->json = true;
        else if (!strncmp(word, "--report=", 9))
            cli->report_path = word + 9;
        else if (!strcmp(word, "--report") && i + 1 < w->argc)
            cli->report_path = w->argv[i + 1];
    }
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; commands[i]; i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

static const char *near_command(const char *name)
{
    const char *names[MAX_NAMES];
    size_t n = 0;
    for (; commands[n] && n < MAX_NAMES; n++)
        names[n] = commands[n]->name;
    return mopt_nearest(name, names, n);
}

static void list_ops(void)
{
    struct mopt_op_info op;
    printf("%-28s %-12s %5s  forward backward macs couple quant\n", "operator", "domain", "since");
    for (size_t i = 0; mopt_op_at(i, &op); i++)
        printf("%-28s %-12s %5d  %-7s %-8s %-4s %-6s %s\n", op.type, op.domain && *op.domain ? op.domain : "ai.onnx",
               op.since_opset, op.has_forward ? "yes" : "-", op.has_backward ? "yes" : "-", op.has_macs ? "yes" : "-",
               op.has_couple ? "yes" : "-", op.has_quant ? "yes" : "-");
}

/* Of a verb whose switches are its rules. */
static void list_rules(const struct command *c)
{
    for (const struct mopt_option *row = pass_options(c->pass); row && row->name; row++)
        if (row->kind == MOPT_OPT_BOOL)
            printf("%-20s %s%-*s %s\n", row->name, row->def != 0 ? "--no-" : "--", row->def != 0 ? 18 : 21, row->name, row->help);
}

static enum mopt_status open_context(struct cli *cli)
{
    cli->ctx = mopt_open("auto", 0);
    if (!cli->ctx) {
        fprintf(stderr, "mopt: out of memory\n");
        return MOPT_LIMIT;
    }
    MO_CLI_TRY(mopt_recipe_new(cli->ctx, &cli->recipe));
    if (cli->command->pass)
        return mopt_recipe_add(cli->ctx, cli->recipe, cli->command->pass);
    return MOPT_OK;
}

static enum mopt_status check_paths(struct cli *cli)
{
    const struct command *c = cli->command;
    size_t need = c->min_paths;
    if (cli->n_paths < need)
        return cli_usage(cli, cli->n_paths ? "one more file is needed\nusage: %s" : "which model?\nusage: %s", c->usage);
    if (cli->n_paths > c->max_paths)
        return cli_usage(cli, "'%s' is one file too many\nusage: %s", cli->paths[c->max_paths], c->usage);
    if (c->flags & CMD_WRITES_MODEL && !cli->out && !cli->dry_run && !cli->print_recipe)
        return cli_usage(cli, "where to? add -o OUT.onnx");
    if (!(c->flags & (CMD_WRITES_MODEL | CMD_MAY_WRITE)) && cli->out)
        return cli_usage(cli, "%s writes no file: no -o (but --report FILE)", c->name);
    if (cli->out && !strcmp(cli->out, "/dev/stdout"))
        cli->out = "-";     /* nothing else goes there then */
    if (cli->json && cli->out && !strcmp(cli->out, "-")) {
        cli->json = false;
        return cli_usage(cli, "--json and -o - both want stdout");
    }
    if (cli->report_path && !strcmp(cli->report_path, "-")) {
        cli->report_path = NULL;
        return cli_usage(cli, "--report wants a file; --json gives the report on stdout");
    }
    MO_CLI_TRY(cli_check_report(cli));
    if (cli->force && !cli->out)
        return cli_usage(cli, "-f overwrites an output: add -o FILE, or leave -f out");
    if (cli->external_data && (!(c->flags & CMD_WRITES_MODEL) || !cli->out || !strcmp(cli->out, "-")))
        return cli_usage(cli, "--external-data lies beside a model that is written: add -o FILE, or leave it out");
    if (cli->quiet && cli->verbose)
        return cli_usage(cli, "-q and -v exclude each other");
    return MOPT_OK;
}

enum mopt_status parse_command_line(struct cli *cli, int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "--help";
    if (!strcmp(verb, "--help") || !strcmp(verb, "-h") || (!strcmp(verb, "help") && argc < 3)) {
        cli_overview(argc > 1 ? stdout : stderr);
        return argc > 1 ? MOPT_OK : MOPT_USAGE;
    }
    if (!strcmp(verb, "--version")) {
        printf("mopt %s\n", MOPT_VERSION);
        return MOPT_OK;
    }
    if (!strcmp(verb, "--list-ops")) {
        list_ops();
        return MOPT_OK;
    }
    bool wants_help = !strcmp(verb, "help");
    cli->command = find_command(wants_help ? argv[2] : verb);
    if (!cli->command) {
        const char *near = near_command(wants_help ? argv[2] : verb);
        return near ? cli_usage(cli, "there is no verb '%s'; did you mean '%s'?", verb, near)
                    : cli_usage(cli, "there is no verb '%s'", verb);
    }
    cli->help = wants_help;
    cli->paths = calloc((size_t)argc + 1, sizeof *cli->paths);
    cli->own_values = calloc(64, sizeof *cli->own_values);
    if (!cli->paths || !cli->own_values) {
        fprintf(stderr, "mopt: out of memory\n");
        return MOPT_LIMIT;
    }
    if (wants_help)
        return MOPT_OK;
    MO_CLI_TRY(open_context(cli));
    struct words words = {argv, argc, 2};
    enum mopt_status s = parse_words(cli, &words);
    if (s)
        find_report(cli, &words);
    MO_CLI_TRY(s);
    if (cli->help)
        return MOPT_OK;
    if (cli->list_rules) {
        list_rules(cli->command);
        cli->command = NULL;
        return MOPT_OK;
    }
    MO_CLI_TRY(resume_alone(cli));
    MO_CLI_TRY(check_paths(cli));
    if (cli->dry_run && !(cli->command->flags & CMD_OWN_OPTIONS))
        MO_CLI_TRY(mopt_recipe_set(cli->ctx, cli->recipe, "dry-run", "true"));
    return mopt_configure(cli->ctx, cli->device, cli->n_threads, cli->max_memory_bytes);
}

void release_command_line(struct cli *cli)
{
    mopt_recipe_free(cli->recipe);
    mopt_text_free(cli->resume_model);
    mopt_close(cli->ctx);
    free(cli->paths);
    free(cli->own_values);
}

/* ---- help ------------------------------------------------------------------------------ */

static void help_row(const char *flag, const char *word, const char *help, const char *def, FILE *to)
{
    char left[64];
    snprintf(left, sizeof left, "%s%s%s", flag, word ? " " : "", word ? word : "");
    fprintf(to, "  %-28s %s%s%s%s\n", left, help, def ? " (default " : "", def ? def : "", def ? ")" : "");
}

/* What a row says of its default. Where 0 stands for a choice of our own, that is marked in the text itself. */
static const char *help_default(const struct mopt_option *row, const char *zero, char def[48])
{
    bool is_number = row->kind == MOPT_OPT_INT || row->kind == MOPT_OPT_FLOAT;
    if (row->text_def || !is_number || row->def != row->def || zero)
        return row->text_def;
    snprintf(def, 48, "%g", row->def);
    return def;
}

static void help_option(const struct mopt_option *row, FILE *to)
{
    char flag[48], def[48], help[256];
    bool is_on = row->kind == MOPT_OPT_BOOL && row->def != 0;
    const char *zero = row->def == 0 ? strstr(row->help, "; 0: ") : NULL;
    snprintf(flag, sizeof flag, "--%s%s", is_on ? "no-" : "", row->name);
    if (zero)
        snprintf(help, sizeof help, "%.*s; 0, the default: %s", (int)(zero - row->help), row->help, zero + 5);
    else
        snprintf(help, sizeof help, "%s%s", is_on ? "do not: " : "", row->help);
    const char *word = row->kind == MOPT_OPT_BOOL ? NULL : row->choices ? row->choices : row->word ? row->word : "X";
    help_row(flag, word, help, help_default(row, zero, def), to);
}

/* Of the job's options those that can have an effect in this pass. */
static void help_table(const struct mopt_option *table, const char *pass, FILE *to)
{
    for (const struct mopt_option *row = table; row && row->name; row++) {
        if (row->kind == MOPT_OPT_GROUP)
            help_table(row->group, pass, to);
        else if (!find_shared(row->name, strlen(row->name), 0) && (!pass || mopt_pass_takes(pass, row->name)))
            help_option(row, to);
    }
}

void cli_help(const struct command *c, FILE *to)
{
    fprintf(to, "usage: %s\n\n%s\n", c->usage, c->help);
    const struct mopt_option *own = c->flags & CMD_OWN_OPTIONS ? c->own : pass_options(c->pass);
    if (own && own->name) {
        fprintf(to, "\noptions of %s:\n", c->name);
        help_table(own, NULL, to);
    }
    if (!(c->flags & CMD_OWN_OPTIONS)) {
        fprintf(to, "\ndata, selection, gates:\n");
        help_table(mopt_job_options(), c->pass, to);
    }
    fprintf(to, "\noptions of every verb:\n");
    for (const struct shared *f = shared_flags; f->name; f++) {
        char flag[48];
        if (f->not_for & c->flags || (f->only_for && !(f->only_for & c->flags)))
            continue;
        snprintf(flag, sizeof flag, f->letter ? "-%c, --%s" : "%.0d    --%s", f->letter, f->name);
        help_row(flag, f->word, f->help, NULL, to);
    }
    if (c->examples)
        fprintf(to, "\nexamples:\n%s", c->examples);
}

void cli_overview(FILE *to)
{
    fprintf(to, "usage: mopt VERB IN.onnx [-o OUT.onnx] [options]\n\n");
    for (size_t i = 0; commands[i]; i++)
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->help);
    fprintf(to, "\nmopt VERB --help tells more; mopt --version; mopt --list-ops\n"
                "exit codes: 0 ok, 1 failed, 2 usage, 3 a gate failed, 4 unsupported model, 5 data, 6 memory or limit,\n"
                "130 interrupted\n");
}

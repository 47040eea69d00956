/* cli.c - reading models, running the recipe, printing and writing: what most verbs do. */
#include "cmd/cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *cli_own(const struct cli *cli, const char *name)
{
    for (size_t i = 0; cli->command->own[i].name; i++)
        if (!strcmp(cli->command->own[i].name, name))
            return cli->own_values[i];
    return NULL;
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool can_write_beside(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    int n = snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    return *path && n < (int)sizeof folder && !access(folder, W_OK);
}

/* What would make the writing fail is said before hours of work, not after. */
enum mopt_status cli_check_report(struct cli *cli)
{
    const char *path = cli->report_path;
    if (!path || mopt_launched_rank() || (can_write_beside(path) && (access(path, F_OK) || !access(path, W_OK))))
        return MOPT_OK;
    cli->report_path = NULL;
    return cli_usage(cli, "the report '%s' cannot be written: its folder is not there or is closed to you", path);
}

static enum mopt_status check_output(struct cli *cli, const char *const *paths, size_t n_paths)
{
    if (!cli->out || !strcmp(cli->out, "-") || mopt_launched_rank())
        return MOPT_OK;
    for (size_t i = 0; i < n_paths; i++)
        if (is_same_file(paths[i], cli->out))
            return cli_usage(cli, "'%s' is the input: it is never overwritten; name another output", cli->out);
    struct stat there;
    if (!stat(cli->out, &there) && S_ISDIR(there.st_mode))
        return cli_usage(cli, "'%s' is a folder: name a file in it", cli->out);
    if (!cli->force && !access(cli->out, F_OK))
        return cli_usage(cli, "'%s' exists: add -f to overwrite it", cli->out);
    if (!can_write_beside(cli->out))
        return cli_usage(cli, "the folder of '%s' is not there or cannot be written", cli->out);
    return MOPT_OK;
}

enum mopt_status cli_write_model(struct cli *cli, const struct mopt_model *model)
{
    MO_CLI_TRY(check_output(cli, NULL, 0));
    unsigned flags = (cli->force ? MOPT_WRITE_OVERWRITE : 0u) | (cli->external_data ? MOPT_WRITE_EXTERNAL : 0u);
    MO_CLI_TRY(mopt_model_write(cli->ctx, model, cli->out, flags));
    if (!cli->quiet && !cli->json && strcmp(cli->out, "-"))
        printf("wrote %s\n", cli->out);
    return MOPT_OK;
}

static enum mopt_status print_recipe(struct cli *cli)
{
    char *text = NULL;
    MO_CLI_TRY(mopt_recipe_text(cli->ctx, cli->recipe, &text));
    fputs(text, stdout);
    mopt_text_free(text);
    return MOPT_OK;
}

static enum mopt_status read_models(struct cli *cli, const char *const *paths, size_t n, struct mopt_model **models)
{
    for (size_t i = 0; i < n; i++) {
        MO_CLI_TRY(mopt_recipe_name(cli->ctx, cli->recipe, i, paths[i]));
        MO_CLI_TRY(mopt_model_read(cli->ctx, paths[i], &models[i]));
    }
    return MOPT_OK;
}

/* The report goes out also when the job failed. */
enum mopt_status cli_give_report(struct cli *cli, const struct mopt_report *report)
{
    if (!cli->json && !cli->report_path)
        return MOPT_OK;
    cli->has_report = true;
    char *json = mopt_report_json(report);
    if (!json) {
        fprintf(stderr, "mopt: out of memory for the report\n");
        return MOPT_LIMIT;
    }
    enum mopt_status s = MOPT_OK;
    if (cli->json)
        fputs(json, stdout);
    if (cli->report_path)
        s = mopt_file_write(cli->ctx, cli->report_path, json, strlen(json), true);
    mopt_text_free(json);
    if (s)
        cli->has_said = false;
    return s;
}

enum mopt_status cli_report_failure(struct cli *cli, enum mopt_status status)
{
    if (cli->has_report || !cli->command || !cli->ctx)
        return MOPT_OK;
    char words[1024];
    struct mopt_report *report = NULL;
    snprintf(words, sizeof words, "%s", cli->words[0] ? cli->words : mopt_error(cli->ctx));
    mopt_clear(cli->ctx);
    enum mopt_status s = mopt_report_failure(cli->ctx, cli->command->name, status, words, &report);
    if (!s)
        s = cli_give_report(cli, report);
    mopt_report_free(report);
    return s;
}

static void print_result(struct cli *cli, const struct mopt_report *report, enum mopt_status s)
{
    if (cli->json || (s && s != MOPT_GATE) || (cli->out && !strcmp(cli->out, "-")))
        return;
    if (cli->command->print)
        cli->command->print(cli, report);
    else
        print_before_after(cli, report);
    print_gates(report, stdout);
}

/* Says it now and forgets it, so that what follows can fail with words of its own. */
static void say_error(struct cli *cli)
{
    progress_end(&cli->progress);
    fprintf(stderr, "mopt %s: %s\n", cli->command->name, mopt_error(cli->ctx));
    snprintf(cli->words, sizeof cli->words, "%s", mopt_error(cli->ctx));
    cli->has_said = true;
    mopt_clear(cli->ctx);
}

enum mopt_status cli_run_recipe(struct cli *cli, const char *const *paths, size_t n_paths)
{
    if (cli->print_recipe)
        return print_recipe(cli);
    MO_CLI_TRY(check_output(cli, paths, n_paths));
    char rescue[4096];
    if (cli->out && strcmp(cli->out, "-") && snprintf(rescue, sizeof rescue, "%s.ckpt", cli->out) < (int)sizeof rescue)
        mopt_rescue(cli->ctx, rescue);
    struct mopt_model **models = calloc(n_paths + 1, sizeof *models);
    struct mopt_report *report = NULL;
    enum mopt_status s = models ? read_models(cli, paths, n_paths, models) : MOPT_LIMIT;
    if (!s || models) { /* what could not be read is reported too */
        size_t n_others = s ? 0 : n_paths - 1;
        s = mopt_apply(cli->ctx, cli->recipe, s ? NULL : models[0], models + 1, n_others, &report);
        progress_end(&cli->progress);
    }
    bool is_whole = !s || s == MOPT_GATE; /* a gate that failed leaves a whole model, which is written */
    print_result(cli, report, s);
    if (s)
        say_error(cli);
    enum mopt_status later = MOPT_OK;
    bool writes = is_whole && cli->out && !cli->dry_run && !mopt_rank(cli->ctx), is_told = cli->json || cli->report_path;
    if (writes)
        later = cli_write_model(cli, models[0]);
    if (writes && !later && report && is_told)
        later = mopt_report_output(cli->ctx, report, cli->out);
    if (report && !later)
        later = cli_give_report(cli, report);
    mopt_report_free(report);
    for (size_t i = 0; models && i < n_paths; i++)
        mopt_model_free(models[i]);
    free(models);
    mopt_rescue(cli->ctx, NULL);
    return s ? s : later;
}

/* cmd_create.c - an untrained model from a family or a JSON spec (docs/CREATE.md). */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cli.h"

const struct mopt_option create_options[] = {
    {"input", MOPT_OPT_TEXT, .word = "CxHxW", .help = "shape of one sample (1x28x28, 3x32x32, 64x256)"},
    {"classes", MOPT_OPT_INT, .word = "N", .text_def = "10; resnet18 and mobilenetv2: 1000", .help = "number of outputs"},
    {"layers", MOPT_OPT_TEXT, .word = "N,N,...", .help = "widths of an mlp, first and last included"},
    {"width", MOPT_OPT_FLOAT, .word = "X", .text_def = "1", .help = "multiplies the channels of a family"},
    {"seed", MOPT_OPT_INT, .word = "N", .text_def = "0", .help = "seed of the weights"},
    {0}};

struct text { char bytes[2048]; size_t n; bool is_full; };

MOPT_PRINTF(2, 3) static void add(struct text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(t->bytes + t->n, sizeof t->bytes - t->n, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof t->bytes - t->n)
        t->is_full = true;
    else
        t->n += (size_t)n;
}

/* "1x28x28" or "784,300,10" as [1,28,28]; false when it is no such list. */
static bool add_sizes(struct text *t, const char *key, const char *value, char separator)
{
    add(t, ", \"%s\": [", key);
    for (bool first = true;; first = false) {
        char *end;
        long x = strtol(value, &end, 10);
        if (end == value || x <= 0 || (*end && *end != separator))
            return false;
        add(t, first ? "%ld" : ",%ld", x);
        if (!*end)
            break;
        value = end + 1;
    }
    add(t, "]");
    return true;
}

static enum mopt_status spec_from_flags(struct cli *cli, struct text *t)
{
    const char *family = cli->paths[0], *value;
    if (strpbrk(family, "\"\\"))
        return cli_usage(cli, "there is no family '%s'", family);
    add(t, "{\"family\": \"%s\"", family);
    if ((value = cli_own(cli, "input")) && !add_sizes(t, "input", value, 'x'))
        return cli_usage(cli, "option 'input': '%s' is not like 1x28x28", value);
    if ((value = cli_own(cli, "layers")) && !add_sizes(t, "layers", value, ','))
        return cli_usage(cli, "option 'layers': '%s' is not like 784,300,100,10", value);
    const char *const numbers[] = {"classes", "width"};
    for (int i = 0; i < 2; i++) {
        char *end;
        if (!(value = cli_own(cli, numbers[i])))
            continue;
        double x = strtod(value, &end);
        if (end == value || *end || !(x > 0))
            return cli_usage(cli, "option '%s': '%s' is not a number above 0", numbers[i], value);
        add(t, ", \"%s\": %.17g", numbers[i], x);
    }
    add(t, "}");
    return t->is_full ? cli_usage(cli, "too many layers for flags: write a JSON spec") : MOPT_OK;
}

/* What inspect says of the model that was made. */
static enum mopt_status report_created(struct cli *cli, struct mopt_model *model, const char *seed)
{
    if (!cli->json && !cli->report_path && !cli->dry_run)
        return MOPT_OK;
    struct mopt_report *report = NULL;
    MO_CLI_TRY(mopt_recipe_add(cli->ctx, cli->recipe, "inspect"));
    MO_CLI_TRY(mopt_recipe_name(cli->ctx, cli->recipe, 0, cli->paths[0]));
    mopt_recipe_verb(cli->recipe, cli->command->name);
    if (seed)
        MO_CLI_TRY(mopt_recipe_set(cli->ctx, cli->recipe, "seed", seed));
    enum mopt_status s = mopt_apply(cli->ctx, cli->recipe, model, NULL, 0, &report);
    if (!s && !cli->dry_run)
        s = mopt_report_output(cli->ctx, report, cli->out);
    if (!s && !cli->json && cli->dry_run)
        print_inspect(cli, report);
    if (!s)
        s = cli_give_report(cli, report);
    mopt_report_free(report);
    return s;
}

enum mopt_status cmd_create(struct cli *cli)
{
    struct text t = {.n = 0};
    const char *spec = t.bytes, *seed_text = cli_own(cli, "seed");
    char *file = NULL, *end = NULL;
    size_t n = 0, n_path = strlen(cli->paths[0]);
    uint64_t seed = seed_text ? strtoull(seed_text, &end, 10) : 0;
    if (seed_text && (end == seed_text || *end))
        return cli_usage(cli, "option 'seed': '%s' is not a whole number", seed_text);
    if (n_path > 5 && !strcmp(cli->paths[0] + n_path - 5, ".json")) {
        for (const struct mopt_option *row = create_options; row->name; row++)
            if (cli_own(cli, row->name) && strcmp(row->name, "seed"))
                return cli_usage(cli, "option '%s' does nothing with a spec from a file: say it there", row->name);
        MO_CLI_TRY(mopt_file_read(cli->ctx, cli->paths[0], &file, &n));
        spec = file;
    } else
        MO_CLI_TRY(spec_from_flags(cli, &t));
    struct mopt_model *model = NULL;
    enum mopt_status s = mopt_model_create(cli->ctx, spec, seed, &model);
    mopt_text_free(file);
    if (!s && !cli->dry_run)
        s = cli_write_model(cli, model);
    if (!s)
        s = report_created(cli, model, seed_text);
    mopt_model_free(model);
    return s;
}

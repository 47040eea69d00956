/* main.c - the program: a table of verbs, the flags they share, the exit code.
 *
 * A client of mopt.h and of nothing else. To add a verb: a file cmd_NAME.c when it
 * needs code of its own, and a row here. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cli.h"
#include "cmd/parse.h"

static const struct command train = {
    .name = "train", .pass = "train", .flags = CMD_WRITES_MODEL | CMD_RANKS, .min_paths = 1, .max_paths = 1,
    .usage = "mopt train IN.onnx --data SPEC -o OUT.onnx", .help = "fine-tune or train from scratch on labelled data",
    .examples = "mopt train lenet5.onnx --data idx:DIR --epochs 8 -o trained.onnx --report train.json\n"
                "mopt train --resume run.ckpt -o trained.onnx\n",
};
static const struct command prune = {
    .name = "prune", .pass = "prune", .flags = CMD_WRITES_MODEL | CMD_RANKS, .min_paths = 1, .max_paths = 1,
    .usage = "mopt prune IN.onnx --amount X [--structured] [--data SPEC] -o OUT.onnx",
    .help = "zero weights, or physically remove channels and neurons",
    .examples = "mopt prune in.onnx --amount 0.5 -o out.onnx\n"
                "mopt prune in.onnx --amount 0.9 --data idx:DIR --epochs 4 -o sparse.onnx\n"
                "mopt prune in.onnx --structured --target macs=0.5x --data idx:DIR --epochs 4 -o small.onnx\n",
};
static const struct command distill = {
    .name = "distill", .pass = "distill", .flags = CMD_WRITES_MODEL | CMD_RANKS, .min_paths = 1, .max_paths = 1,
    .usage = "mopt distill STUDENT.onnx --teacher TEACHER.onnx --data SPEC -o OUT.onnx",
    .help = "train a student to answer like a teacher",
    .examples = "mopt distill student.onnx --teacher trained.onnx --data idx:DIR --epochs 15 -o distilled.onnx\n",
};
static const struct command quantize = {
    .name = "quantize", .pass = "quantize", .flags = CMD_WRITES_MODEL | CMD_RANKS, .min_paths = 1, .max_paths = 1,
    .usage = "mopt quantize IN.onnx [--data SPEC | --dynamic | --weight-only int8|int4 | --fp16] -o OUT.onnx",
    .help = "int8 (static, dynamic, weight-only, with training) or fp16",
    .examples = "mopt quantize in.onnx --data idx:DIR -o int8.onnx\n"
                "mopt quantize in.onnx --weight-only int4 -o w4.onnx\n"
                "mopt quantize in.onnx --qat --data idx:DIR --epochs 2 -o qat.onnx\n",
};
static const struct command bench = {
    .name = "bench", .pass = "bench", .flags = CMD_ONE_PROCESS, .min_paths = 1, .max_paths = 64, .print = print_bench,
    .usage = "mopt bench MODEL.onnx [MODEL.onnx ...]", .help = "latency, throughput and memory, models interleaved",
    .examples = "mopt bench trained.onnx int8.onnx small.onnx --json\n",
};
static const struct command eval = {
    .name = "eval", .pass = "eval", .flags = CMD_RANKS, .min_paths = 1, .max_paths = 1, .print = print_eval,
    .usage = "mopt eval MODEL.onnx --data SPEC", .help = "accuracy and loss on data, with their interval",
    .examples = "mopt eval trained.onnx --data idx:DIR --json\nmopt eval new.onnx --data idx:DIR --min-accuracy 0.9\n",
};
static const struct command inspect = {
    .name = "inspect", .pass = "inspect", .min_paths = 1, .max_paths = 1, .print = print_inspect,
    .usage = "mopt inspect MODEL.onnx", .help = "what is in the file, and what can be done with it",
    .examples = "mopt inspect model.onnx --json\nmopt inspect model.onnx --svg graph.svg\n",
};
static const struct command simplify = {
    .name = "simplify", .pass = "simplify", .flags = CMD_WRITES_MODEL | CMD_LISTS_RULES, .min_paths = 1, .max_paths = 1,
    .usage = "mopt simplify IN.onnx -o OUT.onnx", .help = "exact clean-up: fold, merge, drop; verified",
    .examples = "mopt simplify exported.onnx -o clean.onnx\n"
                "mopt simplify old.onnx --opset 21 -o new.onnx\n"
                "mopt simplify --list-rules\n",
};
static const struct command diff = {
    .name = "diff", .pass = "diff", .min_paths = 2, .max_paths = 2, .print = print_diff,
    .usage = "mopt diff A.onnx B.onnx [--data SPEC]", .help = "two models on the same inputs: how far apart they are",
    .examples = "mopt diff trained.onnx int8.onnx --data idx:DIR --json\n",
};
static const struct command create = {
    .name = "create", .flags = CMD_WRITES_MODEL | CMD_OWN_OPTIONS | CMD_NO_MODEL, .min_paths = 1, .max_paths = 1,
    .own = create_options, .run = cmd_create, .usage = "mopt create FAMILY|SPEC.json [--input CxHxW] [--classes N] -o OUT.onnx",
    .help = "an untrained model from a family or a small JSON spec",
    .examples = "mopt create lenet5 --input 1x28x28 --classes 10 -o lenet5.onnx\n"
                "mopt create mlp --layers 784,300,100,10 --input 1x28x28 -o student.onnx\n",
};
static const struct command run = {
    .name = "run", .flags = CMD_WRITES_MODEL | CMD_NO_MODEL | CMD_RANKS, .min_paths = 2, .max_paths = 64, .run = cmd_run,
    .usage = "mopt run RECIPE.json IN.onnx -o OUT.onnx", .help = "a recipe: several steps in one process",
    .examples = "mopt run recipe.json trained.onnx -o out.onnx\n",
};
static const struct command infer = {
    .name = "infer", .pass = "infer", .min_paths = 1, .max_paths = 1, .print = print_nothing,
    .usage = "mopt infer MODEL.onnx --input NAME=FILE ... --output NAME=FILE ...",
    .help = "one forward pass on given tensors (.pb, .npy)",
    .examples = "mopt infer model.onnx --input x=input_0.pb --output y=output_0.pb\n",
};
static const struct command report = {
    .name = "report", .flags = CMD_MAY_WRITE | CMD_NO_MODEL | CMD_OWN_OPTIONS, .min_paths = 1, .max_paths = 64, .run = cmd_report,
    .usage = "mopt report REPORT.json [REPORT.json ...] -o PAGE.html", .help = "one HTML page from JSON reports",
    .examples = "mopt report train.json prune.json -o page.html\n",
};

const struct command *const commands[] = {&train,  &prune,   &distill,  &quantize, &bench, &eval,   &inspect,
                                          &simplify, &diff, &create, &run,      &infer, &report, NULL};

static struct mopt_ctx *stop_ctx;

/* The first signal asks for a clean stop, the second ends the program. */
static void on_signal(int number)
{
    mopt_stop(stop_ctx);
    signal(number, SIG_DFL);
}

/* Ranks but the first say nothing: what all of them would say is said once. */
static void keep_silent(struct cli *cli)
{
    int nowhere = mopt_launched_rank() ? open("/dev/null", O_WRONLY | O_CLOEXEC) : -1;
    cli->said_to = -1;
    if (nowhere < 0)
        return;
    fflush(stdout);
    cli->said_to = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    close(nowhere);
}

/* A failure of this rank alone; those that all ranks have are said by rank 0. */
static void say_as_rank(void *user)
{
    const struct cli *cli = user;
    if (cli->said_to >= 0)
        dprintf(cli->said_to, "mopt: rank %d: %s\n", mopt_launched_rank(),
                cli->words[0] ? cli->words : cli->ctx ? mopt_error(cli->ctx) : "");
}

static enum mopt_status run_command(struct cli *cli)
{
    MO_CLI_TRY(mopt_join(cli->ctx));
    if (mopt_n_ranks(cli->ctx) > 1 && cli->command->flags & CMD_ONE_PROCESS)
        return cli_usage(cli, "it measures, and other ranks would disturb it: start it without mpirun");
    if (mopt_rank(cli->ctx) && !(cli->command->flags & CMD_RANKS))
        return MOPT_OK;
    progress_init(&cli->progress, cli->progress_mode, cli->quiet, cli->verbose);
    mopt_on_event(cli->ctx, progress_event, &cli->progress);
    if (cli->command->run)
        return cli->command->run(cli);
    return cli_run_recipe(cli, cli->paths, cli->n_paths);
}

/* A result that did not reach its reader is a failure. */
static enum mopt_status close_stdout(struct cli *cli, enum mopt_status s)
{
    bool bad = ferror(stdout) != 0;
    bad |= fclose(stdout) != 0;
    if (!bad)
        return s;
    fprintf(stderr, "mopt %s: stdout could not be written\n", cli->command ? cli->command->name : "");
    return s ? s : MOPT_FAILED;
}

int main(int argc, char **argv)
{
    struct cli cli = {0};
    keep_silent(&cli);
    enum mopt_status s = parse_command_line(&cli, argc, argv);
    if (!s && cli.help)
        cli.command ? cli_help(cli.command, stdout) : cli_overview(stdout);
    else if (!s && cli.command) {
        stop_ctx = cli.ctx;
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit of the shell fails and is reported */
        s = run_command(&cli);
        progress_end(&cli.progress);
    }
    if (s && cli.ctx && !cli.has_said)
        fprintf(stderr, "mopt%s%s: %s\n", cli.command ? " " : "", cli.command ? cli.command->name : "",
                mopt_error(cli.ctx));
    if (s) {
        enum mopt_status told = cli_report_failure(&cli, s);
        if (told)
            fprintf(stderr, "mopt: the report could not be written: %s\n", cli.ctx ? mopt_error(cli.ctx) : "");
    }
    s = close_stdout(&cli, s);
    if (cli.ctx)
        s = mopt_leave(cli.ctx, s, say_as_rank, &cli);
    release_command_line(&cli);
    return (int)s;
}

/* print.c - results as text: tables for people, no adjectives. */
#include <math.h>
#include <string.h>

#include "cmd/cli.h"

static const struct mopt_report *at(const struct mopt_report *r, const char *path)
{
    return mopt_report_at(r, path);
}

static double number(const struct mopt_report *r, const char *path)
{
    return mopt_report_number(at(r, path), NAN);
}

static const char *human(double x, const char *const *units, double step, char *buf, size_t n)
{
    if (isnan(x)) {
        snprintf(buf, n, "unknown");
        return buf;
    }
    int i = 0;
    while (fabs(x) >= step && units[i + 1]) {
        x /= step;
        i++;
    }
    snprintf(buf, n, i == 0 ? "%.0f%s%s" : fabs(x) < 10 ? "%.2f%s%s" : fabs(x) < 100 ? "%.1f%s%s" : "%.0f%s%s", x,
             *units[i] ? " " : "", units[i]);
    return buf;
}

const char *human_count(double x, char *buf, size_t n)
{
    static const char *const units[] = {"", "k", "M", "G", "T", NULL};
    return human(x, units, 1000, buf, n);
}

const char *human_bytes(double x, char *buf, size_t n)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", NULL};
    return human(x, units, 1000, buf, n);
}

/* ---- before and after ---------------------------------------------------------- */

typedef const char *human_fn(double, char *, size_t);

static void ratio_text(double before, double after, char *buf, size_t n)
{
    if (before > 0 && after >= 0)
        snprintf(buf, n, "%.3gx", after / before);
    else
        snprintf(buf, n, "-");
}

static void count_row(const struct mopt_report *r, const char *second, const char *label, const char *key, human_fn *fn)
{
    char path[64], a[32], b[32], x[32];
    snprintf(path, sizeof path, "before.%s", key);
    double before = number(r, path);
    snprintf(path, sizeof path, "%s.%s", second, key);
    double after = number(r, path);
    if (isnan(before) && isnan(after))
        return;
    ratio_text(before, after, x, sizeof x);
    printf("%-12s %18s %18s %8s\n", label, fn(before, a, sizeof a), fn(after, b, sizeof b), x);
}

static void accuracy_text(const struct mopt_report *metrics, char *buf, size_t n)
{
    double x = number(metrics, "accuracy"), low = number(metrics, "accuracy_low"), high = number(metrics, "accuracy_high");
    if (isnan(x))
        snprintf(buf, n, "-");
    else
        snprintf(buf, n, "%.2f %% +- %.2f", 100 * x, 50 * (high - low));
}

static void latency_text(const struct mopt_report *side, char *buf, size_t n)
{
    double mean = number(side, "latency_ms.mean"), sd = number(side, "latency_ms.sd");
    if (isnan(mean))
        snprintf(buf, n, "-");
    else
        snprintf(buf, n, "%.3g ms +- %.2g", mean, sd);
}

/* A recipe of one step reports into the root itself. */
static size_t count_steps(const struct mopt_report *r)
{
    return at(r, "steps") ? mopt_report_count(at(r, "steps")) : 1;
}

static const struct mopt_report *step_at(const struct mopt_report *r, size_t i)
{
    return at(r, "steps") ? mopt_report_item(at(r, "steps"), i) : r;
}

/* The most of a forward pass, planned block and weights, and of each step's training, with its data. */
static double peak_memory(const struct mopt_report *r)
{
    double peak = number(r, "predicted.memory_bytes.activations") + number(r, "predicted.memory_bytes.weights");
    for (size_t i = 0; i < count_steps(r); i++) {
        peak = fmax(peak, number(step_at(r, i), "memory_bytes.planned"));
    }
    return peak;
}

/* Training that ends with the weights it began with should not look like training that gained nothing. */
static void print_kept(const struct mopt_report *r)
{
    for (size_t i = 0; i < count_steps(r); i++) {
        const struct mopt_report *result = at(step_at(r, i), "training_result");
        if (!strcmp(mopt_report_text(at(result, "kept"), ""), "start"))
            printf("%-12s %s: weights as they came, no epoch of %g was better\n", "kept",
                   mopt_report_text(at(step_at(r, i), "pass"), "?"), number(result, "epochs_done"));
    }
}

void print_before_after(struct cli *cli, const struct mopt_report *r)
{
    const struct mopt_report *before = at(r, "before"), *after = at(r, "after");
    if (cli->quiet || !before)
        return;
    char a[48], b[48], x[32];
    const char *second = at(r, "predicted") ? "predicted" : "after";
    printf("%-12s %18s %18s %8s\n", "", "before", second, "ratio");
    count_row(r, second, "parameters", "parameters", human_count);
    count_row(r, second, "nonzero", "nonzero", human_count);
    count_row(r, second, "MACs", "macs", human_count);
    count_row(r, second, "bytes", "bytes", human_bytes);
    const struct mopt_report *m = at(before, "metrics"), *n = at(after, "metrics");
    if (at(m, "accuracy") || at(n, "accuracy")) {
        accuracy_text(m, a, sizeof a);
        accuracy_text(n, b, sizeof b);
        snprintf(x, sizeof x, "%+.2f", 100 * (number(n, "accuracy") - number(m, "accuracy")));
        printf("%-12s %18s %18s %8s\n", "accuracy", a, b, x);
    }
    if (at(m, "rmse") || at(n, "rmse"))
        printf("%-12s %18.4g %18.4g\n", "rmse", number(m, "rmse"), number(n, "rmse"));
    if (at(before, "latency_ms") || at(after, "latency_ms")) {
        latency_text(before, a, sizeof a);
        latency_text(after, b, sizeof b);
        ratio_text(number(before, "latency_ms.mean"), number(after, "latency_ms.mean"), x, sizeof x);
        printf("%-12s %18s %18s %8s\n", "latency", a, b, x);
    }
    if (at(r, "predicted"))
        printf("%-12s %18s %18s\n", "peak memory", "", human_bytes(peak_memory(r), a, sizeof a));
    printf("%-12s %18lld\n", "seed", (long long)mopt_report_int(at(r, "seed"), 0));
    print_kept(r);
    const struct mopt_report *audit = at(r, "audit");
    for (size_t i = 0; i < mopt_report_count(audit); i++) {
        const struct mopt_report *row = mopt_report_item(audit, i);
        if (!strcmp(mopt_report_text(at(row, "action"), ""), "skipped"))
            printf("left alone: %s: %s\n", mopt_report_text(at(row, "name"), "?"), mopt_report_text(at(row, "reason"), "?"));
    }
}

void print_gates(const struct mopt_report *report, FILE *to)
{
    const struct mopt_report *gates = at(report, "gates");
    for (size_t i = 0; i < mopt_report_count(gates); i++) {
        const struct mopt_report *g = mopt_report_item(gates, i);
        const char *note = mopt_report_text(at(g, "note"), NULL);
        fprintf(to, "gate %-13s %s: %.9g against a limit of %.9g%s%s\n", mopt_report_text(at(g, "gate"), "?"),
                mopt_report_text(at(g, "verdict"), "?"), number(g, "value"), number(g, "limit"), note ? "; " : "",
                note ? note : "");
    }
}

/* ---- verbs that only read ---------------------------------------------------------- */

void print_metrics(const struct mopt_report *m, FILE *to)
{
    static const struct { const char *key, *label; double factor; const char *unit; } rows[] = {
        {"top5", "top-5", 100, " %"}, {"f1", "macro F1", 1, ""}, {"loss", "loss", 1, ""},
        {"mae", "mean absolute error", 1, ""}, {"rmse", "root mean square error", 1, ""}, {"r2", "R2", 1, ""}};
    char text[48];
    if (at(m, "accuracy")) {
        accuracy_text(m, text, sizeof text);
        fprintf(to, "%-24s %s\n", "accuracy", text);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!isnan(number(m, rows[i].key)))
            fprintf(to, "%-24s %.5g%s\n", rows[i].label, rows[i].factor * number(m, rows[i].key), rows[i].unit);
}

/* "9 of 9 operators in int8": of those that multiply and add. */
static const char *precision_text(const struct mopt_report *operators, char *text, size_t bytes)
{
    long long n_int8 = (long long)mopt_report_int(at(operators, "int8"), 0);
    long long n_float = (long long)mopt_report_int(at(operators, "float"), 0);
    snprintf(text, bytes, "%lld of %lld operators in int8", n_int8, n_int8 + n_float);
    return text;
}

void print_eval(struct cli *cli, const struct mopt_report *r)
{
    char text[64];
    (void)cli;
    print_metrics(at(r, "metrics"), stdout);
    printf("%-24s %lld\n", "samples", (long long)mopt_report_int(at(r, "n_samples"), 0));
    if (mopt_report_int(at(r, "operators.int8"), 0))
        printf("%-24s %s\n", "precision", precision_text(at(r, "operators"), text, sizeof text));
}

void print_nothing(struct cli *cli, const struct mopt_report *r)
{
    (void)cli;
    (void)r;
}

static void print_value(const char *key, const struct mopt_report *item, int depth);

/* A list of flat objects as one line each. */
static void print_line(const struct mopt_report *row, int depth)
{
    printf("%*s", 2 * depth, "");
    for (size_t i = 0; i < mopt_report_count(row); i++) {
        const struct mopt_report *cell = mopt_report_item(row, i);
        const char *key = mopt_report_key(row, i);
        switch (mopt_report_kind(cell)) {
        case MOPT_TEXT:
            if (!strncmp(key, "not_", 4))
                printf("  not %s (%s)", key + 4, mopt_report_text(cell, ""));
            else
                printf("%s%s", i ? "  " : "", mopt_report_text(cell, ""));
            break;
        case MOPT_BOOL:
            if (mopt_report_int(cell, 0))
                printf("%s%s", i ? "  " : "", key);
            break;
        case MOPT_INT:
        case MOPT_NUMBER:
            printf("%s%s %.6g", i ? "  " : "", key, mopt_report_number(cell, 0));
            break;
        case MOPT_LIST:
            for (size_t k = 0; k < mopt_report_count(cell); k++)
                printf("%s%s", k ? ", " : "  coupled with ", mopt_report_text(mopt_report_item(cell, k), "?"));
            break;
        default:
            break;
        }
    }
    puts("");
}

static void print_value(const char *key, const struct mopt_report *item, int depth)
{
    size_t n = mopt_report_count(item);
    switch (mopt_report_kind(item)) {
    case MOPT_OBJECT:
        printf("%*s%s\n", 2 * depth, "", key);
        for (size_t i = 0; i < n; i++)
            print_value(mopt_report_key(item, i), mopt_report_item(item, i), depth + 1);
        return;
    case MOPT_LIST:
        printf("%*s%s\n", 2 * depth, "", key);
        for (size_t i = 0; i < n; i++) {
            const struct mopt_report *row = mopt_report_item(item, i);
            if (mopt_report_kind(row) == MOPT_OBJECT)
                print_line(row, depth + 1);
            else
                print_value("-", row, depth + 1);
        }
        return;
    case MOPT_TEXT:
        printf("%*s%-18s %s\n", 2 * depth, "", key, mopt_report_text(item, ""));
        return;
    case MOPT_NULL:
        printf("%*s%-18s unknown\n", 2 * depth, "", key);
        return;
    case MOPT_BOOL:
        printf("%*s%-18s %s\n", 2 * depth, "", key, mopt_report_int(item, 0) ? "yes" : "no");
        return;
    default:
        printf("%*s%-18s %.10g\n", 2 * depth, "", key, mopt_report_number(item, 0));
    }
}

void print_inspect(struct cli *cli, const struct mopt_report *r)
{
    static const char *const first[] = {"mopt", "schema", "verb", "status", "seed", "threads", "device", "pass", NULL};
    (void)cli;
    for (size_t i = 0; i < mopt_report_count(r); i++) {
        const char *key = mopt_report_key(r, i);
        bool is_frame =
            !strcmp(key, "seconds") || !strcmp(key, "exit_code") || !strcmp(key, "engine") || !strcmp(key, "gates");
        for (size_t k = 0; first[k]; k++)
            is_frame |= !strcmp(key, first[k]);
        if (!is_frame)
            print_value(key, mopt_report_item(r, i), 0);
    }
}

/* With data or without: what each model is, how well it does, how fast it is. */
static void print_race_row(const struct mopt_report *m)
{
    char parameters[32], macs[32], bytes[32], accuracy[48], latency[48], ratio[48];
    double error = number(m, "ratio_error");
    human_count(number(m, "parameters"), parameters, sizeof parameters);
    human_count(number(m, "macs"), macs, sizeof macs);
    human_bytes(number(m, "bytes"), bytes, sizeof bytes);
    accuracy_text(at(m, "metrics"), accuracy, sizeof accuracy);
    snprintf(latency, sizeof latency, "%.4g +- %.2g", number(m, "latency_ms.mean"), number(m, "latency_ms.sd"));
    snprintf(ratio, sizeof ratio, isnan(error) ? "%.2f" : "%.2f +- %.2f", number(m, "ratio"), error);
    const char *name = mopt_report_text(at(m, "name"), "?"), *slash = strrchr(name, '/');
    printf("%-20s %10s %8s %8s %17s %19s %8.4g %8.4g %12.5g %13s\n", slash ? slash + 1 : name, parameters, macs, bytes,
           accuracy, latency, number(m, "latency_ms.median"), number(m, "latency_ms.p99"),
           number(m, "samples_per_second"), ratio);
}

void print_bench(struct cli *cli, const struct mopt_report *r)
{
    (void)cli;
    const struct mopt_report *models = at(r, "models");
    printf("%-20s %10s %8s %8s %17s %19s %8s %8s %12s %13s\n", "model", "parameters", "MACs", "bytes", "accuracy", "mean ms",
           "median", "p99", "per second", "times faster");
    for (size_t i = 0; i < mopt_report_count(models); i++)
        print_race_row(mopt_report_item(models, i));
    for (size_t i = 0; i < mopt_report_count(models); i++) {
        const struct mopt_report *profile = at(mopt_report_item(models, i), "profile");
        if (profile)
            print_value(mopt_report_text(at(mopt_report_item(models, i), "name"), "profile"), profile, 0);
    }
    for (size_t i = 0; i < mopt_report_count(models); i++) {
        const struct mopt_report *m = mopt_report_item(models, i);
        char text[64];
        printf("%-20s from %.4g ms to %.4g ms in %lld runs, %lld of them outliers; %s\n",
               mopt_report_text(at(m, "name"), "?"), number(m, "latency_ms.min"), number(m, "latency_ms.max"),
               (long long)mopt_report_int(at(r, "n_runs"), 0), (long long)mopt_report_int(at(m, "n_outliers"), 0),
               precision_text(at(m, "operators"), text, sizeof text));
    }
    printf("engine: mopt on %s; %s; other runtimes will time differently\n", mopt_report_text(at(r, "engine"), "?"),
           mopt_report_text(at(r, "machine.cpu"), ""));
    const struct mopt_report *advice = at(r, "advice");
    for (size_t i = 0; i < mopt_report_count(advice); i++)
        printf("note: %s\n", mopt_report_text(mopt_report_item(advice, i), ""));
}

void print_diff(struct cli *cli, const struct mopt_report *r)
{
    (void)cli;
    const struct mopt_report *outputs = at(r, "outputs");
    printf("%-32s %12s %12s %12s %12s\n", "output", "cosine", "SQNR dB", "max abs", "mean abs");
    for (size_t i = 0; i < mopt_report_count(outputs); i++) {
        const struct mopt_report *o = mopt_report_item(outputs, i);
        double sqnr = number(o, "sqnr_db");
        char noise[32];
        snprintf(noise, sizeof noise, isnan(sqnr) && number(o, "max_abs") == 0 ? "equal" : "%.4g", sqnr);
        printf("%-32s %12.8f %12s %12.4g %12.4g\n", mopt_report_text(at(o, "name"), "?"), number(o, "cosine"), noise,
               number(o, "max_abs"), number(o, "mean_abs"));
    }
    if (at(r, "tensors"))
        print_value("tensors", at(r, "tensors"), 0);
}

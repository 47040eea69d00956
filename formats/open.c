/* open.c - the context: threads granted, memory granted, and the table that ties the library to its files. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/image_decode.h"
#include "formats/file.h"
#include "formats/formats.h"
#include "kernels/backend.h"
#include "lib/base/io.h"

/* First line of a small system file; false when it cannot be read. */
static bool read_line(const char *path, char *buf, int n)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    bool ok = fgets(buf, n, f) != NULL;
    fclose(f);
    return ok;
}

static int machine(char *cpu, size_t cpu_bytes)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    snprintf(cpu, cpu_bytes, "%s", "");
    while (f && !*cpu && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (colon && !strncmp(line, "model name", 10))
            snprintf(cpu, cpu_bytes, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (f)
        fclose(f);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* Pictures within a model's data: as large as any camera's. */
#define MAX_PIXELS ((uint64_t)1 << 28)

static enum mopt_status decode_image(struct mopt_ctx *ctx, const void *bytes, size_t n_bytes, uint8_t **pixels, int *height,
                                     int *width)
{
    struct mo_sample_buffer buffer = { 0 };
    char why[160] = "";
    enum mopt_status s = mo_image_decode(bytes, n_bytes, 3, MAX_PIXELS, &buffer, height, width, why, sizeof why);
    *pixels = buffer.mem;
    if (!s)
        return MOPT_OK;
    mo_mem_free(buffer.mem);
    *pixels = NULL;
    return mo_fail(ctx, s, "the picture: %s", why);
}

static const struct mo_io file_io = {
    .read_model = mopt_model_read,
    .write_model = mopt_model_write,
    .open_source = mo_source_open,
    .read_tensor = mo_tensor_file_read,
    .read_list = mo_list_file_read,
    .write_tensor = mo_tensor_file_write,
    .read_file = mopt_file_read,
    .write_file = mopt_file_write,
    .file_exists = mo_file_exists,
    .model_bytes = mo_model_bytes,
    .hash_file = mo_file_hash,
    .machine = machine,
    .read_report = mo_read_report,
    .decode_image = decode_image,
    .spill = mo_file_spill,
    .forget = mo_onnx_forget,
};

/* Processors this process may use: its affinity, and the quota of its cgroup (v2 cpu.max, v1 cpu.cfs_*). */
static int threads_granted(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    char line[64], period_line[64];
    double quota = 0, period = 0;
    if (read_line("/sys/fs/cgroup/cpu.max", line, sizeof line))
        (void)(sscanf(line, "%lf %lf", &quota, &period) == 2);
    else if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", line, sizeof line) &&
             read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period_line, sizeof period_line)) {
        quota = atof(line);
        period = atof(period_line);
    }
    if (quota > 0 && period > 0 && quota / period < n)
        n = (int)(quota / period + 0.5);
    return n < 1 ? 1 : n;
}

static uint64_t memory_granted(void)
{
    uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGE_SIZE), limit;
    char line[64];
    if (read_line("/sys/fs/cgroup/memory.max", line, sizeof line) && (limit = strtoull(line, NULL, 10)) && limit < bytes)
        bytes = limit;
    return bytes / 4 * 3;
}

struct mopt_ctx *mopt_open(const char *device, int n_threads)
{
    struct mopt_ctx *ctx = mo_mem_new(1, sizeof *ctx);
    if (!ctx)
        return NULL;
    snprintf(ctx->device_name, sizeof ctx->device_name, "%s", device ? device : "auto");
    ctx->n_threads = n_threads > 0 ? n_threads : threads_granted();
    ctx->has_own_threads = n_threads > 0;
    ctx->n_ranks = 1;
    ctx->max_memory_bytes = memory_granted();
    ctx->io = &file_io;
    return ctx;
}

/* "auto", or a backend's name with a number behind a colon or without one. */
static bool is_device(const char *text)
{
    char name[sizeof((struct mopt_ctx *)0)->device_name];
    size_t n = strcspn(text, ":");
    if (!strcmp(text, "auto"))
        return true;
    if (strlen(text) >= sizeof name || (text[n] && (!text[n + 1] || text[n + 1 + strspn(text + n + 1, "0123456789")])))
        return false;
    snprintf(name, sizeof name, "%.*s", (int)n, text);
    return mo_backend_find(name) != NULL;
}

enum mopt_status mopt_configure(struct mopt_ctx *ctx, const char *device, int n_threads, uint64_t max_memory_bytes)
{
    if (ctx->device)
        return mo_fail(ctx, MOPT_USAGE, "the device is open already");
    if (device && !is_device(device))
        return mo_fail(ctx, MOPT_USAGE, "there is no device '%s': cpu, cuda, cuda:N or auto", device);
    if (device)
        snprintf(ctx->device_name, sizeof ctx->device_name, "%s", device);
    if (n_threads > 0) {
        ctx->n_threads = n_threads;
        ctx->has_own_threads = true;
    }
    if (max_memory_bytes)
        ctx->max_memory_bytes = max_memory_bytes;
    return MOPT_OK;
}

void mopt_close(struct mopt_ctx *ctx)
{
    if (!ctx)
        return;
    if (ctx->device)
        ctx->backend->close(ctx->device);
    mo_mem_free(ctx);
}

/* source_fuzz.h - any bytes as a file of a data format: refused in words, or every sample can be read and keeps what the
 * source promised of it. The bytes lie in a file in memory, since formats open paths. */
#ifndef SOURCE_FUZZ_H
#define SOURCE_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/sources.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_files.h"

enum { FUZZ_MAX_SAMPLES = 64 };

static inline void fuzz_read(struct mo_source *source)
{
    struct mo_sample_buffer buffer = {0};
    volatile unsigned sum = 0;
    for (size_t i = 0; i < source->n_samples && i < FUZZ_MAX_SAMPLES; i++) {
        struct mo_sample s = {0};
        char why[256] = "";
        if (source->read(source, i, &buffer, &s, why, sizeof why)) {
            if (!why[0])
                abort();
            continue;
        }
        if (source->target == MO_TARGET_CLASS && (s.label < 0 || s.label >= source->n_classes))
            abort();
        if (source->kind == MO_SAMPLE_IMAGE)
            for (size_t k = 0; k < (size_t)s.height * (size_t)s.width * (size_t)s.channels; k++)
                sum += s.pixels[k];
        for (uint32_t k = 0; source->kind == MO_SAMPLE_TENSOR && k < source->n_inputs; k++)
            for (size_t b = 0; b < mo_dtype_bytes(source->dtype[k], mo_shape_elems(&source->shape[k])); b++)
                sum += ((const uint8_t *)s.data[k])[b];
        for (size_t k = 0; source->kind == MO_SAMPLE_SPARSE && k < s.n_values; k++)
            if (s.columns[k] < 0 || s.columns[k] >= source->n_columns || (k && s.columns[k] <= s.columns[k - 1]))
                abort();
        for (int k = 0; source->target == MO_TARGET_VALUES && k < source->n_targets; k++)
            sum += (unsigned)(s.targets[k] > 0);
    }
    mo_mem_free(buffer.mem);
}

/* Opens the path's parts with the format. spec: "csv:%s" with the path put in, perhaps twice. */
static inline void fuzz_parts(const char *spec, const char *path, const char *schema)
{
    struct mopt_ctx ctx = {.max_memory_bytes = 64 << 20, .n_threads = 1};
    for (int part = MO_PART_TRAIN; part <= MO_PART_TEST; part++) {
        struct mo_source *source = NULL;
        char text[256];
        snprintf(text, sizeof text, spec, path, path);
        if (mo_source_open(&ctx, text, (enum mo_part)part, schema, &source)) {
            if (!ctx.error[0] || source)
                abort();
        } else if (source) {
            fuzz_read(source);
            source->close(source);
        }
        mopt_clear(&ctx);
    }
}

/* For formats that ask the system about the path. */
static inline void fuzz_source_file(const char *spec, const char *schema, const uint8_t *data, size_t n)
{
    char path[64];
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || (n && write(fd, data, n) != (ssize_t)n))
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    fuzz_parts(spec, path, schema);
    close(fd);
}

/* schema: may be NULL. */
static inline void fuzz_source(const char *spec, const char *schema, const uint8_t *data, size_t n)
{
#ifdef FUZZ_IN_MEMORY
    fuzz_memory_file(0, data, n);
    fuzz_parts(spec, FUZZ_MEMORY_FILE "0", schema);
#else
    fuzz_source_file(spec, schema, data, n);
#endif
}

#endif

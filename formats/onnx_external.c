/* onnx_external.c - tensors in files beside the model.
 *
 * A location is a relative path that stays in the model's folder: no leading slash,
 * no "..", no symbolic link that leads out (openat2 with RESOLVE_BENEATH; where the
 * kernel has none, no symbolic link at all). Files are mapped, each once. */
#include "formats/onnx.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct mo_onnx_external {
    struct mo_onnx_external *next;
    char *location;
    struct mo_file_map map;
};

void mo_onnx_external_release(struct mo_onnx_external *externals)
{
    while (externals) {
        struct mo_onnx_external *next = externals->next;
        mo_file_unmap(&externals->map);
        mo_mem_free(externals->location);
        mo_mem_free(externals);
        externals = next;
    }
}

void mo_onnx_external_forget(const struct mo_onnx_external *externals, const void *bytes, size_t n_bytes)
{
    for (; externals; externals = externals->next)
        mo_file_forget(externals->map.bytes, externals->map.n_bytes, bytes, n_bytes);
}

/* open_how of linux/openat2.h, which older headers lack. */
struct how { uint64_t flags, mode, resolve; };
enum { BENEATH = 0x08, NO_MAGICLINKS = 0x02 };
enum { OPEN_FILE = O_RDONLY | O_CLOEXEC | O_NONBLOCK };

/* Without openat2: folder by folder, following no link. */
static int open_stepwise(int folder, const char *location)
{
    int at = dup(folder);
    while (at >= 0) {
        size_t n = strcspn(location, "/");
        bool is_last = !location[n];
        char name[256];
        if (n >= sizeof name) {
            close(at);
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(name, location, n);
        name[n] = 0;
        int next = openat(at, n ? name : ".", OPEN_FILE | O_NOFOLLOW | (is_last ? 0 : O_DIRECTORY));
        int why = errno;
        close(at);
        errno = why;
        if (is_last)
            return next;
        at = next;
        location += n + 1;
    }
    return -1;
}

static int open_beneath(const char *folder, const char *location)
{
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -1;
    int fd = -1;
#ifdef SYS_openat2
    struct how how = { .flags = OPEN_FILE, .resolve = BENEATH | NO_MAGICLINKS };
    fd = (int)syscall(SYS_openat2, dir, location, &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        fd = open_stepwise(dir, location);
#else
    fd = open_stepwise(dir, location);
#endif
    int why = errno;
    close(dir);
    errno = why;
    return fd;
}

static bool goes_up(const char *path)
{
    for (const char *at = path; at; at = strchr(at, '/')) {
        at += *at == '/';
        if (!strncmp(at, "..", 2) && (at[2] == '/' || !at[2]))
            return true;
    }
    return false;
}

static enum mopt_status map_external(struct mo_onnx_in *in, const char *location, struct mo_onnx_external **found)
{
    for (*found = in->externals; *found; *found = (*found)->next)
        if (!strcmp((*found)->location, location))
            return MOPT_OK;
    if (!location[0] || location[0] == '/' || goes_up(location))
        return mo_fail(in->ctx, MOPT_UNSUPPORTED,
                       "external data '%s' lies outside the model's folder, which is refused", location);
    int fd = open_beneath(in->folder, location);
    if (fd < 0 && (errno == EXDEV || errno == ELOOP))
        return mo_fail(in->ctx, MOPT_UNSUPPORTED,
                       "external data '%s' leads out of the model's folder by a link, which is refused", location);
    if (fd < 0)
        return mo_fail(in->ctx, MOPT_DATA, "external data '%s': %s", location, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) || !S_ISREG(info.st_mode)) {
        close(fd);
        return mo_fail(in->ctx, MOPT_DATA, "external data '%s' is not a regular file", location);
    }
    struct mo_onnx_external *e = mo_mem_new(1, sizeof *e);
    enum mopt_status status = MOPT_OK;
    size_t n = strlen(location) + 1;
    if (e && (e->location = mo_mem_new(n, 1)))
        memcpy(e->location, location, n);
    else
        status = mo_no_memory(in->ctx, sizeof *e + strlen(location), "external data");
    if (!status)
        status = mo_file_map_fd(in->ctx, fd, &e->map);
    close(fd);
    if (status) {
        mo_blame(in->ctx, "external data '%s'", location);
        mo_onnx_external_release(e);
        return status;
    }
    e->next = in->externals;
    in->externals = *found = e;
    in->external_bytes += e->map.n_bytes;
    return MOPT_OK;
}

/* A decimal number that fills the whole text. */
static bool parse_bytes(const char *text, uint64_t *x)
{
    *x = 0;
    if (!*text)
        return false;
    for (; *text; text++)
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(*x, 10, x) ||
            __builtin_add_overflow(*x, (uint64_t)(*text - '0'), x))
            return false;
    return true;
}

struct place { const char *location; uint64_t offset, length; bool has_length; };

static enum mopt_status parse_place(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, struct place *place)
{
    *place = (struct place){ 0 };
    for (size_t i = 0; i < t->n_external_data; i++) {
        const char *key = t->external_data[i]->key, *value = t->external_data[i]->value;
        bool ok = key && value;
        if (ok && !strcmp(key, "location"))
            place->location = value;
        else if (ok && !strcmp(key, "offset"))
            ok = parse_bytes(value, &place->offset);
        else if (ok && !strcmp(key, "length"))
            ok = place->has_length = parse_bytes(value, &place->length);
        if (!ok)
            return mo_fail(in->ctx, MOPT_UNSUPPORTED, "external data entry '%s' is '%s', not a number",
                           key ? key : "", value ? value : "");
    }
    if (!place->location)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "external data has no location");
    return MOPT_OK;
}

static enum mopt_status find_data(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, size_t n_bytes,
                                  const uint8_t **data)
{
    struct place place;
    struct mo_onnx_external *e;
    if (!in->folder)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "external data needs a model that is read from a file");
    MO_TRY(parse_place(in, t, &place));
    if (place.has_length && place.length != n_bytes)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED, "external data has %llu bytes where the dimensions ask for %zu",
                       (unsigned long long)place.length, n_bytes);
    MO_TRY(map_external(in, place.location, &e));
    if (place.offset > e->map.n_bytes || n_bytes > e->map.n_bytes - place.offset)
        return mo_fail(in->ctx, MOPT_UNSUPPORTED,
                       "external data '%s' ends at byte %zu; bytes %llu to %llu are asked for",
                       place.location, e->map.n_bytes, (unsigned long long)place.offset,
                       (unsigned long long)place.offset + n_bytes);
    *data = e->map.bytes + place.offset;
    return MOPT_OK;
}

enum mopt_status mo_onnx_external_data(struct mo_onnx_in *in, const MoOnnx__TensorProto *t, size_t n_bytes,
                                       const uint8_t **data)
{
    enum mopt_status status = find_data(in, t, n_bytes, data);
    if (status)
        mo_blame(in->ctx, "tensor '%s'", t->name ? t->name : "");
    return status;
}

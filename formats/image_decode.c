/* image_decode.c - JPEG through libjpeg-turbo, PNG through libpng.
 *
 * Both libraries leave by longjmp on errors, so each decoder keeps what it must free in a struct that the function with
 * the setjmp gets by pointer. libjpeg only warns of data that is cut off or damaged and fills up with grey: such a
 * picture counts as broken here. Extra bytes between markers do no harm and are let pass. */
#include "formats/image_decode.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>
#include <png.h>

#include "formats/image_formats.h"

enum { MAX_SIDE = 65535, MIN_BYTES = 8, RGB = 3, MAX_SCANS = 200 };

static bool is_jpeg(const uint8_t *bytes, size_t n)
{
    return n >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff;
}

static bool is_png(const uint8_t *bytes, size_t n)
{
    return n >= MIN_BYTES && !png_sig_cmp(bytes, 0, MIN_BYTES);
}

/* Rows of RGB to grey in place, as Pillow's convert("L"). */
static void to_grey(uint8_t *pixels, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + RGB * i;
        pixels[i] = (uint8_t)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 0x8000u) >> 16);
    }
}

/* ---- JPEG ----------------------------------------------------------------------- */

struct jpeg {
    struct jpeg_decompress_struct d;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf leave;
    char *why; size_t why_bytes;
    const uint8_t *bytes; size_t n_bytes;
    struct mo_sample_buffer *buffer;
    uint64_t max_pixels;
    int channels;
    enum mopt_status status;
};

static void jpeg_leave(j_common_ptr d)
{
    struct jpeg *j = d->client_data;
    char words[JMSG_LENGTH_MAX];
    d->err->format_message(d, words);
    snprintf(j->why, j->why_bytes, "broken JPEG: %s", words);
    j->status = MOPT_DATA;
    longjmp(j->leave, 1);
}

/* level -1: damaged data; above: traces. */
static void jpeg_warn(j_common_ptr d, int level)
{
    if (level < 0 && d->err->msg_code != JWRN_EXTRANEOUS_DATA && d->err->msg_code != JWRN_ADOBE_XFORM)
        jpeg_leave(d);
}

static void jpeg_silent(j_common_ptr d)
{
    (void)d;
}

/* A small progressive file can ask for thousands of passes over a large picture. */
static void jpeg_watch(j_common_ptr d)
{
    struct jpeg *j = d->client_data;
    if (j->d.input_scan_number <= MAX_SCANS)
        return;
    snprintf(j->why, j->why_bytes, "broken JPEG: more than %d scans", MAX_SCANS);
    j->status = MOPT_DATA;
    longjmp(j->leave, 1);
}

static void jpeg_start(struct jpeg *j)
{
    j->d.err = jpeg_std_error(&j->errors);
    j->errors.error_exit = jpeg_leave;
    j->errors.emit_message = jpeg_warn;
    j->errors.output_message = jpeg_silent;
    j->d.client_data = j;
}

/* Adobe's CMYK comes inverted: c is 255 - ink. */
static void cmyk_to_rgb(uint8_t *pixels, size_t n, bool is_inverted)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + 4 * i;
        uint32_t k = is_inverted ? p[3] : 255u - p[3];
        for (size_t c = 0; c < RGB; c++)
            pixels[RGB * i + c] = (uint8_t)((is_inverted ? p[c] : 255u - p[c]) * k / 255);
    }
}

static void jpeg_fail(struct jpeg *j, enum mopt_status status, const char *words)
{
    snprintf(j->why, j->why_bytes, "%s", words);
    j->status = status;
}

static void jpeg_decode_rows(struct jpeg *j)
{
    struct jpeg_decompress_struct *d = &j->d;
    bool is_cmyk = d->jpeg_color_space == JCS_CMYK || d->jpeg_color_space == JCS_YCCK;
    bool is_grey = d->jpeg_color_space == JCS_GRAYSCALE;
    d->out_color_space = is_cmyk ? JCS_CMYK : is_grey && j->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    if ((uint64_t)d->image_width * d->image_height > j->max_pixels) {
        jpeg_fail(j, MOPT_LIMIT, "the image has too many pixels");
        return;
    }
    jpeg_start_decompress(d);
    size_t row_bytes = (size_t)d->output_width * (size_t)d->output_components;
    uint8_t *pixels = mo_buffer_grow(j->buffer, row_bytes * d->output_height);
    if (!pixels) {
        jpeg_fail(j, MOPT_LIMIT, "out of memory for an image");
        return;
    }
    while (d->output_scanline < d->output_height) {
        JSAMPROW row = pixels + row_bytes * d->output_scanline;
        jpeg_read_scanlines(d, &row, 1);
    }
    jpeg_finish_decompress(d);
    size_t n = (size_t)d->output_width * d->output_height;
    if (is_cmyk)
        cmyk_to_rgb(pixels, n, d->saw_Adobe_marker);
    if (j->channels == 1 && d->out_color_space != JCS_GRAYSCALE)
        to_grey(pixels, n);
}

/* The header, and the pixels when there is a buffer. j is the caller's, so nothing is lost on the jump. */
static void jpeg_run(struct jpeg *j)
{
    jpeg_start(j);
    if (setjmp(j->leave))
        return;
    jpeg_create_decompress(&j->d);
    j->progress.progress_monitor = jpeg_watch;
    j->d.progress = &j->progress;
    jpeg_mem_src(&j->d, j->bytes, (unsigned long)j->n_bytes);
    jpeg_read_header(&j->d, TRUE);
    if (j->buffer)
        jpeg_decode_rows(j);
}

/* ---- PNG -------------------------------------------------------------------------- */

struct png {
    png_structp read;
    png_infop info;
    char *why; size_t why_bytes;
    const uint8_t *bytes; size_t n_bytes, at;
    struct mo_sample_buffer *buffer;
    png_bytep *rows;
    uint64_t max_pixels;
    int channels;
    png_uint_32 height, width;
    bool is_grey;
    enum mopt_status status;
};

static void png_leave(png_structp read, png_const_charp words)
{
    struct png *p = png_get_error_ptr(read);
    snprintf(p->why, p->why_bytes, "broken PNG: %s", words);
    p->status = MOPT_DATA;
    png_longjmp(read, 1);
}

static void png_silent(png_structp read, png_const_charp words)
{
    (void)read, (void)words;
}

static void png_take(png_structp read, png_bytep to, size_t n)
{
    struct png *p = png_get_io_ptr(read);
    if (n > p->n_bytes - p->at)
        png_error(read, "the file ends too early");
    memcpy(to, p->bytes + p->at, n);
    p->at += n;
}

/* Bytes of one or three channels, whatever the file has. */
static void png_choose_form(struct png *p)
{
    int kind = png_get_color_type(p->read, p->info);
    p->is_grey = !(kind & PNG_COLOR_MASK_COLOR);
    png_set_expand(p->read);
    png_set_strip_16(p->read);
    png_set_strip_alpha(p->read);
    if (p->is_grey && p->channels == RGB)
        png_set_gray_to_rgb(p->read);
    png_set_interlace_handling(p->read);
    png_read_update_info(p->read, p->info);
}

static void png_decode_rows(struct png *p)
{
    png_choose_form(p);
    size_t row_bytes = png_get_rowbytes(p->read, p->info);
    size_t per_row = (size_t)p->width * (size_t)(p->is_grey && p->channels == 1 ? 1 : RGB);
    if (row_bytes != per_row)
        png_error(p->read, "unexpected form of its rows");
    uint8_t *pixels = mo_buffer_grow(p->buffer, row_bytes * p->height);
    p->rows = mo_mem_new(p->height, sizeof *p->rows);
    if (!pixels || !p->rows) {
        snprintf(p->why, p->why_bytes, "out of memory for an image");
        p->status = MOPT_LIMIT;
        return;
    }
    for (png_uint_32 y = 0; y < p->height; y++)
        p->rows[y] = pixels + row_bytes * y;
    png_read_image(p->read, p->rows);
    png_read_end(p->read, NULL);
    if (p->channels == 1 && !p->is_grey)
        to_grey(pixels, (size_t)p->width * p->height);
}

static void png_run(struct png *p)
{
    if (setjmp(png_jmpbuf(p->read)))
        return;
    png_set_read_fn(p->read, p, png_take);
    png_set_user_limits(p->read, MAX_SIDE, MAX_SIDE);
    png_set_chunk_cache_max(p->read, 128);
    png_set_chunk_malloc_max(p->read, 8u << 20);
    png_read_info(p->read, p->info);
    p->width = png_get_image_width(p->read, p->info);
    p->height = png_get_image_height(p->read, p->info);
    p->is_grey = !(png_get_color_type(p->read, p->info) & PNG_COLOR_MASK_COLOR);
    if (!p->buffer)
        return;
    if ((uint64_t)p->width * p->height > p->max_pixels) {
        snprintf(p->why, p->why_bytes, "the image has too many pixels");
        p->status = MOPT_LIMIT;
        return;
    }
    png_decode_rows(p);
}

static void png_all(struct png *p)
{
    p->read = png_create_read_struct(PNG_LIBPNG_VER_STRING, p, png_leave, png_silent);
    p->info = p->read ? png_create_info_struct(p->read) : NULL;
    if (p->info)
        png_run(p);
    else {
        snprintf(p->why, p->why_bytes, "out of memory for an image");
        p->status = MOPT_LIMIT;
    }
    png_destroy_read_struct(&p->read, &p->info, NULL);
    mo_mem_free(p->rows);
}

/* ---- either ------------------------------------------------------------------------- */

static enum mopt_status run(const uint8_t *bytes, size_t n_bytes, int channels, uint64_t max_pixels,
                            struct mo_sample_buffer *buffer, struct mo_image_info *info, char *why, size_t why_bytes)
{
    if (is_jpeg(bytes, n_bytes)) {
        struct jpeg j = {.why = why, .why_bytes = why_bytes, .bytes = bytes, .n_bytes = n_bytes, .buffer = buffer,
                         .max_pixels = max_pixels, .channels = channels};
        jpeg_run(&j);
        *info = (struct mo_image_info){.height = (int)j.d.image_height, .width = (int)j.d.image_width,
                                       .is_grey = j.d.jpeg_color_space == JCS_GRAYSCALE};
        jpeg_destroy_decompress(&j.d);
        return j.status;
    }
    if (is_png(bytes, n_bytes)) {
        struct png p = {.why = why, .why_bytes = why_bytes, .bytes = bytes, .n_bytes = n_bytes, .buffer = buffer,
                        .max_pixels = max_pixels, .channels = channels};
        png_all(&p);
        *info = (struct mo_image_info){.height = (int)p.height, .width = (int)p.width, .is_grey = p.is_grey};
        return p.status;
    }
    enum mopt_status s = mo_image_formats(bytes, n_bytes, max_pixels, buffer, info, why, why_bytes);
    if (!s && buffer && channels == 1)
        to_grey(buffer->mem, (size_t)info->height * (size_t)info->width);
    return s;
}

bool mo_image_info(const uint8_t *bytes, size_t n_bytes, struct mo_image_info *info, char *why, size_t why_bytes)
{
    return !run(bytes, n_bytes, RGB, 0, NULL, info, why, why_bytes);
}

enum mopt_status mo_image_decode(const uint8_t *bytes, size_t n_bytes, int channels, uint64_t max_pixels,
                                 struct mo_sample_buffer *buffer, int *height, int *width, char *why, size_t why_bytes)
{
    struct mo_image_info info;
    enum mopt_status s = run(bytes, n_bytes, channels, max_pixels, buffer, &info, why, why_bytes);
    *height = info.height;
    *width = info.width;
    return s;
}

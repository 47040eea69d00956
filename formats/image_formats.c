/* image_formats.c - see image_formats.h. BMP and PNM are read here, TIFF by libtiff, WebP by libwebp, JPEG 2000 by
 * OpenJPEG. */
#include "formats/image_formats.h"

#include <stdio.h>
#include <string.h>

#include <openjpeg-2.5/openjpeg.h>
#include <tiffio.h>
#include <webp/decode.h>

enum { RGB = 3, MAX_SIDE = 65535 };

struct image {
    const uint8_t *bytes; size_t n;
    uint64_t max_pixels;
    struct mo_sample_buffer *buffer;    /* NULL: the header alone */
    struct mo_image_info *info;
    char *why; size_t why_bytes;
};

static enum mopt_status broken(const struct image *im, const char *format, const char *words)
{
    snprintf(im->why, im->why_bytes, "broken %s: %s", format, words);
    return MOPT_DATA;
}

/* Notes the size, and makes room for the pixels where they are wanted. */
static enum mopt_status begin(struct image *im, const char *format, int64_t height, int64_t width, uint8_t **pixels)
{
    if (height < 1 || width < 1 || height > MAX_SIDE || width > MAX_SIDE)
        return broken(im, format, "its size is out of range");
    *im->info = (struct mo_image_info){ .height = (int)height, .width = (int)width };
    *pixels = NULL;
    if (!im->buffer)
        return MOPT_OK;
    if ((uint64_t)height * (uint64_t)width > im->max_pixels) {
        snprintf(im->why, im->why_bytes, "%lldx%lld pixels are more than the limit", (long long)width, (long long)height);
        return MOPT_LIMIT;
    }
    *pixels = mo_buffer_grow(im->buffer, (size_t)height * (size_t)width * RGB);
    if (*pixels)
        return MOPT_OK;
    snprintf(im->why, im->why_bytes, "no memory for its pixels");
    return MOPT_LIMIT;
}

/* ---- BMP: https://learn.microsoft.com/windows/win32/api/wingdi/ns-wingdi-bitmapinfoheader, without compression ---- */

static uint32_t little(const uint8_t *p, int n)
{
    uint32_t x = 0;
    for (int i = 0; i < n; i++)
        x |= (uint32_t)p[i] << 8 * i;
    return x;
}

static void bmp_row(const uint8_t *row, int64_t width, int bits, const uint8_t *palette, uint8_t *to)
{
    for (int64_t x = 0; x < width; x++) {
        const uint8_t *p = bits >= 24 ? row + x * (bits / 8)
                                      : palette + 4 * (row[x * bits / 8] >> (8 - bits - x * bits % 8) & ((1 << bits) - 1));
        to[RGB * x] = p[2];
        to[RGB * x + 1] = p[1];
        to[RGB * x + 2] = p[0];
    }
}

static enum mopt_status read_bmp(struct image *im)
{
    if (im->n < 54)
        return broken(im, "BMP", "it is cut off");
    size_t at = little(im->bytes + 10, 4), header = little(im->bytes + 14, 4);
    int64_t width = (int32_t)little(im->bytes + 18, 4), height = (int32_t)little(im->bytes + 22, 4);
    int bits = (int)little(im->bytes + 28, 2);
    uint32_t packing = little(im->bytes + 30, 4);
    bool is_upward = height > 0;
    uint8_t *pixels;
    if (header < 40 || (packing != 0 && !(packing == 3 && bits == 32)) ||
        (bits != 1 && bits != 4 && bits != 8 && bits != 24 && bits != 32))
        return broken(im, "BMP", "only pictures without compression of 1, 4, 8, 24 or 32 bits are read");
    height = is_upward ? height : -height;
    enum mopt_status s = begin(im, "BMP", height, width, &pixels);
    if (s || !pixels)
        return s;
    size_t stride = ((size_t)width * (size_t)bits + 31) / 32 * 4;
    const uint8_t *palette = im->bytes + 14 + header;
    size_t palette_bytes = bits > 8 ? 0 : (size_t)4 << bits;    /* a shorter one is followed by pixels */
    if (header > im->n || at > im->n || stride * (size_t)height > im->n - at ||
        palette_bytes > im->n - MO_MIN(im->n, 14 + header))
        return broken(im, "BMP", "it is cut off");
    for (int64_t y = 0; y < height; y++)
        bmp_row(im->bytes + at + (size_t)(is_upward ? height - 1 - y : y) * stride, width, bits, palette,
                pixels + (size_t)y * (size_t)width * RGB);
    return MOPT_OK;
}

/* ---- PNM: P1 to P6 (https://netpbm.sourceforge.net/doc/pnm.html) ---- */

struct pnm { const uint8_t *at, *end; };

/* The next number behind spaces and comments; -1: there is none. */
static int64_t pnm_number(struct pnm *p, bool is_digit)
{
    while (p->at < p->end && (*p->at <= ' ' || *p->at == '#'))
        if (*p->at++ == '#')
            while (p->at < p->end && *p->at != '\n')
                p->at++;
    int64_t x = -1;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9' && x < 1 << 24) {
        x = (x < 0 ? 0 : x) * 10 + (*p->at++ - '0');
        if (is_digit)
            break;
    }
    return x;
}

/* Sample i of a row as a byte; -1: there is none. */
static int pnm_sample(struct pnm *p, int kind, int64_t most, int64_t i)
{
    int64_t x;
    if (kind <= 3) {
        x = pnm_number(p, kind == 1);
    } else if (kind == 4) {
        x = p->at < p->end ? *p->at >> (7 - i % 8) & 1 : -1;
        p->at += i % 8 == 7;
    } else {
        size_t bytes = most > 255 ? 2 : 1;
        x = (size_t)(p->end - p->at) < bytes ? -1 : bytes == 2 ? p->at[0] << 8 | p->at[1] : p->at[0];
        p->at += x < 0 ? 0 : bytes;
    }
    if (x < 0)
        return -1;
    if (kind == 1 || kind == 4)
        return x ? 0 : 255;
    return (int)(most == 255 ? MO_MIN(x, 255) : (MO_MIN(x, most) * 255 + most / 2) / most);
}

static enum mopt_status read_pnm(struct image *im)
{
    int kind = im->bytes[1] - '0', channels = kind == 3 || kind == 6 ? RGB : 1;
    struct pnm p = { im->bytes + 2, im->bytes + im->n };
    int64_t width = pnm_number(&p, false), height = pnm_number(&p, false),
            most = kind == 1 || kind == 4 ? 1 : pnm_number(&p, false);
    uint8_t *pixels;
    if (most < 1 || most > 65535)
        return broken(im, "PNM", "its header is not whole");
    enum mopt_status s = begin(im, "PNM", height, width, &pixels);
    im->info->is_grey = channels == 1;
    if (s || !pixels)
        return s;
    p.at += kind >= 4 && p.at < p.end;          /* one space */
    for (int64_t y = 0; y < height; y++) {
        for (int64_t i = 0; i < width * channels; i++) {
            int x = pnm_sample(&p, kind, most, i);
            if (x < 0)
                return broken(im, "PNM", "it is cut off");
            for (int k = 0; k < RGB / channels; k++)
                *pixels++ = (uint8_t)x;
        }
        p.at += kind == 4 && width % 8 != 0 && p.at < p.end;
    }
    return MOPT_OK;
}

/* ---- TIFF ---- */

struct memory { const uint8_t *bytes; uint64_t n, at; };

static tmsize_t tiff_read(thandle_t user, void *to, tmsize_t n)
{
    struct memory *m = user;
    uint64_t got = m->at >= m->n ? 0 : MO_MIN((uint64_t)n, m->n - m->at);
    memcpy(to, m->bytes + (got ? m->at : 0), (size_t)got);
    m->at += got;
    return (tmsize_t)got;
}

static tmsize_t tiff_write(thandle_t user, void *from, tmsize_t n)
{
    (void)user, (void)from, (void)n;
    return -1;
}

static toff_t tiff_seek(thandle_t user, toff_t to, int whence)
{
    struct memory *m = user;
    m->at = whence == SEEK_SET ? to : whence == SEEK_CUR ? m->at + to : m->n + to;
    return m->at;
}

static int tiff_close(thandle_t user)
{
    (void)user;
    return 0;
}

static toff_t tiff_size(thandle_t user)
{
    return ((struct memory *)user)->n;
}

static int tiff_error(TIFF *t, void *user, const char *module, const char *fmt, va_list ap)
{
    struct image *im = user;
    (void)t, (void)module;
    vsnprintf(im->why, im->why_bytes, fmt, ap);
    return 1;
}

static int tiff_warning(TIFF *t, void *user, const char *module, const char *fmt, va_list ap)
{
    (void)t, (void)user, (void)module, (void)fmt, (void)ap;
    return 1;
}

static enum mopt_status tiff_pixels(struct image *im, TIFF *t)
{
    uint32_t width = 0, height = 0;
    uint8_t *pixels;
    TIFFGetField(t, TIFFTAG_IMAGEWIDTH, &width);
    TIFFGetField(t, TIFFTAG_IMAGELENGTH, &height);
    enum mopt_status s = begin(im, "TIFF", height, width, &pixels);
    if (s || !pixels)
        return s;
    size_t n = (size_t)width * height;
    uint32_t *rgba = mo_mem_new(n, sizeof *rgba);
    if (!rgba) {
        snprintf(im->why, im->why_bytes, "no memory for its pixels");
        return MOPT_LIMIT;
    }
    im->why[0] = 0;
    bool is_read = TIFFReadRGBAImageOriented(t, width, height, rgba, ORIENTATION_TOPLEFT, 1);
    for (size_t i = 0; is_read && i < n; i++) {
        pixels[RGB * i] = (uint8_t)TIFFGetR(rgba[i]);
        pixels[RGB * i + 1] = (uint8_t)TIFFGetG(rgba[i]);
        pixels[RGB * i + 2] = (uint8_t)TIFFGetB(rgba[i]);
    }
    mo_mem_free(rgba);
    if (!is_read && !im->why[0])
        return broken(im, "TIFF", "its pixels cannot be read");
    return is_read ? MOPT_OK : MOPT_DATA;
}

static enum mopt_status read_tiff(struct image *im)
{
    struct memory m = { im->bytes, im->n, 0 };
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    if (!options)
        return broken(im, "TIFF", "no memory");
    TIFFOpenOptionsSetErrorHandlerExtR(options, tiff_error, im);
    TIFFOpenOptionsSetWarningHandlerExtR(options, tiff_warning, im);
    TIFFOpenOptionsSetMaxSingleMemAlloc(options, (tmsize_t)1 << 30);
    snprintf(im->why, im->why_bytes, "broken TIFF");
    TIFF *t = TIFFClientOpenExt("image", "rm", &m, tiff_read, tiff_write, tiff_seek, tiff_close, tiff_size, NULL, NULL,
                                options);
    TIFFOpenOptionsFree(options);
    if (!t)
        return MOPT_DATA;
    enum mopt_status s = tiff_pixels(im, t);
    TIFFClose(t);
    return s;
}

/* ---- WebP ---- */

static enum mopt_status read_webp(struct image *im)
{
    int width = 0, height = 0;
    uint8_t *pixels;
    if (!WebPGetInfo(im->bytes, im->n, &width, &height))
        return broken(im, "WebP", "its header is not whole");
    enum mopt_status s = begin(im, "WebP", height, width, &pixels);
    if (s || !pixels)
        return s;
    size_t bytes = (size_t)width * (size_t)height * RGB;
    return WebPDecodeRGBInto(im->bytes, im->n, pixels, bytes, width * RGB) ? MOPT_OK
                                                                           : broken(im, "WebP", "its pixels cannot be read");
}

/* ---- JPEG 2000 ---- */

static OPJ_SIZE_T jp2_read(void *to, OPJ_SIZE_T n, void *user)
{
    struct memory *m = user;
    uint64_t got = m->at >= m->n ? 0 : MO_MIN((uint64_t)n, m->n - m->at);
    if (got == 0)
        return (OPJ_SIZE_T)-1;
    memcpy(to, m->bytes + m->at, (size_t)got);
    m->at += got;
    return (OPJ_SIZE_T)got;
}

static OPJ_OFF_T jp2_skip(OPJ_OFF_T n, void *user)
{
    struct memory *m = user;
    if (n < 0 || (uint64_t)n > m->n - MO_MIN(m->at, m->n))
        return -1;
    m->at += (uint64_t)n;
    return n;
}

static OPJ_BOOL jp2_seek(OPJ_OFF_T at, void *user)
{
    struct memory *m = user;
    if (at < 0 || (uint64_t)at > m->n)
        return OPJ_FALSE;
    m->at = (uint64_t)at;
    return OPJ_TRUE;
}

static uint8_t jp2_sample(const opj_image_comp_t *c, size_t i)
{
    int64_t x = (int64_t)c->data[i] + (c->sgnd ? (int64_t)1 << (c->prec - 1) : 0), most = ((int64_t)1 << c->prec) - 1;
    x = x < 0 ? 0 : MO_MIN(x, most);
    return (uint8_t)(c->prec == 8 ? x : (x * 255 + most / 2) / most);
}

/* Whether the components that are read, grey or the first three as RGB, are of one size that jp2_sample can read. */
static bool jp2_is_plain(const opj_image_t *picture)
{
    const opj_image_comp_t *c = picture->comps;
    if (!c || picture->numcomps < 1)
        return false;
    for (uint32_t k = 0; k < (picture->numcomps >= RGB ? RGB : 1u); k++)
        if (c[k].w != c[0].w || c[k].h != c[0].h || c[k].prec < 1 || c[k].prec > 16)
            return false;
    return true;
}

/* Samples of all components, of which the decoder holds every one. */
static uint64_t jp2_samples(const opj_image_t *picture)
{
    uint64_t n = 0;
    for (uint32_t k = 0; k < picture->numcomps; k++)
        n += (uint64_t)picture->comps[k].w * picture->comps[k].h;
    return n;
}

static enum mopt_status jp2_pixels(struct image *im, opj_codec_t *codec, opj_stream_t *stream, opj_image_t *picture)
{
    enum { MAX_PLANES = 4 };
    uint8_t *pixels;
    if (!jp2_is_plain(picture))
        return broken(im, "JPEG 2000", "its components are none, of different sizes or more than 16 bits");
    bool is_rgb = picture->numcomps >= RGB;
    uint32_t width = picture->comps[0].w, height = picture->comps[0].h;
    enum mopt_status s = begin(im, "JPEG 2000", height, width, &pixels);
    im->info->is_grey = !is_rgb;
    if (s || !pixels)
        return s;
    if (jp2_samples(picture) > MAX_PLANES * (uint64_t)width * height)
        return broken(im, "JPEG 2000", "it has more than four components");
    if (!opj_decode(codec, stream, picture) || !opj_end_decompress(codec, stream))
        return broken(im, "JPEG 2000", "its pixels cannot be read");
    /* a palette makes other components of those that the header told of */
    const opj_image_comp_t *c = picture->comps;
    is_rgb = picture->numcomps >= RGB;
    im->info->is_grey = !is_rgb;
    if (!jp2_is_plain(picture) || c[0].w != width || c[0].h != height)
        return broken(im, "JPEG 2000", "its palette makes no picture");
    size_t n = (size_t)width * height;
    for (int k = 0; k < RGB; k++) {
        const opj_image_comp_t *from = &c[is_rgb ? k : 0];
        if (!from->data)
            return broken(im, "JPEG 2000", "its pixels cannot be read");
        for (size_t i = 0; i < n; i++)
            pixels[RGB * i + (size_t)k] = jp2_sample(from, i);
    }
    return MOPT_OK;
}

static uint64_t big(const uint8_t *p, int n)
{
    uint64_t x = 0;
    for (int i = 0; i < n; i++)
        x = x << 8 | p[i];
    return x;
}

/* The decoder makes tables for each component of each tile before it looks at one, so that a short file could ask for any
 * memory: a stream's SIZ (ISO/IEC 15444-1, A.5.1) has to promise no more of them than fit. */
static bool jp2_has_few_tiles(const uint8_t *bytes, size_t n)
{
    enum { SIZ_BYTES = 42, TILE_BYTES = 8 << 10, PART_BYTES = 2 << 10 };
    const uint64_t most = 256 << 20;
    for (const uint8_t *p = bytes, *end = bytes + n; (p = memmem(p, (size_t)(end - p), "\xff\x4f\xff\x51", 4)); p++) {
        if (end - p < SIZ_BYTES)
            return true;
        uint64_t wide = big(p + 24, 4), high = big(p + 28, 4), parts = big(p + 40, 2);
        if (!wide || !high)
            continue;
        uint64_t across = big(p + 8, 4) / wide + 1, down = big(p + 12, 4) / high + 1;
        if (across > UINT16_MAX || down > UINT16_MAX || across * down > most / (TILE_BYTES + parts * PART_BYTES))
            return false;
    }
    return true;
}

static enum mopt_status read_jp2(struct image *im, OPJ_CODEC_FORMAT format)
{
    struct memory m = { im->bytes, im->n, 0 };
    opj_dparameters_t how;
    opj_image_t *picture = NULL;
    if (!jp2_has_few_tiles(im->bytes, im->n))
        return broken(im, "JPEG 2000", "it has too many tiles");
    opj_codec_t *codec = opj_create_decompress(format);
    opj_stream_t *stream = opj_stream_default_create(OPJ_TRUE);
    enum mopt_status s = broken(im, "JPEG 2000", "its header is not whole");
    opj_set_default_decoder_parameters(&how);
    if (codec && stream) {
        opj_stream_set_user_data(stream, &m, NULL);
        opj_stream_set_user_data_length(stream, im->n);
        opj_stream_set_read_function(stream, jp2_read);
        opj_stream_set_skip_function(stream, jp2_skip);
        opj_stream_set_seek_function(stream, jp2_seek);
        if (opj_setup_decoder(codec, &how) && opj_read_header(stream, codec, &picture))
            s = jp2_pixels(im, codec, stream, picture);
    }
    opj_image_destroy(picture);
    opj_stream_destroy(stream);
    opj_destroy_codec(codec);
    return s;
}

/* ---- which it is ---- */

static bool begins(const struct image *im, size_t at, const char *with, size_t n)
{
    return im->n >= at + n && !memcmp(im->bytes + at, with, n);
}

enum mopt_status mo_image_formats(const uint8_t *bytes, size_t n_bytes, uint64_t max_pixels, struct mo_sample_buffer *buffer,
                                  struct mo_image_info *info, char *why, size_t why_bytes)
{
    struct image im = { bytes, n_bytes, max_pixels, buffer, info, why, why_bytes };
    if (begins(&im, 0, "BM", 2))
        return read_bmp(&im);
    if (n_bytes > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6' && bytes[2] <= ' ')
        return read_pnm(&im);
    if (begins(&im, 0, "II*\0", 4) || begins(&im, 0, "MM\0*", 4))
        return read_tiff(&im);
    if (begins(&im, 0, "RIFF", 4) && begins(&im, 8, "WEBP", 4))
        return read_webp(&im);
    if (begins(&im, 0, "\0\0\0\x0cjP  \r\n\x87\n", 12))
        return read_jp2(&im, OPJ_CODEC_JP2);
    if (begins(&im, 0, "\xff\x4f\xff\x51", 4))
        return read_jp2(&im, OPJ_CODEC_J2K);
    snprintf(why, why_bytes, "neither JPEG nor PNG, BMP, PNM, TIFF, WebP or JPEG 2000");
    return MOPT_DATA;
}

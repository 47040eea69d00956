/* image.c - geometry on bytes, with the rounding of Pillow, which torchvision's definitions for images rest on. */
#include "lib/data/transform.h"

#include <math.h>
#include <string.h>

void *mo_buffer_grow(struct mo_sample_buffer *buffer, size_t bytes)
{
    if (bytes > buffer->bytes) {
        mo_mem_free(buffer->mem);
        buffer->mem = mo_mem_new(bytes, 1);
        buffer->bytes = buffer->mem ? bytes : 0;
    }
    return buffer->mem;
}

void mo_scratch_release(struct mo_scratch *scratch)
{
    mo_mem_free(scratch->image[0].mem);
    mo_mem_free(scratch->image[1].mem);
    mo_mem_free(scratch->rows.mem);
    mo_mem_free(scratch->source.mem);
    mo_mem_free(scratch->floats.mem);
    *scratch = (struct mo_scratch){0};
}

uint8_t *mo_scratch_image(struct mo_scratch *scratch, int height, int width, int channels)
{
    size_t bytes = (size_t)height * (size_t)width;
    if (height < 0 || width < 0 || !mo_mul_size(bytes, (size_t)channels, &bytes))
        return NULL;
    scratch->turn = !scratch->turn;
    return mo_buffer_grow(&scratch->image[scratch->turn], MO_MAX(bytes, (size_t)1));
}

static void set_image(struct mo_image *image, const uint8_t *pixels, int height, int width, int channels)
{
    *image = (struct mo_image){.height = height, .width = width, .channels = channels,
                               .stride = (size_t)width * (size_t)channels, .pixels = pixels};
}

struct mo_image mo_crop(const struct mo_image *image, int top, int left, int height, int width)
{
    struct mo_image part = *image;
    part.pixels += (size_t)top * image->stride + (size_t)left * (size_t)image->channels;
    part.height = height;
    part.width = width;
    return part;
}

/* ---- resize --------------------------------------------------------------------- */

enum { RESIZE_BITS = 22 };      /* fixed point of the weights: 32 less 8 of the pixel less 2 to spare */

/* For each output place the first input and the weights, in fixed point:
 * w(i) = triangle((i + 0.5 - centre) / scale), normalized, scale = max(1, in / out). */
struct taps { int *first, *count; int32_t *weight; int width; };

static int taps_width(int in, int out)
{
    return 2 * (int)ceil(MO_MAX((double)in / out, 1.0)) + 1;
}

static size_t taps_bytes(int in, int out)
{
    return (size_t)out * (2 + (size_t)taps_width(in, out)) * sizeof(int32_t);
}

static double triangle(double x)
{
    return MO_MAX(0.0, 1.0 - fabs(x));
}

static struct taps make_taps(void *mem, int in, int out)
{
    double ratio = (double)in / out, scale = MO_MAX(ratio, 1.0);
    struct taps taps = {.first = mem, .count = (int *)mem + out, .width = taps_width(in, out)};
    taps.weight = (int32_t *)(taps.count + out);
    for (int o = 0; o < out; o++) {
        double centre = (o + 0.5) * ratio, sum = 0;
        int low = MO_MAX((int)(centre - scale + 0.5), 0), high = MO_MIN((int)(centre + scale + 0.5), in);
        int32_t *weight = taps.weight + (size_t)o * (size_t)taps.width;
        taps.first[o] = low;
        taps.count[o] = high - low;
        for (int i = low; i < high; i++)
            sum += triangle((i - centre + 0.5) / scale);
        for (int i = low; i < high; i++) {
            double w = triangle((i - centre + 0.5) / scale) / (sum != 0 ? sum : 1);
            weight[i - low] = (int32_t)(w * (1 << RESIZE_BITS) + 0.5);
        }
    }
    return taps;
}

static uint8_t settle(int64_t sum)
{
    sum >>= RESIZE_BITS;
    return sum < 0 ? 0 : sum > 255 ? 255 : (uint8_t)sum;
}

static void resize_rows(const struct mo_image *in, const struct taps *taps, int out_width, uint8_t *out)
{
    int c_n = in->channels;
    for (int y = 0; y < in->height; y++) {
        const uint8_t *row = in->pixels + (size_t)y * in->stride;
        for (int x = 0; x < out_width; x++) {
            const int32_t *w = taps->weight + (size_t)x * (size_t)taps->width;
            const uint8_t *p = row + (size_t)taps->first[x] * (size_t)c_n;
            for (int c = 0; c < c_n; c++) {
                int64_t sum = 1 << (RESIZE_BITS - 1);
                for (int k = 0; k < taps->count[x]; k++)
                    sum += (int64_t)w[k] * p[(size_t)k * (size_t)c_n + (size_t)c];
                *out++ = settle(sum);
            }
        }
    }
}

static void resize_columns(const struct mo_image *in, const struct taps *taps, int out_height, uint8_t *out)
{
    size_t n = (size_t)in->width * (size_t)in->channels;
    for (int y = 0; y < out_height; y++) {
        const int32_t *w = taps->weight + (size_t)y * (size_t)taps->width;
        const uint8_t *p = in->pixels + (size_t)taps->first[y] * in->stride;
        for (size_t x = 0; x < n; x++) {
            int64_t sum = 1 << (RESIZE_BITS - 1);
            for (int k = 0; k < taps->count[y]; k++)
                sum += (int64_t)w[k] * p[(size_t)k * in->stride + x];
            *out++ = settle(sum);
        }
    }
}

bool mo_resize(struct mo_scratch *scratch, struct mo_image *image, int height, int width)
{
    int channels = image->channels;
    if (height == image->height && width == image->width)
        return true;
    size_t across_bytes = taps_bytes(image->width, width), down_bytes = taps_bytes(image->height, height);
    char *mem = mo_buffer_grow(&scratch->rows, across_bytes + down_bytes);
    if (!mem)
        return false;
    struct taps across = make_taps(mem, image->width, width);
    struct taps down = make_taps(mem + across_bytes, image->height, height);
    if (width != image->width) {
        uint8_t *out = mo_scratch_image(scratch, image->height, width, channels);
        if (!out)
            return false;
        resize_rows(image, &across, width, out);
        set_image(image, out, image->height, width, channels);
    }
    if (height != image->height) {
        uint8_t *out = mo_scratch_image(scratch, height, width, channels);
        if (!out)
            return false;
        resize_columns(image, &down, height, out);
        set_image(image, out, height, width, channels);
    }
    return true;
}

/* ---- pad, crop, flip ---------------------------------------------------------------- */

/* Place i of a side of n, mirrored without repeating the border: -1 is 1, n is n - 2. */
static int mirror(int i, int n)
{
    if (n == 1)
        return 0;
    int period = 2 * (n - 1), at = ((i % period) + period) % period;
    return at < n ? at : period - at;
}

bool mo_pad(struct mo_scratch *scratch, struct mo_image *image, int top, int left, int bottom, int right, bool reflect)
{
    int height = image->height + top + bottom, width = image->width + left + right;
    size_t c_n = (size_t)image->channels, row_bytes = (size_t)width * c_n;
    uint8_t *out = mo_scratch_image(scratch, height, width, image->channels);
    if (!out)
        return false;
    if (!reflect)
        memset(out, 0, (size_t)height * row_bytes);
    for (int y = 0; y < height; y++) {
        int from = reflect ? mirror(y - top, image->height) : y - top;
        if (from < 0 || from >= image->height)
            continue;
        const uint8_t *in = image->pixels + (size_t)from * image->stride;
        uint8_t *row = out + (size_t)y * row_bytes;
        memcpy(row + (size_t)left * c_n, in, (size_t)image->width * c_n);
        for (int x = 0; reflect && x < width; x++)
            if (x < left || x >= left + image->width)
                memcpy(row + (size_t)x * c_n, in + (size_t)mirror(x - left, image->width) * c_n, c_n);
    }
    set_image(image, out, height, width, image->channels);
    return true;
}

bool mo_center_crop(struct mo_scratch *scratch, struct mo_image *image, int height, int width)
{
    if (height > image->height || width > image->width) {
        int add_y = MO_MAX(height - image->height, 0), add_x = MO_MAX(width - image->width, 0);
        if (!mo_pad(scratch, image, add_y / 2, add_x / 2, (add_y + 1) / 2, (add_x + 1) / 2, false))
            return false;
    }
    int top = (int)nearbyint((image->height - height) / 2.0), left = (int)nearbyint((image->width - width) / 2.0);
    *image = mo_crop(image, top, left, height, width);
    return true;
}

bool mo_flip(struct mo_scratch *scratch, struct mo_image *image, bool horizontal)
{
    size_t c_n = (size_t)image->channels, row_bytes = (size_t)image->width * c_n;
    uint8_t *out = mo_scratch_image(scratch, image->height, image->width, image->channels), *to = out;
    if (!out)
        return false;
    for (int y = 0; y < image->height; y++, to += row_bytes) {
        const uint8_t *in = image->pixels + (size_t)(horizontal ? y : image->height - 1 - y) * image->stride;
        if (!horizontal)
            memcpy(to, in, row_bytes);
        else if (c_n == 1)
            for (size_t x = 0; x < row_bytes; x++)
                to[x] = in[row_bytes - 1 - x];
        else
            for (size_t x = 0; x < row_bytes; x += c_n)
                memcpy(to + x, in + row_bytes - c_n - x, c_n);
    }
    set_image(image, out, image->height, image->width, image->channels);
    return true;
}

/* ---- affine --------------------------------------------------------------------------- */

static void affine_nearest(const struct mo_image *in, const double m[6], uint8_t *out)
{
    /* 16.16 fixed point, centres of pixels at .5 */
    size_t c_n = (size_t)in->channels;
    int64_t f[6];
    double start[6] = {m[0], m[1], m[2] + m[0] * 0.5 + m[1] * 0.5, m[3], m[4], m[5] + m[3] * 0.5 + m[4] * 0.5};
    for (int i = 0; i < 6; i++)
        f[i] = (int64_t)floor(start[i] * 65536.0 + 0.5);
    for (int y = 0; y < in->height; y++) {
        int64_t fx = f[2] + f[1] * y, fy = f[5] + f[4] * y;
        for (int x = 0; x < in->width; x++, fx += f[0], fy += f[3], out += c_n) {
            int64_t from_x = fx >> 16, from_y = fy >> 16;
            if (from_x >= 0 && from_x < in->width && from_y >= 0 && from_y < in->height)
                memcpy(out, in->pixels + (size_t)from_y * in->stride + (size_t)from_x * c_n, c_n);
            else
                memset(out, 0, c_n);
        }
    }
}

static void affine_bilinear(const struct mo_image *in, const double m[6], uint8_t *out)
{
    size_t c_n = (size_t)in->channels;
    for (int y = 0; y < in->height; y++)
        for (int x = 0; x < in->width; x++, out += c_n) {
            double fx = m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2], fy = m[3] * (x + 0.5) + m[4] * (y + 0.5) + m[5];
            if (!(fx >= 0 && fx < in->width && fy >= 0 && fy < in->height)) {
                memset(out, 0, c_n);
                continue;
            }
            int x0 = (int)floor(fx - 0.5), y0 = (int)floor(fy - 0.5);
            double dx = fx - 0.5 - x0, dy = fy - 0.5 - y0;
            size_t left = (size_t)MO_MAX(x0, 0) * c_n, right = (size_t)MO_MIN(x0 + 1, in->width - 1) * c_n;
            const uint8_t *top = in->pixels + (size_t)MO_MAX(y0, 0) * in->stride;
            const uint8_t *low = in->pixels + (size_t)MO_MIN(y0 + 1, in->height - 1) * in->stride;
            for (size_t c = 0; c < c_n; c++) {
                double a = top[left + c] + (top[right + c] - top[left + c]) * dx;
                double b = low[left + c] + (low[right + c] - low[left + c]) * dx;
                out[c] = (uint8_t)(a + (b - a) * dy);
            }
        }
}

bool mo_affine(struct mo_scratch *scratch, struct mo_image *image, const double m[6], bool bilinear)
{
    uint8_t *out = mo_scratch_image(scratch, image->height, image->width, image->channels);
    if (!out)
        return false;
    if (bilinear)
        affine_bilinear(image, m, out);
    else
        affine_nearest(image, m, out);
    set_image(image, out, image->height, image->width, image->channels);
    return true;
}

/* color.c - colours of images in bytes, with Pillow's arithmetic (ITU-R 601-2 luma, blends cut to bytes). */
#include "lib/data/transform.h"

#include <string.h>

/* L = 0.299 R + 0.587 G + 0.114 B in 16-bit fixed point, rounded. */
static uint8_t luma(const uint8_t *rgb)
{
    return (uint8_t)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 0x8000u) >> 16);
}

bool mo_channels(struct mo_scratch *scratch, struct mo_image *image, int channels)
{
    if (channels == image->channels)
        return true;
    int height = image->height, width = image->width;
    uint8_t *out = mo_scratch_image(scratch, height, width, channels), *to = out;
    if (!out)
        return false;
    for (int y = 0; y < height; y++) {
        const uint8_t *in = image->pixels + (size_t)y * image->stride;
        for (int x = 0; x < width; x++) {
            if (channels == 1)
                *to++ = luma(in + 3 * (size_t)x);
            else {
                memset(to, in[x], 3);
                to += 3;
            }
        }
    }
    *image = (struct mo_image){.height = height, .width = width, .channels = channels,
                               .stride = (size_t)width * (size_t)channels, .pixels = out};
    return true;
}

/* from + factor (to - from) in float, cut to a byte. */
static uint8_t blend(uint8_t from, uint8_t to, float factor)
{
    float mixed = (float)from + factor * (float)(to - from);
    return mixed <= 0 ? 0 : mixed >= 255 ? 255 : (uint8_t)mixed;
}

static uint8_t mean_luma(const struct mo_image *image)
{
    uint64_t sum = 0;
    for (int y = 0; y < image->height; y++) {
        const uint8_t *in = image->pixels + (size_t)y * image->stride;
        for (int x = 0; x < image->width; x++)
            sum += image->channels == 3 ? luma(in + 3 * (size_t)x) : in[x];
    }
    double n = (double)image->height * image->width;
    return n > 0 ? (uint8_t)((double)sum / n + 0.5) : 0;
}

bool mo_recolor(struct mo_scratch *scratch, struct mo_image *image, enum mo_color kind, double factor)
{
    int c_n = image->channels;
    uint8_t *out = mo_scratch_image(scratch, image->height, image->width, c_n), *to = out;
    if (!out)
        return false;
    uint8_t grey = kind == MO_COLOR_CONTRAST ? mean_luma(image) : 0;
    for (int y = 0; y < image->height; y++) {
        const uint8_t *in = image->pixels + (size_t)y * image->stride;
        for (int x = 0; x < image->width; x++, in += c_n) {
            if (kind == MO_COLOR_SATURATION)
                grey = c_n == 3 ? luma(in) : in[0];
            for (int c = 0; c < c_n; c++)
                *to++ = blend(grey, in[c], (float)factor);
        }
    }
    image->pixels = out;
    image->stride = (size_t)image->width * (size_t)c_n;
    return true;
}

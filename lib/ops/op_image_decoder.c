/* ImageDecoder: a picture in a file's bytes (JPEG, PNG, BMP, PNM, TIFF, WebP, JPEG 2000) as height x width x channels, in
 * the order RGB or BGR, or the luma of it (ITU-R 601-2, in 16 bits as Pillow computes it). */
#include <string.h>

#include "lib/base/io.h"
#include "lib/ops/host.h"

enum pixel_format { FORMAT_RGB, FORMAT_BGR, FORMAT_GREY };

static enum mopt_status read_format(struct mopt_ctx *ctx, const struct mo_node *n, enum pixel_format *format)
{
    static const char *const names[] = { "RGB", "BGR", "Grayscale" };
    const char *text = mo_node_text(n, "pixel_format", "RGB");
    int k = 0;
    while (k < 3 && strcmp(text, names[k]))
        k++;
    if (k == 3)
        return mo_fail(ctx, MOPT_DATA, "pixel_format '%.40s', it should be RGB, BGR or Grayscale", text);
    *format = (enum pixel_format)k;
    return MOPT_OK;
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    enum pixel_format format;
    MO_TRY(read_format(ctx, n, &format));
    if ((x->dtype != MO_U8 && x->dtype != MO_UNDEFINED) || (x->shape.rank != MO_UNKNOWN && x->shape.rank != 1))
        return mo_fail(ctx, MOPT_DATA, "its input should be a list of bytes (uint8)");
    struct mo_shape y = mo_shape_of(3, (int64_t)MO_UNKNOWN, (int64_t)MO_UNKNOWN, (int64_t)(format == FORMAT_GREY ? 1 : 3));
    mo_set_out(g, n, 0, MO_U8, &y);
    return MOPT_OK;
}

static void convert(enum pixel_format format, size_t n, uint8_t *pixels)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t red = pixels[3 * i], green = pixels[3 * i + 1], blue = pixels[3 * i + 2];
        if (format == FORMAT_GREY) {
            pixels[i] = (uint8_t)((19595u * red + 38470u * green + 7471u * blue + 0x8000u) >> 16);
        } else if (format == FORMAT_BGR) {
            pixels[3 * i] = blue;
            pixels[3 * i + 2] = red;
        }
    }
}

static enum mopt_status decode(struct mo_host *h)
{
    struct mopt_ctx *ctx = h->run->ctx;
    enum pixel_format format;
    uint8_t *pixels = NULL;
    int height, width;
    if (!ctx->io || !ctx->io->decode_image)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "pictures cannot be read here");
    MO_TRY(read_format(ctx, h->node, &format));
    MO_TRY(ctx->io->decode_image(ctx, h->in[0], mo_value_bytes(mo_in(h->run->graph, h->node, 0)), &pixels, &height, &width));
    convert(format, (size_t)height * (size_t)width, pixels);
    struct mo_shape y = mo_shape_of(3, (int64_t)height, (int64_t)width, (int64_t)(format == FORMAT_GREY ? 1 : 3));
    enum mopt_status status = mo_host_make(h, 0, MO_U8, &y, pixels);
    mo_mem_free(pixels);
    return status;
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    struct mo_host h;
    enum mopt_status status = mo_host_open(&h, r, n);
    if (!status)
        status = decode(&h);
    mo_host_close(&h);
    return status;
}

const struct mo_op mo_op_image_decoder = {
    .type = "ImageDecoder",
    .since_opset = 20,
    .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
    .flags = MO_OP_SHAPES_BY_RUN,
    .infer = infer, .forward = forward,
    .macs = mo_macs_zero,
};

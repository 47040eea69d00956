/* create_families.c - the networks that create knows by name, as their papers give them.
 *
 *   mlp          LeCun et al. 1998 (300-100); Flatten, fully connected layers, Relu between
 *   lenet5       LeCun et al. 1998 in the widths of the Caffe example: 20, 50, 500; Relu behind each convolution
 *   cnn          two 3x3 convolutions of 32 and 64 with BatchNorm, a layer of 128
 *   resnet20     He et al. 2016, section 4.2, with 1x1 convolutions where the shape changes
 *   resnet18     He et al. 2016, table 1; 3x3 stem without pooling for pictures up to 64
 *   mobilenetv2  Sandler et al. 2018, table 2; the first two strides are 1 for pictures up to 64 */
#include <stdio.h>
#include <string.h>

#include "lib/passes/create.h"

static const int64_t two[2] = { 2, 2 }, one[2] = { 1, 1 }, none[2] = { 0, 0 };

static void max_pool2(struct mo_build *b)
{
    mo_build_pool(b, "MaxPool", two, two, none);
}

static void mlp(struct mo_build *b, const struct mo_create_spec *spec, int64_t classes)
{
    static const int64_t usual[] = { 300, 100 };
    const int64_t *hidden = usual;
    uint32_t n_hidden = MO_COUNT(usual);
    mo_build_flatten(b);
    if (spec->n_widths) {
        int64_t in = b->shape.dim[0], first = spec->widths[0], last = spec->widths[spec->n_widths - 1];
        if (spec->n_widths < 2)
            b->status = mo_fail(b->ctx, MOPT_USAGE, "layers of an mlp are at least two: 784,10");
        else if (first != in)
            b->status = mo_fail(b->ctx, MOPT_USAGE, "the first of layers is %lld, but the input has %lld values",
                                (long long)first, (long long)in);
        else if (spec->classes && spec->classes != last)
            b->status = mo_fail(b->ctx, MOPT_USAGE, "the last of layers is %lld, but there are %lld classes",
                                (long long)last, (long long)spec->classes);
        if (b->status)
            return;
        hidden = spec->widths + 1;
        n_hidden = spec->n_widths - 2;
        classes = last;
    }
    char name[32];
    for (uint32_t i = 0; i < n_hidden; i++) {
        snprintf(name, sizeof name, "fc%u", i + 1);
        mo_build_linear(b, name, mo_build_wide(b, hidden[i], 1), true);
        mo_build_unary(b, "Relu");
    }
    snprintf(name, sizeof name, "fc%u", n_hidden + 1);
    mo_build_linear(b, name, classes, true);
}

static void lenet5(struct mo_build *b, const struct mo_create_spec *spec, int64_t classes)
{
    static const int64_t five[2] = { 5, 5 };
    (void)spec;
    mo_build_conv(b, "conv1", mo_build_wide(b, 20, 1), five, one, none, 1, true);
    mo_build_unary(b, "Relu");
    max_pool2(b);
    mo_build_conv(b, "conv2", mo_build_wide(b, 50, 1), five, one, none, 1, true);
    mo_build_unary(b, "Relu");
    max_pool2(b);
    mo_build_flatten(b);
    mo_build_linear(b, "fc1", mo_build_wide(b, 500, 1), true);
    mo_build_unary(b, "Relu");
    mo_build_linear(b, "fc2", classes, true);
}

static void cnn(struct mo_build *b, const struct mo_create_spec *spec, int64_t classes)
{
    static const int64_t widths[] = { 32, 64 };
    (void)spec;
    for (int i = 0; i < 2; i++) {
        char conv[16], norm[16];
        snprintf(conv, sizeof conv, "conv%d", i + 1);
        snprintf(norm, sizeof norm, "bn%d", i + 1);
        mo_build_conv_same(b, conv, mo_build_wide(b, widths[i], 1), 3, 1, false);
        mo_build_batch_norm(b, norm);
        mo_build_unary(b, "Relu");
        max_pool2(b);
    }
    mo_build_flatten(b);
    mo_build_linear(b, "fc1", mo_build_wide(b, 128, 1), true);
    mo_build_unary(b, "Relu");
    mo_build_linear(b, "fc2", classes, true);
}

/* conv, norm, and Relu when asked; NAME.conv1, NAME.bn1. */
static void conv_norm(struct mo_build *b, const char *block, const char *part, int64_t out, int64_t kernel,
                      int64_t stride, bool relu)
{
    char conv[64], norm[64];
    snprintf(conv, sizeof conv, "%s%sconv%s", block, *block ? "." : "", part);
    snprintf(norm, sizeof norm, "%s%sbn%s", block, *block ? "." : "", part);
    mo_build_conv_same(b, conv, out, kernel, stride, false);
    mo_build_batch_norm(b, norm);
    if (relu)
        mo_build_unary(b, "Relu");
}

/* The basic block: two 3x3 convolutions and a way around them. */
static void basic_block(struct mo_build *b, const char *name, int64_t out, int64_t stride)
{
    mo_value_id x = b->x;
    struct mo_shape in = b->shape;
    conv_norm(b, name, "1", out, 3, stride, true);
    conv_norm(b, name, "2", out, 3, 1, false);
    mo_value_id y = b->x;
    struct mo_shape shape = b->shape;
    if (stride != 1 || in.dim[0] != out) {
        b->x = x;
        b->shape = in;
        conv_norm(b, name, "_down", out, 1, stride, false);
        x = b->x;
        in = b->shape;
        b->x = y;
        b->shape = shape;
    }
    mo_build_add(b, x, &in);
    mo_build_unary(b, "Relu");
}

static void stages(struct mo_build *b, const int64_t *widths, int n_stages, int n_blocks)
{
    for (int s = 0; s < n_stages; s++)
        for (int k = 0; k < n_blocks; k++) {
            char name[32];
            snprintf(name, sizeof name, "layer%d.%d", s + 1, k);
            basic_block(b, name, mo_build_wide(b, widths[s], 1), s && !k ? 2 : 1);
        }
}

static void pooled_head(struct mo_build *b, int64_t classes)
{
    mo_build_global_pool(b);
    mo_build_flatten(b);
    mo_build_linear(b, "fc", classes, true);
}

static void resnet20(struct mo_build *b, const struct mo_create_spec *spec, int64_t classes)
{
    (void)spec;
    conv_norm(b, "", "1", mo_build_wide(b, 16, 1), 3, 1, true);
    stages(b, (int64_t[]){ 16, 32, 64 }, 3, 3);
    pooled_head(b, classes);
}

/* Pictures so small that the ImageNet stem would leave nothing of them. */
static bool is_small(const struct mo_build *b)
{
    return b->shape.rank == 3 && b->shape.dim[1] <= 64 && b->shape.dim[2] <= 64;
}

static void resnet18(struct mo_build *b, const struct mo_create_spec *spec, int64_t classes)
{
    (void)spec;
    bool small = is_small(b);
    conv_norm(b, "", "1", mo_build_wide(b, 64, 1), small ? 3 : 7, small ? 1 : 2, true);
    if (!small)
        mo_build_pool(b, "MaxPool", (int64_t[]){ 3, 3 }, two, one);
    stages(b, (int64_t[]){ 64, 128, 256, 512 }, 4, 2);
    pooled_head(b, classes);
}

/* Widen by t, filter each channel alone, narrow without an activation; around it where nothing changes shape. */
static void inverted_residual(struct mo_build *b, const char *name, int64_t t, int64_t out, int64_t stride)
{
    char conv[64], norm[64];
    mo_value_id x = b->x;
    struct mo_shape in = b->shape;
    int64_t wide = in.dim[0] * t;
    if (t != 1) {
        conv_norm(b, name, "_expand", wide, 1, 1, false);
        mo_build_relu6(b);
    }
    snprintf(conv, sizeof conv, "%s.conv_depthwise", name);
    snprintf(norm, sizeof norm, "%s.bn_depthwise", name);
    mo_build_conv(b, conv, wide, (int64_t[]){ 3, 3 }, (int64_t[]){ stride, stride }, one, wide, false);
    mo_build_batch_norm(b, norm);
    mo_build_relu6(b);
    conv_norm(b, name, "_project", out, 1, 1, false);
    if (stride == 1 && in.dim[0] == out)
        mo_build_add(b, x, &in);
}

static void mobilenetv2(struct mo_build *b, const struct mo_create_spec *spec, int64_t classes)
{
    static const struct { int64_t t, c, n, s; } rows[] = {
        { 1, 16, 1, 1 }, { 6, 24, 2, 2 }, { 6, 32, 3, 2 }, { 6, 64, 4, 2 },
        { 6, 96, 3, 1 }, { 6, 160, 3, 2 }, { 6, 320, 1, 1 },
    };
    enum { UNIT = 8 };
    (void)spec;
    bool small = is_small(b);
    int number = 1;
    conv_norm(b, "", "1", mo_build_wide(b, 32, UNIT), 3, small ? 1 : 2, false);
    mo_build_relu6(b);
    for (size_t r = 0; r < MO_COUNT(rows) && !b->status; r++)
        for (int64_t k = 0; k < rows[r].n; k++) {
            char name[32];
            snprintf(name, sizeof name, "block%d", number++);
            int64_t stride = k || (small && r == 1) ? 1 : rows[r].s;
            inverted_residual(b, name, rows[r].t, mo_build_wide(b, rows[r].c, UNIT), stride);
        }
    conv_norm(b, "", "_last", b->width > 1 ? mo_build_wide(b, 1280, UNIT) : 1280, 1, 1, false);
    mo_build_relu6(b);
    pooled_head(b, classes);
}

static const struct mo_family families[] = {
    { "mlp", "any shape", { 3, { 1, 28, 28 } }, 10, mlp },
    { "lenet5", "CxHxW", { 3, { 1, 28, 28 } }, 10, lenet5 },
    { "cnn", "CxHxW", { 3, { 1, 28, 28 } }, 10, cnn },
    { "resnet20", "CxHxW", { 3, { 3, 32, 32 } }, 10, resnet20 },
    { "resnet18", "CxHxW", { 3, { 3, 224, 224 } }, 1000, resnet18 },
    { "mobilenetv2", "CxHxW", { 3, { 3, 224, 224 } }, 1000, mobilenetv2 },
    { "transformer", "TOKENSxFEATURES", { 2, { 64, 256 } }, 10, mo_create_transformer },
};

const struct mo_family *mo_family_at(size_t i)
{
    return i < MO_COUNT(families) ? &families[i] : NULL;
}

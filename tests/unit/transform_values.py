"""Writes transform_values.h: what torchvision makes of one small image, for test_transform.c.

    pip install pillow torch torchvision; python3 tests/unit/transform_values.py > tests/unit/transform_values.h
"""
import numpy as np
import torchvision
import PIL
from PIL import Image
from torchvision.transforms import InterpolationMode as I
from torchvision.transforms import functional as F

H, W = 11, 13
y, x, c = np.mgrid[0:H, 0:W, 0:3]
pixels = ((x * 17 + y * 29 + c * 61 + x * y * 7 % 50) % 256).astype(np.uint8)
rgb = Image.fromarray(pixels)
grey = Image.fromarray(pixels[:, :, 0].copy())


def affine(scale, mode=I.NEAREST, translate=(0, 0)):
    return lambda im: F.affine(im, 0, list(translate), scale, [0.0, 0.0], interpolation=mode)


cases = [
    ("resize=6x5", lambda im: F.resize(im, [6, 5])),
    ("resize=20x17", lambda im: F.resize(im, [20, 17])),
    ("resize=8", lambda im: F.resize(im, 8)),
    ("resize=11x4", lambda im: F.resize(im, [11, 4])),
    ("center-crop=6", lambda im: F.center_crop(im, 6)),
    ("center-crop=7x4", lambda im: F.center_crop(im, [7, 4])),
    ("center-crop=16x12", lambda im: F.center_crop(im, [16, 12])),
    ("rotate=15:15", lambda im: F.rotate(im, 15)),
    ("rotate=-40:-40", lambda im: F.rotate(im, -40)),
    ("rotate=123:123", lambda im: F.rotate(im, 123)),
    ("rotate=15:15:bilinear", lambda im: F.rotate(im, 15, I.BILINEAR)),
    ("rotate=-70:-70:bilinear", lambda im: F.rotate(im, -70, I.BILINEAR)),
    ("random-scale=1.3:1.3", affine(1.3)),
    ("random-scale=0.7:0.7", affine(0.7)),
    ("random-scale=1.3:1.3:bilinear", affine(1.3, I.BILINEAR)),
    ("random-scale=0.7:0.7:bilinear", affine(0.7, I.BILINEAR)),
    ("brightness=1.4:1.4", lambda im: F.adjust_brightness(im, 1.4)),
    ("brightness=0.5:0.5", lambda im: F.adjust_brightness(im, 0.5)),
    ("contrast=0.3:0.3", lambda im: F.adjust_contrast(im, 0.3)),
    ("contrast=1.7:1.7", lambda im: F.adjust_contrast(im, 1.7)),
    ("saturation=0.2:0.2", lambda im: F.adjust_saturation(im, 0.2)),
    ("saturation=1.8:1.8", lambda im: F.adjust_saturation(im, 1.8)),
    ("grey", lambda im: F.to_grayscale(im, 1)),
    ("hflip=1", F.hflip),
    ("vflip=1", F.vflip),
]

print("/* transform_values.h - made by transform_values.py with torchvision %s and Pillow %s. */" %
      (torchvision.__version__.split("+")[0], PIL.__version__))
print("static const struct { const char *list; int in_channels, height, width, channels; const char *hex; } stored[] = {")
for image, channels in ((rgb, 3), (grey, 1)):
    for name, op in cases:
        out = np.asarray(op(image))
        n = 1 if out.ndim == 2 else out.shape[2]
        text = out.tobytes().hex()
        print('    {"%s", %d, %d, %d, %d,' % (name, channels, out.shape[0], out.shape[1], n))
        rows = [text[i:i + 96] for i in range(0, len(text), 96)]
        print("\n".join('     "%s"' % row for row in rows) + "},")
print("};")
for name, mode in (("constant", "constant"), ("reflect", "reflect")):
    out = np.asarray(F.pad(rgb, [3, 4, 3, 4], padding_mode=mode))
    print("static const char padded_%s[] = /* left and right 3, top and bottom 4 */" % name)
    text = out.tobytes().hex()
    print("\n".join('    "%s"' % text[i:i + 96] for i in range(0, len(text), 96)) + ";")
normal = F.normalize(F.to_tensor(rgb), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).numpy()
print("static const float normalized[] = { /* imagenet; every 29th of C x H x W */")
print("    " + ", ".join("%.9gf" % v for v in normal.reshape(-1)[::29]) + "\n};")

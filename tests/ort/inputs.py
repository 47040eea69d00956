"""Inputs for models: real pictures, digits and speech prepared as each known model wants them, drawn numbers for others."""
import fnmatch
import gzip
import os
import struct
import wave
import zlib

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHARED = os.environ.get("MOPT_SHARED", os.path.join(os.path.dirname(ROOT), "shared", "data"))

# ---- real data ------------------------------------------------------------------------------------------------


def png(path):
    """An 8-bit RGB PNG without interlacing, as height x width x 3. https://www.w3.org/TR/png-3/"""
    with open(path, "rb") as f:
        blob = f.read()
    at, packed = 8, b""
    while at < len(blob):
        size, kind = struct.unpack(">I4s", blob[at:at + 8])
        body = blob[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, bits, color, _, _, interlace = struct.unpack(">IIBBBBB", body)
            assert bits == 8 and color == 2 and not interlace, path
        elif kind == b"IDAT":
            packed += body
        at += size + 12
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + 3 * width)
    out = np.zeros((height, 3 * width), np.uint8)
    for y in range(height):
        kind, row = rows[y, 0], rows[y, 1:].astype(np.int64)
        above = out[y - 1].astype(np.int64) if y else np.zeros_like(row)
        if kind == 0:
            out[y] = row
        elif kind == 1:
            out[y] = np.cumsum(row.reshape(-1, 3), 0).reshape(-1) & 255
        elif kind == 2:
            out[y] = (row + above) & 255
        else:
            line = [0] * (3 + 3 * width)
            up = [0, 0, 0] + above.tolist()
            for x, value in enumerate(row.tolist(), 3):
                a, b, c = line[x - 3], up[x], up[x - 3]
                if kind == 3:
                    guess = (a + b) // 2
                else:
                    pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
                    guess = a if pa <= pb and pa <= pc else b if pb <= pc else c
                line[x] = (value + guess) & 255
            out[y] = line[3:]
    return out.reshape(height, width, 3)


def photo(height, width, which=0):
    """A photograph scaled to that size by nearest neighbour, RGB."""
    name = ("astronaut", "coffee", "chelsea", "cat")
    found = sorted(n for n in os.listdir(f"{SHARED}/photos") if n.endswith(".png"))
    found.sort(key=lambda n: min((k for k, word in enumerate(name) if word in n), default=9))
    image = png(f"{SHARED}/photos/{found[which % len(found)]}")
    rows = np.arange(height) * image.shape[0] // height
    columns = np.arange(width) * image.shape[1] // width
    return image[rows][:, columns]


def pictures(n, height, width, scale, mean=0.0, std=1.0, bgr=False):
    x = np.stack([photo(height, width, k) for k in range(n)]).astype(np.float32)
    x = x[..., ::-1] if bgr else x
    return np.ascontiguousarray(((x * scale - mean) / std).transpose(0, 3, 1, 2), np.float32)


def digits(n):
    with gzip.open(f"{SHARED}/mnist/train-images-idx3-ubyte.gz") as f:
        return np.frombuffer(f.read(16 + 784 * n)[16:], np.uint8).reshape(n, 28, 28).astype(np.float32)


def written(n, height, width, scale, mean, std):
    """Lines of digits, dark on light, for what reads text."""
    rows, columns = height // 28, width // 28
    tiles = 255 - digits(n * rows * columns).reshape(n, rows, columns, 28, 28)
    x = np.full((n, height, width, 3), 255, np.float32)
    x[:, :rows * 28, :columns * 28] = tiles.transpose(0, 1, 3, 2, 4).reshape(n, rows * 28, columns * 28, 1)
    return ((x * scale - mean) / std).transpose(0, 3, 1, 2)


def speech(n_samples, start=16000):
    with wave.open(f"{SHARED}/audio/silero-test-16k.wav") as f:
        f.setpos(start)
        return np.frombuffer(f.readframes(n_samples), np.int16).astype(np.float32) / 32768


def frames(n_frames, size, step):
    x = speech(step * n_frames + size)
    return np.stack([x[k * step:k * step + size] for k in range(n_frames)])


def mel_like(n, n_frames, n_bands):
    """Log-power spectra of speech in that many bands."""
    spectrum = np.abs(np.fft.rfft(frames(n_frames, 320, 160) * np.hanning(320)))[:, :n_bands] ** 2
    return np.repeat(np.log10(spectrum + 1e-9)[None], n, 0).astype(np.float32)


IMAGENET = dict(scale=1 / 255, mean=np.array((0.485, 0.456, 0.406)), std=np.array((0.229, 0.224, 0.225)))


def text_bytes(n):
    with open(os.path.join(ROOT, "README.md"), "rb") as f:
        text = f.read().strip()
    ids = np.full((n, 2048), 256, np.int32)
    for k in range(n):
        part = text[k * 100:]
        first, last = part[:1024], part[-1024:]
        ids[k, :len(first)] = np.frombuffer(first, np.uint8)
        ids[k, 2048 - len(last):] = np.frombuffer(last, np.uint8)
    return ids


def silero(feeds_state=None):
    return [{"input": frames(1, 576, 512), "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000, np.int64)}]


def light():
    with open(f"{SHARED}/models/light_input_0.pb", "rb") as f:
        return [{None: numpy_helper.to_array(onnx.TensorProto.FromString(f.read()))}]


def fixed(make):
    return lambda: [{None: make()}]


def each(make, *arguments):
    return lambda: [{None: make(*a)} for a in arguments]


# The preparation that each model was trained with, by its file name; None: its only input, whatever its name.
KNOWN = {
    "mnist-8.onnx": fixed(lambda: digits(1)[None]),
    "mnist-8_int8*.onnx": fixed(lambda: digits(1)[None] / 255),
    "mnist_rten.onnx": fixed(lambda: (digits(1)[None] / 255 - 0.1307) / 0.3081),
    "mnist.onnx": fixed(lambda: (digits(1)[None] / 255 - 0.1307) / 0.3081),
    "mnist_mlp*.onnx": fixed(lambda: digits(1).reshape(1, 784, 1) / 255),
    "cifar*.onnx": fixed(lambda: pictures(1, 32, 32, 1 / 255, IMAGENET["mean"], 0.225)),
    "magika*.onnx": each(text_bytes, (1,), (3,)),
    "silero*.onnx": silero,
    "dtln_1.onnx": lambda: [{"input_2": np.abs(np.fft.rfft(frames(1, 512, 128)))[None].astype(np.float32),
                             "input_3": np.zeros((1, 2, 128, 2), np.float32)}],
    "dtln_2.onnx": lambda: [{"input_4": frames(1, 512, 128)[None], "input_5": np.zeros((1, 2, 128, 2), np.float32)}],
    "dnsmos_model*.onnx": each(mel_like, (1, 900, 120), (2, 900, 120)),
    "dnsmos_sig*.onnx": each(lambda n: np.repeat(speech(144160)[None], n, 0), (1,), (2,)),
    "ultraface*.onnx": fixed(lambda: pictures(1, 240, 320, 1 / 128, 127 / 128)),
    "yunet_n_320.onnx": fixed(lambda: pictures(1, 320, 320, 1, bgr=True)),
    "yunet_n_dynamic.onnx": each(lambda n, h, w: pictures(n, h, w, 1, bgr=True), (1, 320, 320), (2, 96, 160), (3, 64, 32)),
    "fastestdet_op11.onnx": fixed(lambda: pictures(1, 352, 352, 1 / 255, bgr=True)),
    "fastestdet_op16.onnx": fixed(lambda: pictures(1, 352, 352, 1 / 255)),
    "super_resolution*.onnx": each(lambda n: pictures(n, 224, 224, 1 / 255)[:, :1], (1,), (3,)),
    "gtzan*.onnx": each(lambda n: mel_like(n, 130, 13) * 20, (1,), (5,)),
    "ppocr*_det.onnx": each(lambda n, h, w: written(n, h, w, **IMAGENET), (1, 320, 320), (2, 64, 128)),
    "ppocr*_rec.onnx": each(lambda n, w: written(n, 48, w, 1 / 255, 0.5, 0.5), (1, 320), (3, 96)),
    "ppocr*_cls.onnx": each(lambda n: written(n, 48, 192, 1 / 255, 0.5, 0.5), (1,), (4,)),
    "light_*.onnx": light,
}

# ---- drawn numbers -----------------------------------------------------------------------------------------------

TYPES = {"float": np.float32, "double": np.float64, "float16": np.float16, "int64": np.int64, "int32": np.int32,
         "uint8": np.uint8, "int8": np.int8, "bool": np.bool_}


def drawn(session, batch, free, seed=0):
    """Seeded inputs; a free first dimension is the batch, every other one `free`."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for x in session.get_inputs():
        shape = [d if isinstance(d, int) else batch if k == 0 else free for k, d in enumerate(x.shape)]
        kind = TYPES[x.type[len("tensor("):-1]]
        if np.issubdtype(kind, np.floating):
            feeds[x.name] = rng.standard_normal(shape).astype(kind)
        else:
            feeds[x.name] = rng.integers(0, 2, shape).astype(kind)
    return feeds


def feeds_for(path, session):
    """A list of feeds: what is known for that file, else drawn ones; batch and free dimensions of several sizes."""
    base = os.path.basename(path)
    names = [x.name for x in session.get_inputs()]
    for pattern, make in KNOWN.items():
        if fnmatch.fnmatch(base, pattern):
            known = [{names[0] if k is None else k: np.asarray(v) for k, v in feeds.items()} for feeds in make()]
            types = {x.name: TYPES[x.type[len("tensor("):-1]] for x in session.get_inputs()}
            return [{k: np.asarray(v, types[k], order="C") for k, v in f.items() if k in types} for f in known]
    free_dims = {d for x in session.get_inputs() for d in x.shape if not isinstance(d, int)}
    if not free_dims:
        return [drawn(session, 1, 1)]
    return [drawn(session, 2, 64), drawn(session, 1, 64, 1), drawn(session, 5, 96, 2)]

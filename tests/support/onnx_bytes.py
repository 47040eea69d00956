"""ONNX files byte by byte, so that they can be wrong in any way; the standard library alone."""
import struct


def varint(x):
    out = b""
    x &= (1 << 64) - 1
    while x >= 0x80:
        out += bytes([x & 0x7F | 0x80])
        x >>= 7
    return out + bytes([x])


def number(field, x):
    return varint(field << 3) + varint(x)


def blob(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def single(field, x):
    return varint(field << 3 | 5) + struct.pack("<f", x)


F32, U8, I8, I32, I64, TEXT, BOOL, F16 = 1, 2, 3, 6, 7, 8, 9, 10


def tensor(name, dtype, dims, raw=None, extra=b""):
    data = b"".join(number(1, d) for d in dims) + number(2, dtype) + blob(8, name) + extra
    return data + (blob(9, raw) if raw is not None else b"")


def floats(*x):
    return struct.pack("<%df" % len(x), *x)


def longs(*x):
    return struct.pack("<%dq" % len(x), *x)


def value(name, dtype, dims):
    shape = b"".join(blob(1, blob(2, d) if isinstance(d, str) else number(1, d)) for d in dims)
    return blob(1, name) + blob(2, blob(1, number(1, dtype) + blob(2, shape)))


def attr(name, x):
    if isinstance(x, int):
        return blob(1, name) + number(3, x) + number(20, 2)
    if isinstance(x, float):
        return blob(1, name) + single(2, x) + number(20, 1)
    if isinstance(x, str):
        return blob(1, name) + blob(4, x) + number(20, 3)
    if isinstance(x, list):
        return blob(1, name) + b"".join(number(8, i) for i in x) + number(20, 7)
    kind, data = x
    return blob(1, name) + (blob(5, data) + number(20, 4) if kind == "tensor" else blob(6, data) + number(20, 5))


def node(op, inputs, outputs, domain="", **attrs):
    data = b"".join(blob(1, i) for i in inputs) + b"".join(blob(2, o) for o in outputs) + blob(4, op)
    data += b"".join(blob(5, attr(k, v)) for k, v in attrs.items())
    return data + (blob(7, domain) if domain else b"")


def graph(nodes, inputs, outputs, initializers=()):
    return (b"".join(blob(1, n) for n in nodes) + blob(2, "g") + b"".join(blob(5, t) for t in initializers) +
            b"".join(blob(11, i) for i in inputs) + b"".join(blob(12, o) for o in outputs))


def model(g, opset=17, functions=(), metadata=()):
    data = number(1, 8) + blob(7, g) + blob(8, number(2, opset))
    for key, text in metadata:
        data += blob(14, blob(1, key) + blob(2, text))
    return data + b"".join(blob(25, f) for f in functions)

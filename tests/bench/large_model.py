#!/usr/bin/env python3
"""large_model.py FOLDER [GB [FILES]] - writes FOLDER/large.onnx: a chain of products of matrices in float32 with GB
gigabytes (8) of random weights in FILES external files (1). tests/bench/large.sh measures jobs on it."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from onnx_bytes import *  # noqa

WIDTH = 4096


def main():
    folder, gigabytes = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 8
    n_files = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    each = WIDTH * WIDTH * 4
    count = max(1, int(gigabytes * (1 << 30) / each))
    os.makedirs(folder, exist_ok=True)
    # one block of numbers from -0.05 to 0.05, which each weight starts at another place of
    block = bytearray()
    state = 1
    for _ in range(1 << 16):
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        block += struct.pack("<f", (state >> 40) / (1 << 24) * 0.1 - 0.05)
    block = bytes(block * 2)
    nodes, weights = [], []
    files = [open(os.path.join(folder, "large-%d.data" % k), "wb") for k in range(n_files)]
    for i in range(count):
        f = files[i % n_files]
        place = number(14, 1) + b"".join(blob(13, blob(1, k) + blob(2, v)) for k, v in (
            ("location", "large-%d.data" % (i % n_files)), ("offset", str(f.tell())), ("length", str(each))))
        weights.append(tensor("w%d" % i, F32, [WIDTH, WIDTH], None, place))
        nodes.append(node("MatMul", ["x" if i == 0 else "h%d" % i, "w%d" % i], ["h%d" % (i + 1)]))
        start = i * 4096 % (1 << 18)
        chunk = block[start:start + (1 << 18)]
        for _ in range(each // len(chunk)):
            f.write(chunk)
    for f in files:
        f.close()
    with open(os.path.join(folder, "large.onnx"), "wb") as f:
        f.write(model(graph(nodes, [value("x", F32, ["N", WIDTH])], [value("h%d" % count, F32, ["N", WIDTH])], weights), 21))


main()

"""Training speed of mopt beside PyTorch, in turn, same nets, batch 128, two threads.

usage: train_peers.py MOPT PYTHON_WITH_TORCH [ROUNDS [SECONDS]]
mopt: images per second of `mopt train`, data loading included, on random images in an .npy file.
PyTorch: the training step alone, the best of its layouts (torch_train.py). Ratio above 1: mopt is faster.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile

import numpy as np

MOPT, PYTHON = os.path.abspath(sys.argv[1]), sys.argv[2]
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
SECONDS = sys.argv[4] if len(sys.argv) > 4 else "4"
HERE = os.path.dirname(os.path.abspath(__file__))
NETS = {"lenet5": ("1x28x28", 24576), "resnet20": ("3x32x32", 3072)}


def run(*args):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout


with tempfile.TemporaryDirectory() as folder:
    rng = np.random.default_rng(0)
    for net, (shape, n) in NETS.items():
        np.save(f"{folder}/{net}.x.npy", rng.standard_normal([n] + [int(d) for d in shape.split("x")]).astype(np.float32))
        np.save(f"{folder}/{net}.y.npy", rng.integers(0, 10, n))
        run(MOPT, "create", net, "--input", shape, "--classes", 10, "-o", f"{folder}/{net}.onnx")
    rows = {net: [] for net in NETS}
    for _ in range(ROUNDS):
        for net in NETS:
            run(MOPT, "train", f"{folder}/{net}.onnx", "--data", f"npy:{folder}/{net}.x.npy,{folder}/{net}.y.npy", "--val-split", 0.05,
                "--transform", "none", "--epochs", 2, "--batch", 128, "--threads", 2, "--lr", 1e-4, "--no-evaluate", "--measure", 0,
                "-q", "-f", "-o", f"{folder}/out.onnx", "--report", f"{folder}/r.json")
            ours = json.load(open(f"{folder}/r.json"))["epochs"][-1]["samples_per_second"]
            theirs = max(json.loads(line)["images_per_second"]
                         for line in run(PYTHON, f"{HERE}/torch_train.py", net, 128, 2, SECONDS).splitlines() if line.startswith("{"))
            rows[net].append((ours, theirs))
            print(f"{net}: mopt {ours:.0f}, PyTorch {theirs:.0f} images/s, ratio {ours / theirs:.2f}", flush=True)
    for net, pairs in rows.items():
        ratios = [a / b for a, b in pairs]
        print(f"{net}: mopt {statistics.median(a for a, _ in pairs):.0f}, PyTorch {statistics.median(b for _, b in pairs):.0f} images/s, "
              f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), {ROUNDS} rounds")

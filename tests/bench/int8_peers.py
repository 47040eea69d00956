"""Inference of quantized files: mopt beside ONNX Runtime on the same file, and mopt's own speed on the float file.

usage: int8_peers.py MOPT FLOAT.onnx=INT8.onnx ... [--batch 1,32,128] [--rounds 3] [--seconds 0.5] [--threads 2]

Each round runs the float and the int8 file in mopt (interleaved by `mopt bench`), then the int8 file in ONNX Runtime.
The least time of a round counts, so that other work on the machine does not; ratios are of one round, and their
median, least and largest are printed. Above 1: mopt's int8 is faster. Fails when an int8 file is slower than its float
file in mopt."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime as ort


def mopt_least_ms(mopt, files, batch, seconds, threads):
    out = subprocess.run([mopt, "bench", *files, "--batch", str(batch), "--seconds", str(seconds), "--threads", str(threads),
                          "--json"], capture_output=True, text=True, check=True).stdout
    return [m["latency_ms"]["min"] for m in json.loads(out)["models"]]


class Peer:
    def __init__(self, path, threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.value = self.session.get_inputs()[0]

    def least_ms(self, batch, seconds):
        shape = [d if isinstance(d, int) else batch if i == 0 else 1 for i, d in enumerate(self.value.shape)]
        feed = {self.value.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        self.session.run(None, feed)
        times, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            begin = time.perf_counter()
            self.session.run(None, feed)
            times.append(time.perf_counter() - begin)
        return 1e3 * min(times)


def spread(values):
    return f"{statistics.median(values):6.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mopt")
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--batch", default="1,32,128")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    slower, ratios_to_peer = [], []
    print(f"{'model':<24} batch  mopt int8 ms  ONNX Runtime {ort.__version__} ms  times mopt float         times ONNX Runtime")
    for pair in args.pairs:
        files, name = pair.split("="), os.path.basename(pair.split("=")[1])
        peer = Peer(files[1], args.threads)
        for batch in map(int, args.batch.split(",")):
            rows = []
            for _ in range(args.rounds):
                ours = mopt_least_ms(args.mopt, files, batch, args.seconds, args.threads)
                rows.append((*ours, peer.least_ms(batch, args.seconds)))
            to_float, to_peer = [r[0] / r[1] for r in rows], [r[2] / r[1] for r in rows]
            print(f"{name:<24} {batch:5d} {min(r[1] for r in rows):13.3f} {min(r[2] for r in rows):24.3f}  "
                  f"{spread(to_float)}  {spread(to_peer)}", flush=True)
            ratios_to_peer.append(statistics.median(to_peer))
            if statistics.median(to_float) < 1:
                slower.append(f"{name} at batch {batch}")
    print(f"geometric mean, times ONNX Runtime: {statistics.geometric_mean(ratios_to_peer):.2f}")
    if slower:
        sys.exit("slower than float: " + ", ".join(slower))


main()

"""Inference of quantized files: mopt beside ONNX Runtime on the same file, and mopt's own speed on the float file.

usage: int8_peers.py MOPT FLOAT.onnx=INT8.onnx ... [--batch 1,32,128] [--rounds 3] [--seconds 0.5] [--threads 2] [--cpu]

Each round runs the float and the int8 file in mopt (interleaved by `mopt bench`), then the int8 file in ONNX Runtime.
The least time of a round counts, so that other work on the machine does not; ratios are of one round, and their
median, least and largest are printed. Above 1: mopt's int8 is faster. With --cpu: CPU time of one thread, for machines
with other work on them. Fails when an int8 file is slower than its float file in mopt."""
import argparse
import json
import os
import resource
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


def cpu_of(*command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def mopt_cpu_ms(mopt, path, batch, n):
    """What runs 2n more take."""
    command = (mopt, "bench", path, "--batch", str(batch), "--threads", "1", "--warmup", "0", "--runs")
    return 1e3 * (cpu_of(*command, str(3 * n)) - cpu_of(*command, str(n))) / (2 * n)


class Peer:
    def __init__(self, path, threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.value = self.session.get_inputs()[0]

    def feed(self, batch):
        shape = [d if isinstance(d, int) else batch if i == 0 else 1 for i, d in enumerate(self.value.shape)]
        feed = {self.value.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        self.session.run(None, feed)
        return feed

    def cpu_ms(self, batch, seconds):
        feed, n, begin = self.feed(batch), 0, time.process_time()
        while time.process_time() - begin < seconds or n < 3:
            self.session.run(None, feed)
            n += 1
        return 1e3 * (time.process_time() - begin) / n, n

    def least_ms(self, batch, seconds):
        feed = self.feed(batch)
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
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    slower, ratios_to_peer = [], []
    print(f"{'model':<24} batch  mopt int8 ms  ONNX Runtime {ort.__version__} ms  times mopt float         times ONNX Runtime")
    for pair in args.pairs:
        files, name = pair.split("="), os.path.basename(pair.split("=")[1])
        peer = Peer(files[1], 1 if args.cpu else args.threads)
        for batch in map(int, args.batch.split(",")):
            rows = []
            for _ in range(args.rounds):
                if args.cpu:
                    theirs, n = peer.cpu_ms(batch, args.seconds)
                    rows.append((*(mopt_cpu_ms(args.mopt, f, batch, n) for f in files), theirs))
                else:
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

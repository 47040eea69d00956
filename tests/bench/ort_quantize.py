#!/usr/bin/env python3
"""Times quantized files in ONNX Runtime, interleaved, against the float file and against what ONNX Runtime's own
quantizer writes at its best settings (QUInt8 activations, per-channel QInt8 weights, after quant_pre_process).

    ort_quantize.py [--threads 2] [--batch 1,32] [--rounds 60] FLOAT.onnx=INT8.onnx ...

Fails (exit 1) when an int8 file is slower than its float file, or more than --slack slower than ONNX Runtime's."""
import argparse, os, sys, tempfile, time

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


def shape_of(session, batch):
    value = session.get_inputs()[0]
    return value.name, [d if isinstance(d, int) else batch if i == 0 else 32 for i, d in enumerate(value.shape)]


class Reader(CalibrationDataReader):
    def __init__(self, path):
        name, shape = shape_of(session_of(path, 1), 32)
        rng = np.random.default_rng(0)
        self.rows = iter([{name: rng.normal(size=shape).astype(np.float32)} for _ in range(4)])

    def get_next(self):
        return next(self.rows, None)


def session_of(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def best_of_ort(path, folder):
    prepared, out = os.path.join(folder, "prepared.onnx"), os.path.join(folder, "ort_int8.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, out, Reader(path), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return out


def time_interleaved(sessions, batch, rounds, clock):
    """Least seconds of a run for each, which other work on the machine disturbs least; every round runs each of them, in
    turn."""
    feeds, counts = [], []
    for s in sessions:
        name, shape = shape_of(s, batch)
        feeds.append({name: np.random.default_rng(1).normal(size=shape).astype(np.float32)})
        for _ in range(3):
            s.run(None, feeds[-1])
        start = clock()
        s.run(None, feeds[-1])
        counts.append(max(1, int(0.005 / max(clock() - start, 1e-6))))
    seconds = [[] for _ in sessions]
    for r in range(rounds):
        order = range(len(sessions)) if r % 2 else reversed(range(len(sessions)))
        for i in order:
            start = clock()
            for _ in range(counts[i]):
                sessions[i].run(None, feeds[i])
            seconds[i].append((clock() - start) / counts[i])
    return [min(s) for s in seconds]


def main():
    ort.set_default_logger_severity(3)
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", default="1,32")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of one thread: for a machine that is busy")
    parser.add_argument("--slack", type=float, default=0.1)
    args = parser.parse_args()
    if args.cpu:
        args.threads = 1
    failed = False
    print(f"{'model':24} {'batch':>5} {'fp32 ms':>9} {'ort int8':>9} {'mopt int8':>9}  {'over fp32':>9} {'over ort':>9}")
    for pair in args.pairs:
        full, ours = pair.split("=")
        with tempfile.TemporaryDirectory() as folder:
            try:
                theirs = best_of_ort(full, folder)
                session_of(theirs, args.threads)
            except Exception as error:          # it writes files that it cannot load, for old opsets
                print(f"{os.path.basename(full):24} ONNX Runtime's quantizer failed: {str(error)[:60]!r}")
                theirs = full
            sessions = [session_of(p, args.threads) for p in (full, theirs, ours)]
            for batch in map(int, args.batch.split(",")):
                clock = time.thread_time if args.cpu else time.perf_counter
                a, b, c = time_interleaved(sessions, batch, args.rounds, clock)
                slow = c > a or c > b * (1 + args.slack)
                failed |= slow
                print(f"{os.path.basename(full):24} {batch:5} {a*1e3:9.3f} {b*1e3:9.3f} {c*1e3:9.3f}  {a/c:8.2f}x "
                      f"{b/c:8.2f}x{'   SLOW' if slow else ''}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

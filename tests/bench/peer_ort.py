"""ONNX Runtime's side of bench_peers.py. Requests as JSON lines on stdin, an answer each as a JSON line on stdout.

request: {"file": PATH, "batch": N, "threads": N, "seconds": S}      times inference, graph optimization at its highest
         {"quantize": PATH, "out": PATH, "data": X.npy, "samples": N, "batch": N, "method": "minmax"|"percentile",
          "settings": "best"|"default"}                              quantize_static; "ms" is all of it but imports
answer:  {"ms": median of a run, "cpu_ms": ..., "peak_bytes": of this process so far} or {"error": "..."}

One session lives at a time: idle sessions of one process spin on each other's cores."""
import gc
import json
import os
import resource
import statistics
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort

TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
         "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(bool)": np.bool_, "tensor(float16)": np.float16}


def drawn(value, batch):
    """What `mopt bench` draws: normal floats, small integers; free axes behind the first are 1."""
    shape = [d if isinstance(d, int) else batch if i == 0 else 1 for i, d in enumerate(value.shape)]
    rng, dtype = np.random.default_rng(0), TYPES[value.type]
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def infer(r):
    options = ort.SessionOptions()
    options.intra_op_num_threads = r["threads"]
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(r["file"], options, providers=["CPUExecutionProvider"])
    feed = {v.name: drawn(v, r["batch"]) for v in session.get_inputs()}
    begin = time.perf_counter()
    while time.perf_counter() - begin < min(0.2, r["seconds"]):
        session.run(None, feed)
    times, begin, cpu = [], time.perf_counter(), time.process_time()
    while len(times) < 3 or time.perf_counter() - begin < r["seconds"]:
        t = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - t)
    cpu = time.process_time() - cpu
    del session
    gc.collect()
    return {"ms": 1e3 * statistics.median(times), "cpu_ms": 1e3 * cpu / len(times)}


def quantize(r):
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    begin = time.perf_counter()
    x = np.load(r["data"])[:r["samples"]]

    class Reader(CalibrationDataReader):
        def __init__(self, name):
            self.rows = iter([{name: x[i:i + r["batch"]]} for i in range(0, len(x), r["batch"])])

        def get_next(self):
            return next(self.rows, None)

    session = ort.InferenceSession(r["quantize"], providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    del session
    method = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}[r["method"]]
    with tempfile.TemporaryDirectory() as folder:
        prepared = os.path.join(folder, "prepared.onnx")
        quant_pre_process(r["quantize"], prepared, skip_symbolic_shape=True)
        best = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(prepared, r["out"], Reader(name), quant_format=QuantFormat.QDQ, calibrate_method=method,
                        **(best if r["settings"] == "best" else {}))
    return {"ms": 1e3 * (time.perf_counter() - begin)}


def main():
    print(json.dumps({"version": "ONNX Runtime " + ort.__version__}), flush=True)
    ort.set_default_logger_severity(3)
    for line in sys.stdin:
        r = json.loads(line)
        try:
            said = quantize(r) if "quantize" in r else infer(r)
            said["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        except Exception as e:      # reported as the row's gap, not hidden
            said = {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"[:200]}
        print(json.dumps(said), flush=True)


main()

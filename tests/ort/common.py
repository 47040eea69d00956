"""What the comparisons with ONNX Runtime share: run mopt, check a file, run it there and here."""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

MOPT = os.environ["MOPT"]
DATA = "idx:" + os.environ.get("MOPT_FASHION", "/usr/share/datasets/fashion-mnist")


def mopt(*args, code=0):
    """Runs mopt; its stdout. Any other exit code than `code` is a failure."""
    done = subprocess.run([MOPT, *map(str, args)], capture_output=True, text=True)
    if done.returncode != code:
        sys.exit(f"mopt {' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def report(*args):
    return json.loads(mopt(*args, "--json"))


def session(path, threads=1, plain=False):
    """plain: ONNX Runtime's operators one by one, without its fusions."""
    options = ort.SessionOptions()
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check(path):
    """ONNX's checker, and a load in ONNX Runtime."""
    onnx.checker.check_model(str(path), full_check=True)
    return session(path)


def sample(session_, batch=2, seed=0):
    """Seeded inputs; free dimensions become the batch (first) or 1."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for x in session_.get_inputs():
        shape = [d if isinstance(d, int) else (batch if i == 0 else 1) for i, d in enumerate(x.shape)]
        kind = x.type
        if "float16" in kind:
            feeds[x.name] = rng.standard_normal(shape).astype(np.float16)
        elif "float" in kind:
            feeds[x.name] = rng.standard_normal(shape).astype(np.float32)
        elif "int64" in kind:
            feeds[x.name] = rng.integers(0, 2, shape).astype(np.int64)
        else:
            feeds[x.name] = rng.integers(0, 2, shape).astype(np.int32)
    return feeds


def infer(path, feeds, names):
    """The same inputs through `mopt infer`; the named outputs."""
    with tempfile.TemporaryDirectory() as folder:
        args = ["infer", str(path)]
        for i, (name, x) in enumerate(feeds.items()):
            np.save(f"{folder}/x{i}.npy", x)
            args += ["--input", f"{name}={folder}/x{i}.npy"]
        for i, name in enumerate(names):
            args += ["--output", f"{name}={folder}/y{i}.npy"]
        mopt(*args)
        return [np.load(f"{folder}/y{i}.npy") for i in range(len(names))]


def agree(path, tolerance=1e-4, batch=2, plain=False):
    """mopt and ONNX Runtime give the same outputs, relative to each output's scale; the worst difference."""
    s = check(path)
    if plain:
        s = session(path, plain=True)
    feeds = sample(s, batch)
    names = [y.name for y in s.get_outputs()]
    theirs, ours = s.run(None, feeds), infer(path, feeds, names)
    worst = 0.0
    for name, a, b in zip(names, theirs, ours):
        if a.shape != b.shape or a.dtype != b.dtype:
            sys.exit(f"{path}: output {name} is {b.dtype}{b.shape} here, {a.dtype}{a.shape} there")
        scale = max(1e-6, float(np.max(np.abs(a.astype(np.float64))))) if a.size else 1.0
        worst = max(worst, float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)))) / scale if a.size else 0.0)
    if not worst <= tolerance:
        sys.exit(f"{path}: outputs differ by {worst:.3g} of their scale, more than {tolerance}")
    return worst

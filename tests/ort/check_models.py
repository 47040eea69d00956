"""Real models through mopt and ONNX Runtime: read, shapes inferred, run at several sizes, simplified, written, run again.

    check_models.py [FILE ...]      without files: every model of the shared data, where it is there

Each output agrees with ONNX Runtime's operators, without its own fusions, to 1e-4 of its own scale. All files are tried before the result is told."""
import glob
import os
import subprocess
import sys

import numpy as np
import onnx

from common import MOPT, session
from inputs import SHARED, feeds_for

TOLERANCE = 1e-4


class Wrong(Exception):
    pass


def mopt(*args):
    done = subprocess.run([MOPT, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise Wrong(f"{args[0]}: exit {done.returncode}: {(done.stderr.strip() or done.stdout.strip())[-300:]}")
    return done.stdout


def infer(path, feeds, names):
    args = ["infer", path, "--force"]
    for i, (name, x) in enumerate(feeds.items()):
        np.save(f"in{i}.npy", x)
        args += ["--input", f"{name}=in{i}.npy"]
    for i, name in enumerate(names):
        args += ["--output", f"{name}=out{i}.npy"]
    mopt(*args)
    return [np.load(f"out{i}.npy") for i in range(len(names))]


def difference(theirs, ours, names, what):
    """The worst difference, relative to the scale of the output that it is in."""
    worst = 0.0
    for name, a, b in zip(names, theirs, ours):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise Wrong(f"{what}: output {name} is {b.dtype}{b.shape}, {a.dtype}{a.shape} in ONNX Runtime")
        if not a.size:
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if not np.array_equal(np.isfinite(a) | same, np.isfinite(b) | same):
            raise Wrong(f"{what}: output {name} is not finite in other places")
        scale = max(1e-6, float(np.max(np.abs(a[np.isfinite(a)]), initial=0)))
        worst = max(worst, float(np.max(np.where(same, 0, np.abs(np.where(same, 0, a) - np.where(same, 0, b))))) / scale)
    if not worst <= TOLERANCE:
        raise Wrong(f"{what}: outputs differ by {worst:.3g} of their scale")
    return worst


def n_nodes(path):
    return len(onnx.load(path, load_external_data=False).graph.node)


def check(path):
    """What was found, as text; raises Wrong."""
    clean = "clean.onnx"
    mopt("inspect", path, "--json")
    mopt("simplify", path, "-o", clean, "--force", "--measure", 0)
    onnx.checker.check_model(clean, full_check=True)
    before, after = session(path, plain=True), session(clean, plain=True)
    names = [y.name for y in before.get_outputs()]
    worst = 0.0
    for feeds in feeds_for(path, before):
        shape = "/".join("x".join(map(str, x.shape)) for x in feeds.values())
        try:
            theirs = before.run(None, feeds)
        except Exception as e:      # noqa: BLE001 - a size that the model itself cannot take
            print(f"  {shape}: not taken by ONNX Runtime either: {str(e)[:100]}")
            continue
        kept = {x.name: feeds[x.name] for x in after.get_inputs()}
        worst = max(worst, difference(theirs, infer(path, feeds, names), names, f"mopt at {shape}"),
                    difference(theirs, after.run(None, kept), names, f"simplified, in ONNX Runtime at {shape}"),
                    difference(theirs, infer(clean, kept, names), names, f"simplified, in mopt at {shape}"))
    return f"{n_nodes(path)} nodes, {n_nodes(clean)} simplified, worst difference {worst:.2g}"


def main():
    files = sys.argv[1:] or sorted(glob.glob(f"{SHARED}/models/*.onnx") + glob.glob(f"{SHARED}/models/*/*.onnx"))
    if not files:
        print(f"nothing to do: no models in {SHARED}/models")
    n_wrong = 0
    for path in files:
        try:
            found = "ok   " + check(path)
        except Wrong as e:
            found, n_wrong = f"WRONG {e}", n_wrong + 1
        except Exception as e:      # noqa: BLE001 - the checker or ONNX Runtime refuses what mopt wrote
            found, n_wrong = f"WRONG {type(e).__name__}: {str(e)[:300]}", n_wrong + 1
        print(os.path.basename(path), found, flush=True)
    sys.exit(f"{n_wrong} of {len(files)} models wrong" if n_wrong else 0)


if __name__ == "__main__":
    main()

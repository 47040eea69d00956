#!/usr/bin/env python3
"""Node counts of `mopt simplify` beside onnxsim and onnxslim, each result run in ONNX Runtime against the model as it was.

    MOPT=./mopt simplify_peers.py [--details] [FILE ...]     without files: the models of the shared data

Needs onnx, onnxruntime, onnxsim, onnxslim from PyPI (tests/venv.sh FOLDER onnx onnxruntime onnxsim onnxslim).
Exits with 1 when mopt leaves more nodes than the better of both, or changes an output. Counts are of the nodes of the main
graph; Constant nodes count, as they do in the peers' own tables. mopt folds without its usual bound (--fold-limit 2000), as
the peers do; `bound` is what it leaves with that bound, its default: 1 GB of constants, or twice what there were."""
import collections
import contextlib
import glob
import io
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx

os.environ.setdefault("MOPT", "./mopt")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "ort"))
from common import session          # noqa: E402
from inputs import SHARED, feeds_for    # noqa: E402

PEERS = """
import sys
import onnx
tool, source, target = sys.argv[1:]
if tool == "onnxsim":
    import onnxsim
    model, ok = onnxsim.simplify(source)
    assert ok, "its own check failed"
else:
    import onnxslim
    model = onnxslim.slim(source)
onnx.save(model, target)
"""


def run(tool, source, target):
    """None, or why there is no result."""
    limit = ["--fold-limit", "2000"] if tool == "mopt" else []
    args = ([os.environ["MOPT"], "simplify", source, "-o", target, "--force", "--measure", "0", *limit] if tool in ("mopt", "bound")
            else [sys.executable, "-c", PEERS, tool, source, target])
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "too slow"
    return None if not done.returncode else (done.stderr.strip() or done.stdout.strip()).split("\n")[-1][:60] or "failed"


def difference(source, target):
    """The worst difference of an output, relative to its scale, over several sizes of input."""
    before, after = session(source), session(target)
    worst = 0.0
    for feeds in feeds_for(source, before):
        try:
            theirs = before.run(None, feeds)
        except Exception:       # noqa: BLE001 - a size that the model cannot take
            continue
        ours = after.run(None, {x.name: feeds[x.name] for x in after.get_inputs()})
        for a, b in zip(theirs, ours):
            if a.shape != b.shape:
                return float("inf")
            if a.size:
                a, b = a.astype(np.float64), b.astype(np.float64)
                scale = max(1e-6, float(np.max(np.abs(a[np.isfinite(a)]), initial=0)))
                with np.errstate(invalid="ignore"):
                    worst = max(worst, float(np.nanmax(np.where(a == b, 0, np.abs(a - b)), initial=0)) / scale)
    return worst


def counts(path):
    return collections.Counter(n.op_type for n in onnx.load(path, load_external_data=False).graph.node)


def compare(path, folder, detailed):
    """Prints a row; False: mopt is not the best or not exact."""
    row, best, kinds = f"{os.path.basename(path):46}{sum(counts(path).values()):6}", {}, {}
    for tool in ("mopt", "onnxsim", "onnxslim"):
        target = f"{folder}/{tool}.onnx"
        if os.path.exists(target):
            os.remove(target)
        why = run(tool, path, target)
        try:
            delta = None if why else difference(path, target)
        except Exception as e:      # noqa: BLE001 - ONNX Runtime refuses what the tool wrote
            why = f"{type(e).__name__}: {str(e)[:60]}"
        if why:
            row += f"  {'-':>6} {why:>9}"
            continue
        kinds[tool] = counts(target)
        row += f"  {sum(kinds[tool].values()):6} {delta:9.2g}"
        if delta <= 1e-3 or tool == "mopt":         # a wrong result is no peer
            best[tool] = sum(kinds[tool].values())
        if tool == "mopt" and delta > 1e-4:
            best["mopt"] = 1 << 30
    bound = f"{folder}/bound.onnx"
    row += f"  {'-' if run('bound', path, bound) else sum(counts(bound).values()):>6}"
    ok = best.get("mopt", 1 << 30) <= min([best[t] for t in best if t != "mopt"], default=1 << 30)
    print(row, "" if ok else "  <- more", flush=True)
    if detailed and not ok and "mopt" in kinds:
        for tool in best:
            if tool != "mopt" and best[tool] < best["mopt"]:
                print("      against", tool, {k: kinds["mopt"][k] - kinds[tool][k] for k in kinds["mopt"] | kinds[tool]
                                              if kinds["mopt"][k] != kinds[tool][k]})
    return ok


def main():
    detailed = "--details" in sys.argv
    files = [a for a in sys.argv[1:] if not a.startswith("--")]
    files = files or sorted(glob.glob(f"{SHARED}/models/*.onnx") + glob.glob(f"{SHARED}/models/*/*.onnx"))
    print(f"{'model':46}{'nodes':>6}  {'mopt':>6} {'differs':>9}  {'onnxsim':>6} {'differs':>9}  {'onnxslim':>6} {'differs':>8}  {'bound':>6}")
    n_wrong = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        for path in files:
            n_wrong += not compare(path, folder, detailed)
    print(f"{len(files)} models, {len(files) - n_wrong} with at most the nodes of both and the same outputs")
    sys.exit(n_wrong > 0)


main()

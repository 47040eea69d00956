"""The tools' rows of bench_peers.py: static quantization, pruning, start-up, peak memory. Medians of three, in turn; above
1: mopt takes less. They go to bench-tools.json beside the table of nets."""
import json
import os
import statistics
import sys

SAMPLES = 128
PRUNE = """
import sys, onnx, torch
from onnx import numpy_helper
from torch.nn.utils import prune
model = onnx.load(sys.argv[1])
net, places = torch.nn.Module(), []
for i, t in enumerate(model.graph.initializer):
    if len(t.dims) > 1:
        part = torch.nn.Module()
        part.weight = torch.nn.Parameter(torch.from_numpy(numpy_helper.to_array(t).copy()))
        net.add_module(f"p{i}", part)
        places.append((part, t))
prune.global_unstructured([(p, "weight") for p, _ in places], pruning_method=prune.L1Unstructured, amount=0.9)
for part, t in places:
    prune.remove(part, "weight")
    t.raw_data = part.weight.detach().numpy().tobytes()
onnx.save(model, sys.argv[2])
"""
INFER = """
import sys, numpy as np, onnxruntime as ort
o = ort.SessionOptions()
o.intra_op_num_threads = 1
s = ort.InferenceSession(sys.argv[1], o, providers=["CPUExecutionProvider"])
v = s.get_inputs()[0]
x = np.random.default_rng(0).standard_normal([int(sys.argv[2])] + [int(d) for d in sys.argv[3].split("x")]).astype(np.float32)
for _ in range(3):
    s.run(None, {v.name: x})
"""


def tools(bench):
    from bench_peers import NETS, Peer, run_measured
    rows, folder, mopt = [], bench.folder, bench.args.mopt
    shape = NETS["resnet18"][0]
    if "resnet18" not in bench.files:
        bench.make("resnet18")
    net = bench.files["resnet18"]

    def add(what, unit, ours, theirs, scale=1.0):
        a, b = (statistics.median(x) * scale for x in (ours, theirs))
        ratios = [y / x for x, y in zip(ours, theirs)]
        rows.append({"what": what, "unit": unit, "mopt": round(a, 4), "peer": round(b, 4), "ratio": round(statistics.median(ratios), 3),
                     "ratio_low": round(min(ratios), 3), "ratio_high": round(max(ratios), 3)})
        print(f"{what:<62} {a:10.3f} {b:10.3f} {unit:<4} {rows[-1]['ratio']:8.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)

    def in_turn(ours, theirs):
        """Seconds and bytes of both, three times each."""
        pairs = [(run_measured(ours)[:2], run_measured(theirs)[:2]) for _ in range(3)]
        return [[p[side][k] for p in pairs] for k in (0, 1) for side in (0, 1)]

    print(f"\n{'tools':<62} {'mopt':>10} {'peer':>10}")
    python, out = sys.executable, os.path.join(folder, "out.onnx")
    for method in ("minmax", "percentile"):
        command = bench.quantize_command(net, shape, out, SAMPLES, method)
        data = bench.data(shape, SAMPLES)
        forward = SAMPLES / 1e3 * bench.mopt_wall(bench.bench_command(net, 32, 0, "infer", "fp32"))["ms"] / 32
        seconds, peaks, their_seconds, their_peaks = [], [], [], []
        for _ in range(3):
            spent, peak, _ = run_measured(command)
            peer = Peer("peer_ort.py")
            said = peer.ask(quantize=net, out=out, data=data, samples=SAMPLES, batch=32, method=method, settings="best")
            peer.close()
            if "error" in said:
                bench.skipped.append(f"quantize_static {method}: {said['error']}")
                break
            seconds.append(spent)
            peaks.append(peak)
            their_seconds.append(said["ms"] / 1e3)
            their_peaks.append(said["peak_bytes"])
        if not seconds:
            continue
        add(f"quantize ResNet-18, {method}, {SAMPLES} samples; quantize_static", "s", seconds, their_seconds)
        add("  peak memory", "MB", peaks, their_peaks, 1e-6)
        print(f"  mopt's forward passes over the samples alone: {forward:.3f} s; quantizing takes "
              f"{statistics.median(seconds) / forward:.2f} times that")
        rows[-2]["forward_seconds"] = round(forward, 4)
    a, b, c, d = in_turn([mopt, "prune", net, "--amount", 0.9, "--measure", 0, "-q", "-f", "-o", out],
                         [python, "-c", PRUNE, net, out])
    add("global pruning of 11 M weights, file to file; torch", "s", a, b)
    add("  peak memory", "MB", c, d, 1e-6)
    mlp = bench.files.get("mlp") or (bench.make("mlp") or bench.files["mlp"])
    a, b, c, d = in_turn([mopt, "bench", mlp, "--runs", 3, "--warmup", 0, "-q"], [python, "-c", INFER, mlp, "1", NETS["mlp"][0]])
    add("start, load the MLP and run it thrice; ONNX Runtime", "s", a, b)
    add("  peak memory", "MB", c, d, 1e-6)
    a, b, c, d = in_turn([mopt, "bench", net, "--batch", 32, "--runs", 3, "--warmup", 0, "--threads", 1, "-q"],
                         [python, "-c", INFER, net, "32", shape])
    add("start, load ResNet-18 and run 32 thrice; ONNX Runtime", "s", a, b)
    add("  peak memory", "MB", c, d, 1e-6)
    save = "import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"
    a, b, c, d = in_turn([mopt, "simplify", net, "--measure", 0, "-q", "-f", "-o", out],
                         [python, "-c", save, net, out])
    add("load, simplify and save 45 MB; onnx.load and onnx.save", "s", a, b)
    add("  peak memory", "MB", c, d, 1e-6)
    path = os.path.join(os.path.dirname(os.path.abspath(bench.args.out)), "bench-tools.json")
    with open(path, "w") as f:
        json.dump(rows, f, indent=1)
    print(f"rows: {path}")

"""Every number of docs/RESULTS.md, measured again.

usage: results.py MOPT OUT_FOLDER [SECTION ...]      sections: train prune shrink distill quantize memory cifar
Fashion-MNIST: trained on all 60,000 training images for a fixed number of epochs, the last weights kept, judged on the
10,000 test images. Accuracies of quantized files are ONNX Runtime's.
Each line: what, the goal, the mean over seeds, the single seeds, whether it holds.
"""
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

MOPT, OUT = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
SECTIONS = sys.argv[3:] or ["train", "prune", "shrink", "distill", "quantize", "memory", "cifar"]
FASHION = os.environ.get("MOPT_FASHION", "/usr/share/datasets/fashion-mnist")
CIFAR = os.environ.get("MOPT_CIFAR", "build/cifar10-train")     # a folder of class folders
DATA = "idx:" + FASHION
ALL = ["--val-split", 0, "--keep", "last", "--no-evaluate", "--measure", 0]
SEEDS = [int(s) for s in os.environ.get("MOPT_SEEDS", "1 2 3").split()]
os.makedirs(OUT, exist_ok=True)
rows = []


def mopt(*args):
    start = time.time()
    done = subprocess.run([MOPT, *map(str, args), "-q"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"mopt {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout, time.time() - start


def accuracy(path, data=DATA):
    return 100 * json.loads(mopt("eval", path, "--data", data, "--json")[0])["metrics"]["accuracy"]


def inspect(path):
    return json.loads(mopt("inspect", path, "--json")[0])["totals"]


def line(what, goal, values, unit="%", at_least=True):
    mean = statistics.mean(values)
    ok = mean >= goal if at_least else mean <= goal
    spread = f" (seeds {', '.join(f'{v:.2f}' for v in values)})" if len(values) > 1 else ""
    print(f"{'holds' if ok else 'FALLS SHORT':11s} {what}: {mean:.2f} {unit}, goal {'>=' if at_least else '<='} {goal}{spread}", flush=True)
    rows.append({"what": what, "goal": goal, "mean": mean, "values": values, "holds": ok})


def path(name, seed):
    return f"{OUT}/{name}.{seed}.onnx"


CREATE = {"lenet5": ["lenet5", "--input", "1x28x28", "--classes", 10], "cnn": ["cnn", "--input", "1x28x28", "--classes", 10],
          "lenet300": ["mlp", "--layers", "784,300,100,10", "--input", "1x28x28"],
          "resnet20": ["resnet20", "--input", "1x28x28", "--classes", 10]}
TRAIN = {"lenet5": ["--epochs", 8], "cnn": ["--epochs", 10, "--transform", "hflip"], "lenet300": ["--epochs", 15],
         "resnet20": ["--epochs", 4]}


def fresh(net, seed):
    out = path(net + ".fresh", seed)
    if not os.path.exists(out):
        mopt("create", *CREATE[net], "--seed", seed, "-o", out)
    return out


def trained(net, seed, extra=(), suffix=""):
    """Trains once; the file is reused by later sections."""
    out = path(net + suffix, seed)
    if not os.path.exists(out):
        mopt("train", fresh(net, seed), "--data", DATA, *TRAIN[net], "--seed", seed, *ALL, *extra, "-o", out)
    return out


def section_train():
    for net, goal in (("lenet300", 90.0), ("lenet5", 91.9), ("cnn", 92.6)):
        line(f"train {net}, SGD", goal, [accuracy(trained(net, s)) for s in SEEDS])
        line(f"train {net}, Adam", goal, [accuracy(trained(net, s, ["--optimizer", "adam"], ".adam")) for s in SEEDS])


def section_prune():
    for share, goal in ((0.90, 89.9), (0.95, 89.5), (0.98, 88.8)):
        values = []
        for s in SEEDS:
            out = path(f"lenet300.sparse{round(100 * share)}", s)
            mopt("prune", trained("lenet300", s), "--amount", share, "--data", DATA, "--epochs", 8, "--seed", s, "-o", out, "-f",
                 "--lr", 0.1, "--schedule", "one-cycle", *ALL)
            t = inspect(out)
            if t["nonzero"] > (1 - share) * 266200 + 410 + 1:     # of 266,200 weights; 410 biases are left alone
                sys.exit(f"{out} is not {share} sparse: {t}")
            values.append(accuracy(out))
        line(f"prune LeNet-300-100 to {100 * share:.0f} % zeros", goal, values)


def ort_session(file, threads=2):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def ort_seconds(file, shape, batch, rounds=40):
    """The median run of a session of its own: the threads of another would spin on the cores that it needs."""
    session, x, times = ort_session(file), np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32), []
    feed = {session.get_inputs()[0].name: x}
    for i in range(rounds + 5):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return statistics.median(times[5:])


def ort_ratio(a, b, shape, batch=32, turns=5):
    """How many times faster ONNX Runtime runs b than a, in turn, median."""
    return statistics.median(ort_seconds(a, shape, batch) / ort_seconds(b, shape, batch) for _ in range(turns))


def section_shrink():
    values, ratios, here = [], [], []
    for s in SEEDS:
        big, out = trained("lenet5", s), path("lenet5.small", s)
        mopt("prune", big, "--structured", "--target", "params=0.25x", "--data", DATA, "--epochs", 4, "--seed", s, "-o", out,
             "-f", *ALL)
        if inspect(out)["parameters"] > 0.25 * inspect(big)["parameters"]:
            sys.exit(f"{out} has too many parameters")
        values.append(accuracy(out))
        ratios.append(ort_ratio(big, out, (1, 28, 28)))
        bench = json.loads(mopt("bench", big, out, "--json")[0])["models"]
        here.append(bench[0]["latency_ms"]["median"] / bench[1]["latency_ms"]["median"])
    line("LeNet-5 with a quarter of its parameters", 91.3, values)
    line("... speed in ONNX Runtime", 1.0, ratios, "x")
    line("... speed in mopt bench", 1.0, here, "x")


def section_distill():
    """The same training, once without a teacher: plain labels in both, and in the teacher's own training."""
    plain = ["--label-smoothing", 0]
    teacher = path("cnn.teacher", SEEDS[0])
    mopt("train", fresh("cnn", SEEDS[0]), "--data", DATA, *TRAIN["cnn"], "--seed", SEEDS[0], "-o", teacher, "-f", *plain, *ALL)
    print(f"            the teacher, CNN 32-64-128: {accuracy(teacher):.2f} %")
    alone, taught = [], []
    for s in SEEDS:
        common = ["--data", DATA, "--epochs", 15, "--seed", s, "-f", *ALL]
        one, two = path("lenet300.alone", s), path("lenet300.distilled", s)
        mopt("train", fresh("lenet300", s), "-o", one, *plain, *common)
        mopt("distill", fresh("lenet300", s), "--teacher", teacher, "-o", two, *common)
        alone.append(accuracy(one))
        taught.append(accuracy(two))
    line("distill into LeNet-300-100: gain over the same training alone", 0.5, [b - a for a, b in zip(alone, taught)], "points")
    line("... accuracy alone", 90.0, alone)
    line("... accuracy distilled", 90.5, taught)
    line("... gain over training alone with smoothed labels", 0, [b - accuracy(trained("lenet300", s)) for s, b in zip(SEEDS, taught)],
         "points")


def read_idx(name):
    import gzip
    with gzip.open(f"{FASHION}/{name}.gz") as f:
        raw = f.read()
    n_dims = raw[3]
    dims = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(n_dims)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * n_dims).reshape(dims)


def ort_accuracy(file):
    """Top-1 on the test images in ONNX Runtime; prepared by the numbers that mopt stored in the file."""
    import onnx
    meta = {m.key: m.value for m in onnx.load(file, load_external_data=False).metadata_props}
    x = read_idx("t10k-images-idx3-ubyte").astype(np.float32)[:, None] / 255
    numbers = json.loads(mopt("inspect", file, "--json")[0]).get("preprocess", {})
    mean, std = numbers.get("mean"), numbers.get("std")
    if mean is None:
        sys.exit(f"{file}: no stored preparation: {meta}")
    x = (x - np.float32(mean[0])) / np.float32(std[0])
    y = read_idx("t10k-labels-idx1-ubyte")
    s = ort_session(file)
    name, right = s.get_inputs()[0].name, 0
    for i in range(0, len(x), 500):
        right += int((s.run(None, {name: x[i:i + 500]})[0].argmax(1) == y[i:i + 500]).sum())
    return 100 * right / len(x)


def best_static(model, out, x):
    """The file that ONNX Runtime's own quantizer writes at its best settings."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name):
            self.batches = iter([{name: x[i:i + 32]} for i in range(0, len(x), 32)])

        def get_next(self):
            return next(self.batches, None)

    quant_pre_process(model, out + ".pre.onnx")
    quantize_static(out + ".pre.onnx", out, Reader(ort_session(model).get_inputs()[0].name), quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True)


def section_quantize():
    calibration = (read_idx("train-images-idx3-ubyte")[:512, None].astype(np.float32) / 255 - 0.286) / 0.353
    for net, drop in (("lenet5", 0.15), ("cnn", 0.15), ("resnet20", 0.3)):
        drops, qat_gain, over_fp32, over_ort = [], [], [], []
        for s in SEEDS:
            big, out, qat = trained(net, s), path(net + ".int8", s), path(net + ".qat", s)
            mopt("quantize", big, "--data", DATA, "--seed", s, "-o", out, "-f", "--no-evaluate", "--measure", 0)
            mopt("quantize", big, "--qat", "--data", DATA, "--epochs", 2, "--seed", s, "-o", qat, "-f", "--no-evaluate", "--measure", 0)
            static = ort_accuracy(out)
            drops.append(ort_accuracy(big) - static)
            qat_gain.append(ort_accuracy(qat) - static)
            best_static(big, path(net + ".ort", s), calibration)
            over_fp32.append(ort_ratio(big, out, (1, 28, 28)))
            over_ort.append(ort_ratio(path(net + ".ort", s), out, (1, 28, 28)))
        line(f"quantize {net}: drop in ONNX Runtime", drop, drops, "points", at_least=False)
        line(f"... speed there over fp32, batch 32", 1.5, over_fp32, "x")
        line(f"... speed there over quantize_static at its best", 1.0, over_ort, "x")
        line(f"... QAT over static", 0.0, qat_gain, "points")


def section_memory():
    ratios = []
    for net in ("lenet5", "cnn", "lenet300"):
        report = f"{OUT}/memory.json"
        mopt("train", fresh(net, 1), "--data", DATA, "--epochs", 0.1, "--no-evaluate", "--measure", 0, "--threads", 2, "-o",
             f"{OUT}/memory.onnx", "-f", "--report", report)
        with open(report) as f:
            ratios.append(json.load(f)["memory_bytes"]["peak_over_planned"])
    line("peak memory of training over what is planned, worst of LeNet-5, CNN, LeNet-300-100", 1.2, [max(ratios)], "x", at_least=False)


def section_cifar():
    start, out = path("cifar20.fresh", 1), path("cifar20", 1)
    mopt("create", "resnet20", "--input", "3x32x32", "--classes", 10, "--seed", 1, "-o", start, "-f")
    _, seconds = mopt("train", start, "--data", "imagefolder:" + CIFAR, "--batch", 64, "--transform",
                      "pad-crop=4:reflect,hflip", "--epochs", 30, "--seed", 1, "-o", out, "-f", "--report", f"{OUT}/cifar20.json", "--no-evaluate", "--measure", 0)
    print(f"            ResNet-20 on CIFAR-10: {seconds / 60:.1f} min")
    with open(f"{OUT}/cifar20.json") as f:      # eval would take the whole folder: only training knows which tenth was held out
        held_out = json.load(f)["metrics"]
    line(f"ResNet-20, CIFAR-10 image folder, 30 epochs, held-out tenth ({held_out['n_samples']} images)", 88.0, [100 * held_out["accuracy"]])


for section in SECTIONS:
    globals()["section_" + section]()
json.dump(rows, open(f"{OUT}/results.json", "w"), indent=1)
sys.exit(0 if all(r["holds"] for r in rows) else 1)

"""mopt beside PyTorch (training) and ONNX Runtime (inference), in turn, in one run.

usage: bench_peers.py [MOPT] [--nets ...] [--tasks train,infer,tools] [--batches 1,32,128] [--threads 1,2]
                      [--precision fp32,bf16,int8] [--seconds S] [--rounds N] [--compile auto|always|never]
                      [--models FOLDER] [--cpu] [--out build/bench-peers.json]

Each row is one net, task, precision, batch and number of threads. Its settings of the peer are tried once; the best of
them then takes turns with mopt for --rounds rounds, the order changing, so that a machine that drifts slows both alike.
Times are medians of a round, ratios are of one round; the table has the median ratio with the least and the largest, and
the roof: what the arithmetic units do at most (roof.c, in this run) over the operations of the net, 2 a multiply-add, a
training step counting as three forwards. Ratio above 1: mopt is faster. Rows where it is not stay.

  train fp32   mopt bench --train        PyTorch: NCHW, channels-last, torch.compile; fused SGD
  train bf16   the same, --precision bf16         the same under autocast     (where this mopt has --precision bf16)
  infer fp32   mopt bench                ONNX Runtime: all optimizations; as many threads, or one
  infer bf16   the same, --precision bf16         PyTorch under autocast      (where this mopt has it)
  infer int8   mopt bench on the file that mopt quantize wrote     ONNX Runtime on it, and on quantize_static's best

Peers run in processes of their own and sleep while mopt runs. Where both CPU time and one thread are asked for (--cpu),
other work on the machine matters little: for development only."""
import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
NETS = {"mlp": ("1x28x28", 10, ["--layers", "784,256,128,10"]), "lenet5": ("1x28x28", 10, []), "cnn": ("1x28x28", 10, []),
        "resnet20": ("3x32x32", 10, []), "resnet18": ("3x32x32", 10, []), "mobilenetv2": ("3x224x224", 1000, []),
        "transformer": ("64x256", 10, [])}
TRAIN_MOST = {"mobilenetv2": 32}    # larger batches want more memory than many machines have
CALIBRATION = 64


def words(text):
    return [w for w in text.split(",") if w]


def arguments():
    p = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].replace("usage: ", ""))
    p.add_argument("mopt", nargs="?", default="./mopt")
    p.add_argument("--nets", type=words, default=list(NETS))
    p.add_argument("--tasks", type=words, default=["train", "infer", "tools"])
    p.add_argument("--batches", type=lambda t: [int(w) for w in words(t)], default=[1, 32, 128])
    p.add_argument("--threads", type=lambda t: [int(w) for w in words(t)], default=[2, 1])
    p.add_argument("--precision", type=words, default=["fp32", "bf16", "int8"])
    p.add_argument("--seconds", type=float, default=0.25, help="of each side of each round")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--compile", choices=["auto", "always", "never"], default="auto",
                   help="auto: at the largest batch; elsewhere only where it won there")
    p.add_argument("--models", help="a folder of ONNX files, to be timed in inference too")
    p.add_argument("--cpu", action="store_true", help="CPU time instead of the clock; one thread only")
    p.add_argument("--out", default="build/bench-peers.json")
    args = p.parse_args()
    args.mopt = os.path.abspath(args.mopt)
    for net in args.nets:
        if net not in NETS:
            p.error(f"no net '{net}'; there are {', '.join(NETS)}")
    if args.cpu and args.threads != [1]:
        p.error("--cpu goes with --threads 1")
    return args


class Peer:
    """A process that answers JSON lines with JSON lines."""

    def __init__(self, script, *args):
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, script), *args], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.version = self.read()["version"]

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        return {"error": f"the process ended with {self.process.wait()}"}

    def ask(self, **request):
        if self.process.poll() is None:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def run_measured(command):
    """Seconds, bytes at the peak, and what was printed; a failure is one."""
    begin = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {err.strip() or out.strip()}")
    return time.perf_counter() - begin, 1024 * usage.ru_maxrss, out


def memory_bytes():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Bench:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.rows, self.skipped, self.compile_wins, self.files = [], [], {}, {}
        self.has_bf16 = bool(re.search(r"--precision \S*bf16", self.mopt_text("bench", "--help")) and
                             re.search(r"--precision \S*bf16", self.mopt_text("train", "--help")))
        self.ort = Peer("peer_ort.py")
        self.torch, self.torch_net = None, None
        self.roofs = {n: self.measure_roof(n) for n in args.threads}

    def mopt_text(self, *args):
        return subprocess.run([self.args.mopt, *map(str, args)], capture_output=True, text=True).stdout

    def measure_roof(self, threads):
        """Gop/s of each precision; none where the machine is no x86-64 or has no C compiler."""
        program = os.path.join(self.folder, "roof")
        if not os.path.exists(program):
            built = subprocess.run([os.environ.get("CC", "cc"), "-O2", "-pthread", os.path.join(HERE, "roof.c"), "-o", program],
                                   capture_output=True, text=True)
            if built.returncode:
                return {}
        return json.loads(subprocess.run([program, str(threads), "0.3"], capture_output=True, text=True, check=True).stdout)

    # ---- mopt's side ----

    def bench_command(self, path, batch, threads, task, precision):
        command = [self.args.mopt, "bench", path, "--batch", batch, "--threads", threads, "--json", "--max-memory",
                   memory_bytes() * 3 // 4]
        return command + (["--train"] if task == "train" else []) + (["--precision", "bf16"] if precision == "bf16" else [])

    def mopt_wall(self, command):
        out = run_measured([*command, "--seconds", self.args.seconds, "--warmup", min(0.2, self.args.seconds)])[2]
        model = json.loads(out)["models"][0]
        return {"ms": model["latency_ms"]["median"], "macs": model["macs"], "parameters": model["parameters"]}

    def mopt_cpu(self, command):
        """What 2n more runs take."""
        first = self.mopt_wall(command)
        n = max(2, int(1e3 * self.args.seconds / max(first["ms"], 1e-3) / 2))
        spent = []
        for runs in (n, 3 * n):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run_measured([*command, "--runs", runs, "--warmup", 0])
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return {**first, "ms": max(1e3 * (spent[1] - spent[0]) / (2 * n), 1e-6)}

    def mopt(self, *what):
        command = self.bench_command(*what)
        return self.mopt_cpu(command) if self.args.cpu else self.mopt_wall(command)

    # ---- the peer's side ----

    def torch_settings(self, net, task, precision, batch, threads):
        key, is_picture = (net, task, precision), net not in ("mlp", "transformer")
        layouts = ["NCHW", "NHWC"] if is_picture else ["NCHW"]
        counts = [threads] if threads == 1 or batch > 32 else [threads, 1]
        settings = [dict(layout=x, compiled=False, threads=n) for n in counts for x in layouts]
        compiles = self.args.compile == "always" or (self.args.compile == "auto" and self.compile_wins.get(key, True))
        if compiles:
            settings.append(dict(layout=layouts[-1], compiled=True, threads=threads))
        return settings

    def ask_torch(self, net, task, precision, batch, setting, seconds):
        if self.torch_net != net:
            self.close_torch()
            self.torch, self.torch_net = Peer("peer_torch.py", net), net
        said = self.torch.ask(task=task, precision=precision, batch=batch, seconds=seconds, **setting)
        if self.torch.process.poll() is not None:
            self.torch_net = None
        return said

    def close_torch(self):
        if self.torch and self.torch.process.poll() is None:
            self.torch.close()

    @staticmethod
    def torch_words(s):
        return "autocast, "[:10 * s.get("half", 0)] + ("channels-last" if s["layout"] == "NHWC" else "contiguous") + \
            (", compiled" if s["compiled"] else "") + f", {s['threads']} thread" + "s"[:s["threads"] > 1]

    def peer_options(self, net, task, precision, batch, threads):
        """[(words, function of seconds to an answer)]"""
        if task == "train" or precision == "bf16":
            return [(("autocast, " if precision == "bf16" else "") + self.torch_words(s),
                     lambda seconds, s=s: self.ask_torch(net, task, precision, batch, s, seconds))
                    for s in self.torch_settings(net, task, precision, batch, threads)]
        files = [("", self.files[net])] if precision == "fp32" else \
            [("mopt's file, ", self.files[net + ".int8"]), ("quantize_static's file, ", self.files.get(net + ".static"))]
        counts = [threads] if threads == 1 else [threads, 1]
        return [(f"{words}{n} thread{'s' if n > 1 else ''}",
                 lambda seconds, f=f, n=n: self.ort.ask(file=f, batch=batch, threads=n, seconds=seconds))
                for words, f in files if f for n in counts]

    def best_option(self, options):
        tried = []
        for text, ask in options:
            said = ask(self.args.seconds)
            if "error" in said:
                self.skipped.append(f"{text}: {said['error']}")
            else:
                tried.append((said["cpu_ms" if self.args.cpu else "ms"], text, ask, said))
        return min(tried, key=lambda t: t[0]) if tried else None

    # ---- one row ----

    def row(self, net, task, precision, batch, threads):
        path = self.files[net + ".int8"] if precision == "int8" else self.files[net]
        try:
            first = self.mopt(path, batch, threads, task, precision)
        except RuntimeError as e:
            self.skipped.append(f"{net} {task} {precision} batch {batch}: {str(e).splitlines()[0]}")
            return
        best = self.best_option(self.peer_options(net, task, precision, batch, threads))
        if not best:
            self.skipped.append(f"{net} {task} {precision} batch {batch}: the peer cannot run it")
            return
        _, setting, ask, said = best
        is_torch = "parameters" in said
        if is_torch and said["parameters"] != first["parameters"]:
            sys.exit(f"{net}: {first['parameters']} parameters in mopt's file, {said['parameters']} in PyTorch's net")
        if is_torch and self.args.compile == "auto":
            self.compile_wins.setdefault((net, task, precision), "compiled" in setting)
        ours, theirs = [], []
        for k in range(self.args.rounds):
            for side in ((0, 1) if k % 2 else (1, 0)):
                if side:
                    said = ask(self.args.seconds)
                    if "error" in said:
                        self.skipped.append(f"{net} {task} {precision} batch {batch}: {said['error']}")
                        return
                    theirs.append(said["cpu_ms" if self.args.cpu else "ms"])
                    time.sleep(0.05)        # until its threads have stopped spinning
                else:
                    ours.append(self.mopt(path, batch, threads, task, precision)["ms"])
        self.note(net, task, precision, batch, threads, setting, is_torch, first["macs"], ours, theirs)

    def note(self, net, task, precision, batch, threads, setting, is_torch, macs, ours, theirs):
        ratios = [b / a for a, b in zip(ours, theirs)]
        peak = self.roofs[threads].get(precision)
        roof = 1e9 * peak / (2 * macs * (3 if task == "train" else 1)) if peak and macs else None
        version = self.torch.version if is_torch else self.ort.version
        row = {"net": net, "task": task, "precision": precision, "batch": batch, "threads": threads,
               "mopt": round(1e3 * batch / statistics.median(ours), 1), "peer": round(1e3 * batch / statistics.median(theirs), 1),
               "peer_setting": f"{version}, {setting}", "ratio": round(statistics.median(ratios), 3),
               "ratio_low": round(min(ratios), 3), "ratio_high": round(max(ratios), 3), "roof": roof and round(roof, 1)}
        self.rows.append(row)
        self.save()
        share = f"{100 * row['mopt'] / roof:4.0f} %" if roof else "     -"
        print(f"{net:<16.16} {task:<5} {precision:<4} {batch:>5} {threads:>7} {row['mopt']:>11.1f} {row['peer']:>11.1f} "
              f"{row['ratio']:6.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}) {roof or 0:>12.0f} {share}  {setting}",
              flush=True)

    def save(self):
        os.makedirs(os.path.dirname(os.path.abspath(self.args.out)), exist_ok=True)
        with open(self.args.out, "w") as f:
            json.dump(self.rows, f, indent=1)

    # ---- files ----

    def data(self, shape, n):
        x = os.path.join(self.folder, f"{shape}.{n}.npy")
        if not os.path.exists(x):
            rng = np.random.default_rng(0)
            np.save(x, rng.standard_normal([n] + [int(d) for d in shape.split("x")]).astype(np.float32))
            np.save(x[:-4] + ".y.npy", rng.integers(0, 10, n))
        return x

    def quantize_command(self, path, shape, out, n, method="minmax"):
        x = self.data(shape, n)
        return [self.args.mopt, "quantize", path, "--data", f"npy:{x},{x[:-4]}.y.npy", "--transform", "none", "--val-split", 0.02,
                "--samples", n, "--method", method, "--no-evaluate", "--no-layer-error", "--measure", 0, "-q", "-f", "-o", out]

    def make(self, net):
        shape, classes, more = NETS[net]
        path = self.files[net] = os.path.join(self.folder, net + ".onnx")
        create = [self.args.mopt, "create", net, "--input", shape, "-o", path, "-q", "-f", *more]
        run_measured(create + ([] if more else ["--classes", classes]))
        if "int8" not in self.args.precision or "infer" not in self.args.tasks:
            return
        ours, theirs = path[:-5] + ".int8.onnx", path[:-5] + ".static.onnx"
        run_measured(self.quantize_command(path, shape, ours, CALIBRATION))
        self.files[net + ".int8"] = ours
        said = self.ort.ask(quantize=path, out=theirs, data=self.data(shape, CALIBRATION), samples=CALIBRATION, batch=16,
                            method="minmax", settings="best")
        if "error" in said:
            self.skipped.append(f"{net}: quantize_static: {said['error']}")
        else:
            self.files[net + ".static"] = theirs

    # ---- all of it ----

    def kinds(self):
        for task in ("train", "infer"):
            for precision in ("fp32", "bf16", "int8"):
                if task not in self.args.tasks or precision not in self.args.precision:
                    continue
                if (precision == "bf16" and not self.has_bf16) or (precision == "int8" and task == "train"):
                    continue
                yield task, precision

    def nets(self):
        for net in self.args.nets:
            self.make(net)
            for task, precision in self.kinds():
                for batch in sorted(self.args.batches, reverse=True):
                    for threads in sorted(self.args.threads, reverse=True):
                        if task == "infer" or batch <= TRAIN_MOST.get(net, batch):
                            self.row(net, task, precision, batch, threads)
        self.close_torch()

    def real_models(self):
        for name in sorted(os.listdir(self.args.models)):
            path = os.path.join(self.args.models, name)
            if not name.endswith(".onnx"):
                continue
            self.files[name[:-5]] = path
            for batch in (1,):
                for threads in self.args.threads:
                    self.row(name[:-5], "infer", "fp32", batch, threads)

    def run(self):
        heading = f"{'net':<16} task  prec batch threads {'mopt /s':>11} {'peer /s':>11}  ratio (spread)        {'roof /s':>12}  mopt's share"
        roofs = "; ".join(f"{n} thread{'s' if n > 1 else ''}: " +
                          ", ".join(f"{p} {r[p]:.0f} ({r[p + '_unit']})" for p in ("fp32", "bf16", "int8"))
                          for n, r in self.roofs.items() if r)
        print(f"roof, Gop/s: {roofs or 'not measured'}\n{self.ort.version}; mopt has {'' if self.has_bf16 else 'no '}bf16\n\n{heading}")
        self.nets()
        if self.args.models and "infer" in self.args.tasks:
            self.real_models()
        self.summary()
        if "tools" in self.args.tasks:
            from bench_tools import tools
            tools(self)
        self.ort.close()

    def summary(self):
        print()
        for task, precision in [("train", "fp32"), ("train", "bf16"), ("infer", "fp32"), ("infer", "bf16"), ("infer", "int8")]:
            for threads in self.args.threads:
                ratios = [r["ratio"] for r in self.rows if (r["task"], r["precision"], r["threads"]) == (task, precision, threads)]
                if ratios:
                    print(f"{task} {precision}, {threads} thread{'s' if threads > 1 else ''}: geometric mean "
                          f"{statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}, {sum(r < 1 for r in ratios)} of "
                          f"{len(ratios)} rows below 1")
        for text in dict.fromkeys(self.skipped):
            print("not measured: " + text)
        print(f"rows: {self.args.out}", flush=True)


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        Bench(args, folder).run()


if __name__ == "__main__":
    main()

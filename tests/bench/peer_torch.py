"""PyTorch's side of bench_peers.py: one process for one net, which times what it is told to and sleeps in between.

usage: peer_torch.py NET       requests as JSON lines on stdin, an answer each as a JSON line on stdout
request: {"task": "train"|"infer", "precision": "fp32"|"bf16", "batch": N, "threads": N, "layout": "NCHW"|"NHWC",
          "compiled": bool, "seconds": S}
answer:  {"ms": median of a step, "cpu_ms": CPU time of a step, "parameters": N} or {"error": "..."}

The nets are those of `mopt create`, written as a user of PyTorch writes them: bench_peers.py checks that the numbers of
parameters agree. A step is zero_grad, forward, cross-entropy, backward, fused SGD with Nesterov momentum; random images."""
import json
import os
import statistics
import sys
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(os.environ.get("TMPDIR", "/tmp"), "bench-peers-inductor"))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet5():
    return nn.Sequential(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))


def conv_norm(i, o, kernel, stride, groups=1):
    return [nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]


def cnn():
    return nn.Sequential(*conv_norm(1, 32, 3, 1), nn.ReLU(), nn.MaxPool2d(2), *conv_norm(32, 64, 3, 1), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))


class Basic(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.way = nn.Sequential(*conv_norm(i, o, 3, stride), nn.ReLU(), *conv_norm(o, o, 3, 1))
        self.around = nn.Sequential(*conv_norm(i, o, 1, stride)) if stride != 1 or i != o else nn.Identity()

    def forward(self, x):
        return F.relu(self.way(x) + self.around(x))


def resnet(widths, blocks):
    layers, i = [*conv_norm(3, widths[0], 3, 1), nn.ReLU()], widths[0]
    for stage, o in enumerate(widths):
        for k in range(blocks):
            layers.append(Basic(i, o, 2 if stage and not k else 1))
            i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 10))


class Inverted(nn.Module):
    def __init__(self, i, t, o, stride):
        super().__init__()
        wide = i * t
        self.adds = stride == 1 and i == o
        self.way = nn.Sequential(*([*conv_norm(i, wide, 1, 1), nn.ReLU6()] if t != 1 else []),
                                 *conv_norm(wide, wide, 3, stride, wide), nn.ReLU6(), *conv_norm(wide, o, 1, 1))

    def forward(self, x):
        return x + self.way(x) if self.adds else self.way(x)


def mobilenetv2():
    layers, i = [*conv_norm(3, 32, 3, 2), nn.ReLU6()], 32
    for t, c, n, s in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for k in range(n):
            layers.append(Inverted(i, t, c, 1 if k else s))
            i = c
    return nn.Sequential(*layers, *conv_norm(i, 1280, 1, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(1280, 1000))


class Block(nn.Module):
    """Norm first, four heads; attention by PyTorch's own kernel."""

    def __init__(self, d):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.wide = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))
        return x + self.wide(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(64, 256) * 0.02)
        self.blocks = nn.Sequential(Block(256), Block(256))
        self.norm, self.head = nn.LayerNorm(256), nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.norm(self.blocks(x + self.positions)).mean(1))


NETS = {"mlp": (mlp, (1, 28, 28)), "lenet5": (lenet5, (1, 28, 28)), "cnn": (cnn, (1, 28, 28)),
        "resnet20": (lambda: resnet((16, 32, 64), 3), (3, 32, 32)),
        "resnet18": (lambda: resnet((64, 128, 256, 512), 2), (3, 32, 32)),
        "mobilenetv2": (mobilenetv2, (3, 224, 224)), "transformer": (Transformer, (64, 256))}


def stepper(net, r):
    """A function that does one step as the request wants it."""
    torch.manual_seed(0)
    make, shape = NETS[net]
    model, x = make(), torch.randn(r["batch"], *shape)
    parameters = sum(p.numel() for p in model.parameters())
    model.train(r["task"] == "train")
    if r["layout"] == "NHWC":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    run = torch.compile(model, dynamic=False) if r["compiled"] else model
    half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=r["precision"] == "bf16")
    if r["task"] == "infer":
        def infer():
            with torch.inference_mode(), half:
                return run(x)
        return infer, parameters
    y = torch.randint(0, 10, (r["batch"],))
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)

    def train():
        optimizer.zero_grad(set_to_none=True)
        with half:
            loss = F.cross_entropy(run(x), y)
        loss.backward()
        optimizer.step()
    return train, parameters


def answer(net, r, kept):
    torch.set_num_threads(r["threads"])
    key = json.dumps({k: v for k, v in r.items() if k != "seconds"}, sort_keys=True)
    if key not in kept:
        if len(kept) >= 4:      # of the row at hand; others only hold memory
            kept.pop(next(iter(kept)))
        torch.compiler.reset()
        kept[key] = stepper(net, r)
        for _ in range(2):
            kept[key][0]()
    step, parameters = kept[key]
    step()
    times, begin, cpu = [], time.perf_counter(), time.process_time()
    while len(times) < 3 or time.perf_counter() - begin < r["seconds"]:
        t = time.perf_counter()
        step()
        times.append(time.perf_counter() - t)
    cpu = time.process_time() - cpu
    return {"ms": 1e3 * statistics.median(times), "cpu_ms": 1e3 * cpu / len(times), "parameters": parameters}


def main():
    net, kept = sys.argv[1], {}
    print(json.dumps({"version": "PyTorch " + torch.__version__.split("+")[0]}), flush=True)
    for line in sys.stdin:
        try:
            said = answer(net, json.loads(line), kept)
        except Exception as e:      # a setting that does not work here is no setting of the peer
            said = {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"[:200]}
        print(json.dumps(said), flush=True)


main()

"""Training speed of PyTorch on the CPU, images per second: lenet5 or resnet20, best of its layouts.

usage: torch_train.py NET BATCH THREADS SECONDS [compile]
Prints one JSON object a setting. SGD with Nesterov momentum, random images in memory: the step alone.
"""
import json
import sys
import time

import torch
from torch import nn
import torch.nn.functional as F


class LeNet5(nn.Module):
    """20-50-500, as `mopt create lenet5`."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.f1, self.f2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.max_pool2d(F.relu(self.c2(x)), 2)
        return self.f2(F.relu(self.f1(x.flatten(1))))


class Block(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o)
        self.c2, self.b2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.short = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o)) if s != 1 or i != o else nn.Identity()

    def forward(self, x):
        return F.relu(self.b2(self.c2(F.relu(self.b1(self.c1(x))))) + self.short(x))


def resnet20():
    blocks = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    i = 16
    for o in (16, 32, 64):
        for k in range(3):
            blocks.append(Block(i, o, 2 if k == 0 and o != 16 else 1))
            i = o
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def speed(net, shape, batch, seconds, channels_last, compiled):
    torch.manual_seed(0)
    model = {"lenet5": LeNet5, "resnet20": resnet20}[net]().train()
    x, y = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    run = torch.compile(model) if compiled else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(run(x), y).backward()
        optimizer.step()

    for _ in range(5):
        step()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds:
        t = time.perf_counter()
        step()
        times.append(time.perf_counter() - t)
    times.sort()
    return batch / times[len(times) // 2]


def main():
    net, batch, threads, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    torch.set_num_threads(threads)
    shape = (1, 28, 28) if net == "lenet5" else (3, 32, 32)
    for channels_last in (False, True):
        for compiled in (False, True) if "compile" in sys.argv[5:] else (False,):
            rate = speed(net, shape, batch, seconds, channels_last, compiled)
            setting = ("NHWC" if channels_last else "NCHW") + (" compile" if compiled else "")
            print(json.dumps({"net": net, "batch": batch, "threads": threads, "setting": setting,
                              "images_per_second": round(rate, 1), "torch": torch.__version__}), flush=True)


main()

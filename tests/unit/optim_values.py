#!/usr/bin/env python3
"""Writes optim_values.h: ten steps of every optimizer, and the rates of every schedule, in float64 after the
update rules that PyTorch's documentation gives (torch.optim.SGD, RMSprop, Adam, AdamW; clip_grad_norm_; StepLR,
CosineAnnealingLR). Run by hand when a rule is added: python3 optim_values.py > optim_values.h"""
import math
import numpy as np

N_STEPS, N_DECAY, N = 10, 5, 8          # the first five elements decay, three are a bias


def gradient(w, t):
    return np.sin(np.arange(N) * 1.3 + t) + 0.5 * w


def sgd(g, w, s, lr, t, mu=0.0, nesterov=False):
    if mu:
        s["v"] = g if t == 1 else mu * s["v"] + g
        g = g + mu * s["v"] if nesterov else s["v"]
    return w - lr * g


def rmsprop(g, w, s, lr, t, mu=0.0, alpha=0.99, eps=1e-8):
    s["s"] = alpha * s.get("s", 0) + (1 - alpha) * g * g
    u = g / (np.sqrt(s["s"]) + eps)
    if mu:
        s["v"] = mu * s.get("v", 0) + u
        u = s["v"]
    return w - lr * u


def adam(g, w, s, lr, t, b1=0.9, b2=0.999, eps=1e-8):
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["s"] = b2 * s.get("s", 0) + (1 - b2) * g * g
    m, v = s["m"] / (1 - b1 ** t), s["s"] / (1 - b2 ** t)
    return w - lr * m / (np.sqrt(v) + eps)


def run(rule, lr=0.1, decay=0.02, decoupled=False, clip=0.0, all_=False, ema=0.0, **more):
    w = np.cos(np.arange(N) * 0.7)
    decays = np.where(np.arange(N) < (N if all_ else N_DECAY), decay, 0.0)
    state, average = {}, w.copy()
    for t in range(1, N_STEPS + 1):
        g = gradient(w, t)
        if clip:
            g = g * min(1.0, clip / (np.sqrt((g * g).sum()) + 1e-6))
        if decoupled:
            w = w * (1 - lr * decays)
        else:
            g = g + decays * w
        w = rule(g, w, state, lr, t, **more)
        d = min(ema, (1 + t) / (10 + t))
        average = d * average + (1 - d) * w
    return average if ema else w


CASES = {
    "gd": run(sgd), "sgd": run(sgd), "sgd_decay_all": run(sgd, all_=True),
    "momentum": run(sgd, mu=0.9), "nesterov": run(sgd, mu=0.9, nesterov=True),
    "nesterov_clip": run(sgd, mu=0.9, nesterov=True, clip=1.0),
    "rmsprop": run(rmsprop, lr=0.01), "rmsprop_momentum": run(rmsprop, lr=0.01, mu=0.9),
    "adam": run(adam, lr=0.01), "adamw": run(adam, lr=0.01, decay=0.5, decoupled=True),
    "adam_clip": run(adam, lr=0.01, clip=0.5), "sgd_ema": run(sgd, ema=0.5),
}


def warm(f, k, n, share):
    w = share * n
    return min((k + 1) / w, 1.0) if k < w else f((k - w) / max(n - w, 1), k)


def schedules(n=10, per_epoch=3):
    linear = lambda x, k: 1 - x
    return {
        "constant": [warm(lambda x, k: 1.0, k, n, 0) for k in range(n)],
        "constant_warm": [warm(lambda x, k: 1.0, k, n, 0.3) for k in range(n)],
        "step": [0.5 ** (k // per_epoch // 2) for k in range(n)],
        "cosine": [(1 + math.cos(math.pi * k / n)) / 2 for k in range(n)],
        "one_cycle": [warm(linear, k, n, 0.2) for k in range(n)],
        "linear": [warm(linear, k, n, 0) for k in range(n)],
    }


print("/* Made by optim_values.py: float64 references for test_optim.c. */")
print("enum { N_STEPS = %d, N_DECAY = %d, N_ELEMS = %d };" % (N_STEPS, N_DECAY, N))
for name, values in list(CASES.items()) + list(schedules().items()):
    print("static const double want_%s[] = {" % name)
    for i in range(0, len(values), 4):
        print("    " + " ".join("%.17g," % v for v in values[i:i + 4]))
    print("};")

#!/usr/bin/env python3
"""Exports with random weights, by both of PyTorch's exporters, to try mopt on: torchvision's architectures and small nets
of other kinds. Needs torch, torchvision, onnx, onnxscript.

    export_torch.py FOLDER [WORD ...]      only those whose name contains one of the words

Writes FOLDER/NAME.script.onnx and NAME.dynamo.onnx, each with a free batch where the exporter allows one, and prints
what an exporter refuses. The statistics of normalizations are drawn too, so that folding them wrongly shows."""
import os
import signal
import sys
import warnings

import torch
import torch.nn.functional as F
from torch import nn

warnings.filterwarnings("ignore")


def draw(net):
    """Weights whose activations neither die nor explode, and statistics that are not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, low, high in ((module.running_mean, -0.1, 0.1), (module.running_var, 0.5, 1.5)):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
            if module.weight is not None:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.uniform_(-0.1, 0.1, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    return net.eval()


def vision(name, size=96, **kwargs):
    def make():
        import torchvision.models as models
        net = models.get_model(name, weights=None, **{"num_classes": 10, **kwargs})
        return net, (torch.randn(2, 3, size, size),)
    return make


def slim_classifier(name, size):
    """AlexNet and VGG without their hundreds of megabytes of classifier."""
    def make():
        net, x = vision(name, size)()
        widths = {4096: 32}
        layers = [nn.Linear(widths.get(m.in_features, m.in_features), widths.get(m.out_features, m.out_features))
                  if isinstance(m, nn.Linear) else m for m in net.classifier]
        net.classifier = nn.Sequential(*layers)
        return net, x
    return make


class FirstOutput(nn.Module):
    def __init__(self, net, key="out"):
        super().__init__()
        self.net, self.key = net, key

    def forward(self, x):
        return self.net(x)[self.key]


def segmentation(name):
    def make():
        import torchvision.models as models
        net = models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
        return FirstOutput(net), (torch.randn(2, 3, 96, 96),)
    return make


class Detector(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        found = self.net([x])[0]
        return found["boxes"], found["labels"], found["scores"]


def detection(name):
    def make():
        import torchvision.models as models
        net = models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
        return Detector(net), (torch.rand(3, 160, 160),)
    return make


class Raft(nn.Module):
    def __init__(self):
        super().__init__()
        from torchvision.models.optical_flow import raft_small
        self.net = raft_small(weights=None)

    def forward(self, a, b):
        return self.net(a, b, num_flow_updates=2)[-1]


class Recurrent(nn.Module):
    def __init__(self, kind, bidirectional):
        super().__init__()
        self.net = kind(16, 24, num_layers=2, bidirectional=bidirectional, batch_first=True)
        self.head = nn.Linear(48 if bidirectional else 24, 5)

    def forward(self, x):
        return self.head(self.net(x)[0])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(100, 32)
        self.places = nn.Parameter(torch.randn(1, 16, 32) * 0.1)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu", norm_first=True)
        self.net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 7)

    def forward(self, ids):
        return self.head(self.net(self.words(ids) + self.places[:, :ids.shape[1]]))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)
        self.net = nn.TransformerDecoder(layer, 2)

    def forward(self, x, memory):
        mask = torch.triu(torch.full((x.shape[1], x.shape[1]), float("-inf")), diagonal=1)
        return self.net(x, memory, tgt_mask=mask)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()

        def block(a, b):
            return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
        self.down1, self.down2, self.middle = block(3, 8), block(8, 16), block(16, 32)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 16, 2, stride=2), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.back2, self.back1, self.last = block(32, 16), block(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.middle(F.max_pool2d(b, 2))
        b = self.back2(torch.cat([self.up2(c), b], 1))
        return self.last(self.back1(torch.cat([self.up1(b), a], 1)))


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(32, 32, 4, 1, 0, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
            nn.ReflectionPad2d(1), nn.Conv2d(16, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 3, 3, padding=1), nn.Tanh())

    def forward(self, z):
        return self.net(z[:, :, None, None])


class Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 5, padding=2), nn.Conv2d(16, 9, 3, padding=1)
        self.shuffle = nn.PixelShuffle(3)

    def forward(self, x):
        return self.shuffle(self.b(F.relu(self.a(x)))) + F.interpolate(x, scale_factor=3, mode="bicubic")


class Einsums(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 8, 6) * 0.3)

    def forward(self, x):
        y = torch.einsum("bik,hkj->bhij", x, self.w)
        return torch.einsum("bhij,bhlj->bil", y, y)


class Attention(nn.Module):
    def __init__(self, causal=False):
        super().__init__()
        self.qkv, self.out, self.causal = nn.Linear(32, 96), nn.Linear(32, 32), causal

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(b, n, 32))


class Speech(nn.Module):
    """Frames, 1-d convolutions with gates and dilation, group and layer normalization."""
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(8, 32, 5, padding=2)
        self.gates = nn.ModuleList(nn.Conv1d(16, 32, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.norm, self.last = nn.GroupNorm(4, 16), nn.LayerNorm(16)

    def forward(self, x):
        y = F.glu(self.first(x), 1)
        for gate in self.gates:
            y = y + self.norm(F.glu(gate(y), 1))
        return self.last(y.transpose(1, 2)).softmax(-1)


class Odd(nn.Module):
    """Indexing, masks, cumulated sums, top k, where, clamps, norms, statistics."""
    def forward(self, x):
        top, place = torch.topk(x, 3, dim=-1)
        mask = torch.tril(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool))
        y = torch.where(mask, x @ x.transpose(1, 2), torch.zeros(()))
        z = torch.cumsum(x, 1).clamp(-2, 2) / (x.norm(dim=-1, keepdim=True) + 1e-3)
        s = torch.stack([x.var(-1), x.std(-1), x.amax(-1), x.logsumexp(-1)], -1)
        return top, place, y, z.roll(1, 2), s, F.hardswish(x).flip(1), F.one_hot(place % 4, 4)


class Robot(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(48, 64), nn.ELU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 12))
        self.mean, self.std = nn.Parameter(torch.randn(48) * 0.1), nn.Parameter(torch.rand(48) + 0.5)

    def forward(self, x):
        return torch.tanh(self.net((x - self.mean) / self.std))


BIG_SIDE = {"inception_v3": 96, "vit_b_16": 224, "maxvit_t": 224, "swin_t": 64, "swin_v2_t": 64}
NETS = {
    "alexnet": slim_classifier("alexnet", 96), "vgg11": slim_classifier("vgg11", 64),
    "vgg11_bn": slim_classifier("vgg11_bn", 64),
    **{name: vision(name, BIG_SIDE.get(name, 64)) for name in (
        "resnet18", "resnet50", "resnext50_32x4d", "densenet121", "mobilenet_v2", "mobilenet_v3_small",
        "mobilenet_v3_large", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "efficientnet_b0",
        "efficientnet_v2_s", "regnet_y_400mf", "regnet_x_400mf", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t",
        "maxvit_t")},
    "googlenet": vision("googlenet", 96, aux_logits=False, init_weights=False),
    "inception_v3": vision("inception_v3", 96, aux_logits=False, init_weights=False),
    "deeplabv3": segmentation("deeplabv3_mobilenet_v3_large"), "fcn": segmentation("fcn_resnet50"),
    "lraspp": segmentation("lraspp_mobilenet_v3_large"),
    "fasterrcnn": detection("fasterrcnn_mobilenet_v3_large_320_fpn"), "ssdlite": detection("ssdlite320_mobilenet_v3_large"),
    "retinanet": detection("retinanet_resnet50_fpn"),
    "raft": lambda: (Raft(), (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128))),
    "lstm": lambda: (Recurrent(nn.LSTM, False), (torch.randn(2, 9, 16),)),
    "bilstm": lambda: (Recurrent(nn.LSTM, True), (torch.randn(2, 9, 16),)),
    "gru": lambda: (Recurrent(nn.GRU, True), (torch.randn(2, 9, 16),)),
    "rnn": lambda: (Recurrent(nn.RNN, False), (torch.randn(2, 9, 16),)),
    "encoder": lambda: (Encoder(), (torch.randint(0, 100, (2, 12)),)),
    "decoder": lambda: (Decoder(), (torch.randn(2, 7, 32), torch.randn(2, 9, 32))),
    "unet": lambda: (UNet(), (torch.randn(2, 3, 32, 32),)),
    "generator": lambda: (Generator(), (torch.randn(2, 32),)),
    "shuffle": lambda: (Shuffle(), (torch.randn(2, 1, 20, 20),)),
    "einsum": lambda: (Einsums(), (torch.randn(2, 5, 8),)),
    "sdpa": lambda: (Attention(), (torch.randn(2, 10, 32),)),
    "sdpa_causal": lambda: (Attention(True), (torch.randn(2, 10, 32),)),
    "speech": lambda: (Speech(), (torch.randn(2, 8, 40),)),
    "odd": lambda: (Odd(), (torch.randn(2, 6, 6),)),
    "robot": lambda: (Robot(), (torch.randn(2, 48),)),
}
FIXED = {"fasterrcnn", "ssdlite", "retinanet", "raft"}          # no batch of their own
OPSETS = {"script": (9, 11, 13, 17, 20), "dynamo": (18, 20, 23)}    # of the small nets, beside the default
SMALL = {"robot", "unet", "lstm", "speech", "shuffle", "sdpa", "resnet18"}


def export(net, args, path, dynamo, opset, free):
    options = {"opset_version": opset} if opset else {}
    if dynamo:
        if free:
            options["dynamic_shapes"] = tuple({0: torch.export.Dim("batch")} for _ in args)
        torch.onnx.export(net, args, path, dynamo=True, external_data=False, verbose=False, **options)
    else:
        names = [f"x{k}" for k in range(len(args))]
        if free:
            options["dynamic_axes"] = {name: {0: "batch"} for name in names}
        torch.onnx.export(net, args, path, dynamo=False, input_names=names, **options)


def main():
    folder, words = sys.argv[1], sys.argv[2:]
    os.makedirs(folder, exist_ok=True)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("took too long")))
    for name, make in NETS.items():
        if words and not any(word in name for word in words):
            continue
        torch.manual_seed(0)
        net, args = make()
        draw(net)
        for kind in ("script", "dynamo"):
            for opset in (None, *(OPSETS[kind] if name in SMALL else ())):
                path = f"{folder}/{name}.{kind}{opset or ''}.onnx"
                if os.path.exists(path):
                    continue
                signal.alarm(300)
                try:
                    with torch.no_grad():
                        export(net, args, path, kind == "dynamo", opset, name not in FIXED)
                    print(os.path.basename(path), os.path.getsize(path), flush=True)
                except Exception as e:          # an exporter's own limit
                    print(os.path.basename(path), "not exported:", str(e).strip().split("\n")[0][:150], flush=True)
                    if os.path.exists(path):
                        os.remove(path)
                finally:
                    signal.alarm(0)


main()

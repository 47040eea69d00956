"""Quantized operators computed in integers: at most one step from ONNX Runtime's results, operator by operator in random
shapes, and the same for whole networks that mopt's and ONNX Runtime's quantizers wrote."""
import sys

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from common import mopt, report, session

rng = np.random.default_rng(7)


class Net:
    """A graph of Q, DQ and one operator between them; u8 or s8 for activations."""

    def __init__(self, signed):
        self.kind, self.inputs, self.nodes, self.inits = (np.int8 if signed else np.uint8), [], [], []
        self.low = -128 if signed else 0

    def const(self, name, value):
        self.inits.append(numpy_helper.from_array(np.array(value), name))
        return name

    def params(self, name):
        zero = self.low + rng.integers(0, 256)
        return [self.const(name + "_s", np.float32(rng.uniform(0.01, 0.05))), self.const(name + "_z", self.kind(zero))]

    def quantized(self, name, shape):
        """A float input behind Q and DQ."""
        self.inputs.append(h.make_tensor_value_info(name, T.FLOAT, shape))
        self.params_of = self.params(name)
        return self.pair(name, self.params_of)

    def pair(self, name, params):
        self.nodes.append(h.make_node("QuantizeLinear", [name, *params], [name + "_q"]))
        self.nodes.append(h.make_node("DequantizeLinear", [name + "_q", *params], [name + "_dq"]))
        return name + "_dq"

    def weight(self, name, shape, axis, signed=True):
        n = shape[axis]
        scale = rng.uniform(0.002, 0.02, n).astype(np.float32)
        values = rng.integers(-127, 128, shape).astype(np.int8) if signed else rng.integers(0, 256, shape).astype(np.uint8)
        zero = np.zeros(n, np.int8) if signed else np.full(n, 128, np.uint8)
        names = [self.const(name + "_w", values), self.const(name + "_s", scale), self.const(name + "_z", zero)]
        self.nodes.append(h.make_node("DequantizeLinear", names, [name], axis=axis))
        self.steps = scale
        return name

    def bias(self, name, x_scale):
        n = len(self.steps)
        names = [self.const(name + "_q", rng.integers(-3000, 3000, n).astype(np.int32)),
                 self.const(name + "_s", (x_scale * self.steps).astype(np.float32)), self.const(name + "_z", np.zeros(n, np.int32))]
        self.nodes.append(h.make_node("DequantizeLinear", names, [name], axis=0))
        return name

    def scale_of(self, name):
        return next(float(numpy_helper.to_array(i)) for i in self.inits if i.name == name + "_s")

    def save(self, path, y):
        """y goes through Q and out as bytes."""
        params = self.params("y")
        self.nodes.append(h.make_node("QuantizeLinear", [y, *params], ["bytes"]))
        out = h.make_tensor_value_info("bytes", T.INT8 if self.kind == np.int8 else T.UINT8, None)
        graph = h.make_graph(self.nodes, "g", self.inputs, [out], self.inits)
        onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)


def steps_apart(path, output):
    peer = session(path)
    feeds = {x.name: rng.standard_normal(x.shape).astype(np.float32) for x in peer.get_inputs()}
    files = []
    for name, value in feeds.items():
        np.save(f"{name}.npy", value)
        files += ["--input", f"{name}={name}.npy"]
    mopt("infer", path, *files, "--output", f"{output}=out.npy", "-f")
    return np.abs(np.load("out.npy").astype(np.float64) - peer.run([output], feeds)[0].astype(np.float64))


def expect(what, path, products, floats=0):
    apart = steps_apart(path, "bytes")
    in_int8 = report("bench", path, "--runs", 1)["models"][0]["operators"]
    print(what, "differ", float((apart > 0).mean()), "most", apart.max(), in_int8)
    if apart.max() > 1 or (apart > 0).mean() > 0.01 or in_int8 != {"int8": products, "float": floats}:
        sys.exit(f"{what}: {apart.max()} steps apart, {in_int8}")


def conv(signed, round_):
    net, depth = Net(signed), round_ % 4 == 3
    groups = 1 if round_ % 4 < 2 else int(rng.integers(2, 40))
    c = groups if depth else groups * int(rng.integers(1, 1 + 48 // groups) if groups < 48 else 1)
    o = c if depth else groups * int(rng.integers(1, 9)) if groups > 1 else int(rng.integers(1, 80))
    k, size = int(rng.integers(1, 6)), int(rng.integers(6, 34))
    x = net.quantized("x", [int(rng.integers(1, 4)), c, size, size + 1])
    w = net.weight("w", [o, c // groups, k, k], 0, signed or round_ % 3 > 0)
    pads = [int(p) for p in rng.integers(0, k, 4)]
    names = [x, w] + ([net.bias("b", net.scale_of("x"))] if round_ % 2 else [])
    stride = [int(s) for s in rng.integers(1, 3, 2)]
    net.nodes.append(h.make_node("Conv", names, ["y"], group=groups, pads=pads, strides=stride))
    ends = {0: "y", 1: "r"}[round_ % 2]
    if ends == "r":
        net.nodes.append(h.make_node("Relu", ["y"], ["r"]))
    net.save("op.onnx", ends)
    expect(f"Conv {groups} groups {c} to {o}, {k}x{k} stride {stride} of {size}", "op.onnx", 1)


def product(signed, round_):
    net, m, k, n = Net(signed), int(rng.integers(1, 70)), int(rng.integers(1, 300)), int(rng.integers(1, 150))
    if round_ % 2:
        x = net.quantized("x", [2, m, k])
        net.nodes.append(h.make_node("MatMul", [x, net.weight("w", [k, n], 1)], ["p" if round_ % 4 == 3 else "y"]))
        if round_ % 4 == 3:         # a bias behind it, in float
            net.nodes.append(h.make_node("Add", [net.const("b", rng.standard_normal(n).astype(np.float32)), "p"], ["y"]))
    else:
        turned = round_ % 4 == 0
        x = net.quantized("x", [m, k])
        w = net.weight("w", [n, k] if turned else [k, n], 0 if turned else 1)
        net.nodes.append(h.make_node("Gemm", [x, w, net.bias("b", net.scale_of("x"))], ["y"], transB=int(turned)))
    net.save("op.onnx", "y")
    expect(f"product {m}x{k}x{n}", "op.onnx", 1)


def elements(signed, round_):
    net, shape = Net(signed), [int(s) for s in rng.integers(2, 20, 4)]
    x = net.quantized("x", shape)
    kind = ["Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "MaxPool", "Sigmoid", "LeakyRelu", "HardSwish", "Clip"][round_]
    if kind in ("Add", "Mul", "Concat"):
        names = [x, net.quantized("z", shape if kind != "Mul" else [shape[0], shape[1], 1, 1])]
        net.nodes.append(h.make_node(kind, names, ["y"], **({"axis": 1} if kind == "Concat" else {})))
    elif kind in ("AveragePool", "MaxPool"):
        net.nodes.append(h.make_node(kind, [x], ["y"], kernel_shape=[2, 2], strides=[2, 1]))
    elif kind == "Clip":
        net.nodes.append(h.make_node("Clip", [x, net.const("lo", np.float32(-0.3)), net.const("hi", np.float32(0.9))], ["y"]))
    else:
        net.nodes.append(h.make_node(kind, [x], ["y"]))
    net.save("op.onnx", "y")
    expect(f"{kind} {shape}", "op.onnx", 0)


def first(signed, round_):
    """A convolution in float, a pool behind it, then bytes: one kernel."""
    net, c, o, k = Net(signed), int(rng.integers(1, 5)), int(rng.integers(1, 70)), int(rng.integers(1, 6))
    net.inputs.append(h.make_tensor_value_info("x", T.FLOAT, [2, c, 20, 23]))
    w = net.const("w", (rng.standard_normal([o, c, k, k]) / k).astype(np.float32))
    bias = net.const("b", rng.standard_normal(o).astype(np.float32))
    net.nodes.append(h.make_node("Conv", ["x", w, bias], ["c"], pads=[k // 2] * 4))
    if round_ % 2:
        net.nodes.append(h.make_node("Relu", ["c"], ["r"]))
    net.nodes.append(h.make_node("MaxPool", ["r" if round_ % 2 else "c"], ["y"], kernel_shape=[2, 3], strides=[2, 3]))
    net.save("op.onnx", "y")
    expect(f"first layer {c} to {o}, {k}x{k}", "op.onnx", 0, floats=1)


def functions(signed, round_):
    """What is computed from one tensor of bytes: numbers beside it, the same bytes twice, other Qs on the way."""
    net, shape = Net(signed), [3, 5, 7]
    x = net.quantized("x", shape)
    half, one, root = net.const("half", np.float32(0.5)), net.const("one", np.array([1], np.float32)), net.const("root", np.float32(1.4142135))
    add = lambda kind, names, y: net.nodes.append(h.make_node(kind, names, [y])) or y
    if round_ == 0:
        y = add("Mul", [half, x], "y")
    elif round_ == 1:
        y = add("Sub", [add("Div", [x, root], "d"), one], "y")
    else:
        e = add("Add", [add("Erf", [add("Div", [x, root], "d")], "e"), one], "a")
        if round_ == 3:
            e = net.pair(e, net.params("a"))
        m = add("Mul", [x, e], "m")
        if round_ == 3:
            m = net.pair(m, net.params("m"))
        y = add("Mul", [m, half], "y")
    net.save("op.onnx", y)
    model = onnx.load("op.onnx")            # a result of the graph is none of lowering's: one more byte operator behind it
    params = [n for n in model.graph.node[-1].input[1:]]
    model.graph.node.append(h.make_node("DequantizeLinear", ["bytes", *params], ["back"]))
    model.graph.node.append(h.make_node("Neg", ["back"], ["negative"]))
    model.graph.output[0].CopyFrom(h.make_tensor_value_info("negative", T.FLOAT, None))
    onnx.save(model, "op.onnx")
    scale = net.scale_of("y")
    apart = steps_apart("op.onnx", "negative") / scale
    print(f"function {round_} differs", float((apart > 0.1).mean()), "most", apart.max())
    if apart.max() > 1.01 or (apart > 0.1).mean() > 0.05:
        sys.exit(f"function {round_}: {apart.max()} steps apart")


def dynamic(round_):
    """Zero points that only the data tells, constant weights."""
    net, is_conv = Net(False), round_ % 2 == 0
    shape = [2, 9, 12, 11] if is_conv else [3, 17, 60]
    net.inputs.append(h.make_tensor_value_info("x", T.FLOAT, shape))
    signed = round_ < 2
    w = rng.integers(-128, 128, [20, 9, 3, 3] if is_conv else [60, 37]).astype(np.int8)
    w = w if signed else (w.astype(np.int32) + 128).astype(np.uint8)
    zero = net.const("z", np.int8(0) if signed else np.uint8(128))
    net.nodes.append(h.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "zx"]))
    net.nodes.append(h.make_node("ConvInteger" if is_conv else "MatMulInteger", ["q", net.const("w", w), "zx", zero], ["bytes"],
                                 **({"pads": [1, 1, 1, 1], "strides": [2, 1]} if is_conv else {})))
    out = h.make_tensor_value_info("bytes", T.INT32, None)
    graph = h.make_graph(net.nodes, "g", net.inputs, [out], net.inits)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), "op.onnx")
    expect(f"dynamic {net.nodes[-1].op_type}", "op.onnx", 1)


for i in range(4):
    dynamic(i)
for signed in (False, True):
    for i in range(12):
        conv(signed, i)
    for i in range(8):
        product(signed, i)
    for i in range(10):
        elements(signed, i)
    for i in range(4):
        functions(signed, i)
        first(signed, i)


class Reader(CalibrationDataReader):
    def __init__(self, values):
        self.rows = iter([{"input": v} for v in values])

    def get_next(self):
        return next(self.rows, None)


def whole(path, products):
    apart = steps_apart(path, "output")
    feeds_most = max(1e-9, np.abs(np.load("out.npy")).max())
    operators = report("bench", path, "--runs", 1)["models"][0]["operators"]
    print(path, "largest difference", apart.max() / feeds_most, operators)
    if apart.max() > 5e-2 * feeds_most or operators["float"] > products:
        sys.exit(f"{path}: {apart.max()} of {feeds_most}, {operators}")


for family, shape in {"lenet5": [1, 28, 28], "resnet20": [3, 32, 32], "mobilenetv2": [3, 64, 64], "transformer": [16, 64]}.items():
    mopt("create", family, "--input", "x".join(map(str, shape)), "--classes", 10, "-o", f"{family}.onnx")
    model = onnx.load(f"{family}.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, f"{family}.onnx")
    x = rng.standard_normal([24, *shape]).astype(np.float32)
    np.save("x.npy", x)
    np.save("y.npy", np.zeros(len(x), np.int64))
    for target in ("x86", "arm", "trt"):
        path = f"{family}.{target}.onnx"
        mopt("quantize", f"{family}.onnx", "--data", "npy:x.npy,y.npy,layout=tensor", "--target", target, "--no-evaluate",
             "--measure", 0, "-o", path)
        whole(path, 4 if family == "transformer" else 1)       # attention: two layers, two products of activations each
    for act in (QuantType.QUInt8, QuantType.QInt8):
        path = f"{family}.{act}.onnx"
        quantize_static(f"{family}.onnx", path, Reader(x.reshape(-1, 2, *shape)), quant_format=QuantFormat.QDQ,
                        activation_type=act, weight_type=QuantType.QInt8, per_channel=True)
        whole(path, 4 if family == "transformer" else 0)

# Positions made from the size of the input, through a convolution: constants once the size is known, which no node gives while
# the ranges are looked at.
nodes = [h.make_node("Shape", ["x"], ["shape"]), h.make_node("ConstantOfShape", ["shape"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.int64))),
         h.make_node("CumSum", ["ones", "axis"], ["places"]), h.make_node("Cast", ["places"], ["positions"], to=T.FLOAT),
         h.make_node("Conv", ["positions", "w"], ["embedding"]), h.make_node("Conv", ["x", "w"], ["mixed"]),
         h.make_node("Add", ["mixed", "embedding"], ["output"])]
graph = h.make_graph(nodes, "positions", [h.make_tensor_value_info("x", T.FLOAT, [2, 3, 8, 8])],
                     [h.make_tensor_value_info("output", T.FLOAT, [2, 4, 8, 8])],
                     [numpy_helper.from_array(rng.standard_normal((4, 3, 1, 1)).astype(np.float32), "w"),
                      numpy_helper.from_array(np.int64(2), "axis")])
onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), "positions.onnx")
np.save("x.npy", rng.standard_normal((24, 3, 8, 8)).astype(np.float32))
mopt("quantize", "positions.onnx", "--data", "npy:x.npy,y.npy,layout=tensor", "--no-evaluate", "--measure", 0, "-o", "positions.q.onnx")
whole("positions.q.onnx", 1)

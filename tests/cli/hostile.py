"""hostile.py MOPT - models that can be read and ask for too much, or contradict themselves. Each is handed to the verbs
that read, change and run; each must be refused, or done, with an exit code of a refusal and words that name the file,
within a second of processor time and a GB of memory. Runs in an empty folder."""
import gzip, os, resource, struct, subprocess, sys, threading, zipfile

sys.path.insert(0, os.path.join(os.environ["ROOT"], "tests", "support"))
from onnx_bytes import *  # noqa

MOPT = sys.argv[1]
SECONDS = 1.0 * float(os.environ.get("MOPT_SLOWER", "1"))
GB = 1 << 30
HUGE = 1 << 40
cases, failures = [], []


def case(name, data, *, bench=(4, 5, 6), other=(0, 4, 5, 6), says=""):
    with open(name + ".onnx", "wb") as f:
        f.write(data)
    cases.append((name, bench, other, says))


X = value("x", F32, [1, 4, 8, 8])
Y = value("y", F32, ["a", "b", "c", "d"])


def longs_of(name, *x):
    return tensor(name, I64, [len(x)], longs(*x))


def one(op, *inits, inputs=("x",), extra=(), outputs=("y",), opset=17, x=X, y=None, **attrs):
    names = list(inputs) + [n for n, _ in inits]
    y = y or blob(1, "y") + blob(2, blob(1, number(1, F32)))
    return model(graph([node(op, names, list(outputs), **attrs)] + list(extra), [x], [y], [t for _, t in inits]), opset)


def w(name, dims, dtype=F32, size=4):
    n = 1
    for d in dims:
        n *= d
    return name, tensor(name, dtype, dims, bytes(n * size))


def shape(name, *dims):
    return name, longs_of(name, *dims)


# ---- more than memory

case("expand", one("Expand", shape("s", HUGE, HUGE, 8, 8), x=value("x", F32, [1, 1, 8, 8])))
case("expand-product", one("Expand", shape("s", 1 << 31, 1 << 31, 1 << 31, 8), x=value("x", F32, [1, 1, 1, 8])))
case("expand-chain", model(graph([node("Expand", ["x", "s"], ["a"]), node("Expand", ["a", "t"], ["y"])],
     [value("x", F32, [1])], [value("y", F32, ["n"])], [longs_of("s", 1 << 20, 1), longs_of("t", 1 << 20, 1 << 20)])))
case("tile", one("Tile", shape("r", 1, HUGE, 1, HUGE)))
case("tile-negative", one("Tile", shape("r", 1, -1, 1, 1)))
case("constant-of-shape", one("ConstantOfShape", shape("s", HUGE), inputs=()))
case("constant-of-shape-product", one("ConstantOfShape", shape("s", 1 << 32, 1 << 32, 1 << 32), inputs=()))
case("constant-of-shape-negative", one("ConstantOfShape", shape("s", -5), inputs=()))
case("range", one("Range", ("a", tensor("a", I64, [], longs(0))), ("b", tensor("b", I64, [], longs(1 << 62))),
                  ("c", tensor("c", I64, [], longs(1))), inputs=()))
case("range-zero", one("Range", ("a", tensor("a", I64, [], longs(0))), ("b", tensor("b", I64, [], longs(9))),
                       ("c", tensor("c", I64, [], longs(0))), inputs=()))
case("range-nan", one("Range", ("a", tensor("a", F32, [], floats(0))), ("b", tensor("b", F32, [], floats(float("inf")))),
                      ("c", tensor("c", F32, [], floats(float("nan")))), inputs=()))
case("range-tiny-step", one("Range", ("a", tensor("a", F32, [], floats(0))), ("b", tensor("b", F32, [], floats(1e30))),
                            ("c", tensor("c", F32, [], floats(1e-30))), inputs=()))
case("pad", one("Pad", shape("p", 0, 0, HUGE, 0, 0, 0, HUGE, 0)))
case("pad-overflow", one("Pad", shape("p", 0, 0, 1 << 62, 0, 0, 0, 1 << 62, 0)))
case("pad-negative", one("Pad", shape("p", 0, 0, -100, 0, 0, 0, -100, 0)))
case("pad-reflect", one("Pad", shape("p", 0, 0, 100, 0, 0, 0, 100, 0), mode="reflect"), bench=(0, 4, 5, 6))  # numpy goes on reflecting
case("one-hot", model(graph([node("OneHot", ["i", "d", "v"], ["y"])], [value("i", I64, [1000])],
     [value("y", F32, ["a", "b"])], [tensor("d", I64, [], longs(1 << 40)), tensor("v", F32, [2], floats(0, 1))])))
case("one-hot-negative", model(graph([node("OneHot", ["i", "d", "v"], ["y"])], [value("i", I64, [4])],
     [value("y", F32, ["a", "b"])], [tensor("d", I64, [], longs(-3)), tensor("v", F32, [2], floats(0, 1))])))
case("resize-sizes", one("Resize", shape("s", 1, 4, HUGE, HUGE), inputs=("x", "", "")))
case("resize-scales", one("Resize", ("s", tensor("s", F32, [4], floats(1, 1, 1e30, 1e30))), inputs=("x", "")))
case("resize-nan", one("Resize", ("s", tensor("s", F32, [4], floats(1, 1, float("nan"), 2))), inputs=("x", "")))
case("resize-negative", one("Resize", ("s", tensor("s", F32, [4], floats(1, 1, -2, 2))), inputs=("x", "")))
case("resize-zero", one("Resize", shape("s", 1, 4, 0, 0), inputs=("x", "", "")), bench=(0, 4, 5, 6))
case("upsample", one("Upsample", ("s", tensor("s", F32, [4], floats(1, 1, 1e20, 1e20))), opset=9))
case("eye-like", one("EyeLike", x=value("x", F32, [1 << 24, 1 << 24])))
case("input", model(graph([node("Relu", ["x"], ["y"])], [value("x", F32, [HUGE, HUGE])], [value("y", F32, ["n"])])))
case("input-large", model(graph([node("Relu", ["x"], ["y"])], [value("x", F32, [HUGE])], [value("y", F32, ["n"])])))
case("matmul", model(graph([node("MatMul", ["x", "y0"], ["y"])], [value("x", F32, [1 << 20, 1]), value("y0", F32, [1, 1 << 20])],
                           [value("y", F32, ["a", "b"])])))
case("depth-to-space", one("DepthToSpace", blocksize=1 << 40))
case("space-to-depth-zero", one("SpaceToDepth", blocksize=0))
case("conv-transpose", one("ConvTranspose", w("w", [4, 1, 1, 1]), strides=[1 << 30, 1 << 30]))
case("conv-transpose-output", one("ConvTranspose", w("w", [4, 1, 3, 3]), output_padding=[1 << 40, 1]))
case("lstm", model(graph([node("LSTM", ["x", "w", "r"], ["y"], hidden_size=1 << 40)], [value("x", F32, [2, 1, 3])],
     [value("y", F32, ["a", "b", "c", "d"])], [tensor("w", F32, [1, 8, 3], bytes(96)), tensor("r", F32, [1, 8, 2], bytes(64))])))
case("split-many", one("Split", x=value("x", F32, [1 << 20]), num_outputs=1 << 30, opset=18))
case("dimension-overflow", one("Add", ("w", tensor("w", F32, [HUGE, HUGE], b"")), ), other=(4, 5, 6))
case("dimension-lies", one("Add", ("w", tensor("w", F32, [1 << 20], bytes(16)))), other=(4, 5, 6), says="'w'")
case("dimension-negative", one("Add", ("w", tensor("w", F32, [-4], bytes(16)))), other=(4, 5, 6), says="'w'")
case("rank", one("Add", ("w", tensor("w", F32, [1] * 2000, bytes(4)))), other=(4, 5, 6))
case("value-rank", model(graph([node("Relu", ["x"], ["y"])], [value("x", F32, [1] * 2000)], [Y])))

# ---- attributes

case("stride-zero", one("Conv", w("w", [2, 4, 3, 3]), strides=[0, 0]))
case("stride-negative", one("Conv", w("w", [2, 4, 3, 3]), strides=[-1, -1]))
case("stride-huge", one("Conv", w("w", [2, 4, 3, 3]), strides=[1 << 62, 1 << 62]), bench=(0, 4, 5, 6))
case("dilation-zero", one("Conv", w("w", [2, 4, 3, 3]), dilations=[0, 0]))
case("dilation-huge", one("Conv", w("w", [2, 4, 3, 3]), dilations=[1 << 62, 1 << 62]))
case("group-zero", one("Conv", w("w", [2, 4, 3, 3]), group=0))
case("group-negative", one("Conv", w("w", [2, 4, 3, 3]), group=-2))
case("group-odd", one("Conv", w("w", [2, 4, 3, 3]), group=3))
case("group-huge", one("Conv", w("w", [2, 4, 3, 3]), group=1 << 40))
case("pads-huge", one("Conv", w("w", [2, 4, 3, 3]), pads=[1 << 60, 1 << 60, 1 << 60, 1 << 60]))
case("pads-negative", one("Conv", w("w", [2, 4, 3, 3]), pads=[-9, -9, -9, -9]))
case("kernel-huge", one("MaxPool", kernel_shape=[1 << 40, 1 << 40]))
case("kernel-padded", one("MaxPool", kernel_shape=[1 << 20, 1 << 20], pads=[1 << 19] * 4), bench=(0, 4, 5, 6))
case("kernel-zero", one("AveragePool", kernel_shape=[0, 0]))
case("kernel-negative", one("AveragePool", kernel_shape=[-3, 3]))
case("kernel-many", one("MaxPool", kernel_shape=[1] * 5000))
case("kernel-is-not-weight", one("Conv", w("w", [2, 4, 3, 3]), kernel_shape=[9, 9]))
case("weight-rank", one("Conv", w("w", [2]), bench=(4, 5, 6)) if False else one("Conv", w("w", [2])))
case("weight-empty", one("Conv", w("w", [0, 4, 3, 3])), bench=(0, 4, 5, 6))
case("weight-channels", one("Conv", w("w", [2, 5, 3, 3])))
for op, attrs in {"Softmax": {}, "Flatten": {}, "LogSoftmax": {}, "Concat": {}, "ArgMax": {}, "Hardmax": {}}.items():
    for axis in (99, -99, (1 << 63) - 1, -(1 << 63)):
        case("axis-%s-%d" % (op.lower(), axis), one(op, axis=axis))
case("axis-gather", one("Gather", shape("i", 0), axis=77))
case("index-gather", one("Gather", shape("i", 1 << 40)))
case("index-gather-elements", one("GatherElements", ("i", tensor("i", I64, [1, 1, 1, 1], longs(-99)))))
case("index-gather-nd", one("GatherND", ("i", tensor("i", I64, [1, 4], longs(0, 0, 99, 0)))))
case("index-gather-nd-deep", one("GatherND", ("i", tensor("i", I64, [1, 9], longs(*[0] * 9)))))
case("index-scatter", one("ScatterND", ("i", tensor("i", I64, [1, 1], longs(77))), ("u", tensor("u", F32, [1, 4, 8, 8], bytes(1024)))))
case("index-scatter-elements", one("ScatterElements", ("i", tensor("i", I64, [1, 1, 1, 1], longs(77))),
                                   ("u", tensor("u", F32, [1, 1, 1, 1], bytes(4)))))
case("axes-squeeze", one("Squeeze", shape("s", 44)))
case("axes-unsqueeze", one("Unsqueeze", shape("s", 44)))
case("axes-twice", one("Unsqueeze", shape("s", 0, 0)))
case("axes-unsqueeze-many", one("Unsqueeze", shape("s", *range(64))))
case("axes-reduce", one("ReduceSum", shape("s", -77)))
case("axes-reduce-many", one("ReduceMean", axes=list(range(5000))))
case("slice-zero", one("Slice", shape("a", 0), shape("b", 4), shape("c", 1), shape("d", 0)))
case("slice-ends", one("Slice", shape("a", -(1 << 63)), shape("b", (1 << 63) - 1), shape("c", 2), shape("d", (1 << 63) - 1)),
     bench=(0, 4, 5, 6))
case("slice-backwards", one("Slice", shape("a", (1 << 63) - 1), shape("b", -(1 << 63)), shape("c", 2), shape("d", -(1 << 63))),
     bench=(0, 4, 5, 6))
case("slice-lengths", one("Slice", shape("a", 0, 0), shape("b", 4), shape("c", 1)))
case("reshape-twice", one("Reshape", shape("s", -1, -1)))
case("reshape-product", one("Reshape", shape("s", 7, 11)))
case("reshape-overflow", one("Reshape", shape("s", 1 << 32, 1 << 32, -1)))
case("reshape-zero", one("Reshape", shape("s", 0, 0, 0, 0, 0, 0)))
case("reshape-rank", one("Reshape", shape("s", *[1] * 500, 256)))
case("transpose-twice", one("Transpose", perm=[0, 0, 1, 2]))
case("transpose-out", one("Transpose", perm=[0, 1, 2, 9]))
case("transpose-short", one("Transpose", perm=[0, 1]))
case("split-sizes", one("Split", shape("s", 1 << 40, -(1 << 40)), outputs=("y", "z"), axis=1))
case("top-k", one("TopK", shape("k", 1 << 40), outputs=("y", "i")))
case("top-k-negative", one("TopK", shape("k", -1), outputs=("y", "i")))
case("cum-sum", one("CumSum", ("a", tensor("a", I64, [], longs(99)))))
case("einsum", one("Einsum", equation="abcd->" + "abcd" * 4000))
case("einsum-letters", one("Einsum", equation="ab->c"))
case("einsum-dots", one("Einsum", equation="...a...b->......"))
case("layer-norm", one("LayerNormalization", w("s", [3]), axis=-99))
case("layer-norm-scale", one("LayerNormalization", w("s", [77]), axis=-1))
case("group-norm", one("GroupNormalization", w("s", [0]), w("b", [0]), num_groups=0, opset=18))
case("instance-norm", one("InstanceNormalization", w("s", [99]), w("b", [1])))
case("batch-norm", one("BatchNormalization", w("s", [1]), w("b", [9]), w("m", [2]), w("v", [4])))
case("lrn", one("LRN", size=0))
case("lrn-huge", one("LRN", size=1 << 60), bench=(0, 4, 5, 6))
case("lstm-direction", one("LSTM", w("w", [1, 8, 3]), w("r", [1, 8, 2]), x=value("x", F32, [2, 1, 3]), direction="sideways"))
case("lstm-hidden", one("LSTM", w("w", [1, 8, 3]), w("r", [1, 8, 2]), x=value("x", F32, [2, 1, 3]), hidden_size=-2))
case("gru-weights", one("GRU", w("w", [1, 1, 1]), w("r", [1, 1, 1]), x=value("x", F32, [2, 1, 3]), hidden_size=2))
case("attention-heads", one("Attention", inputs=("x", "x", "x"), x=value("x", F32, [1, 4, 8]), q_num_heads=0, kv_num_heads=0, opset=23))
case("attention-heads-odd", one("Attention", inputs=("x", "x", "x"), x=value("x", F32, [1, 4, 8]), q_num_heads=3, kv_num_heads=5, opset=23))
case("quantize-axis", one("QuantizeLinear", w("s", [4]), w("z", [4], U8, 1), axis=99))
case("dequantize-block", one("DequantizeLinear", ("s", tensor("s", F32, [1, 1], floats(1))), x=value("x", I8, [4, 4]), axis=0, block_size=-3, opset=21))
case("dequantize-scale", one("DequantizeLinear", w("s", [3]), x=value("x", I8, [4, 4]), axis=0))
case("cast", one("Cast", to=999))
case("cast-none", one("Cast"))
case("gemm-rank", one("Gemm", w("w", [3, 3])))
case("matmul-sizes", one("MatMul", w("w", [3, 3])))
case("broadcast", one("Add", w("w", [3, 5])))
case("grid-sample", one("GridSample", w("g", [1, 2, 2, 3])))
case("max-unpool", one("MaxUnpool", ("i", tensor("i", I64, [1, 4, 8, 8], longs(*[1 << 50] * 256))), kernel_shape=[2, 2], strides=[2, 2]))
case("compress", one("Compress", w("c", [99], BOOL, 1), axis=1), bench=(0, 4, 5, 6))
case("too-few-inputs", one("Conv"))
case("too-many-inputs", one("Relu", *[w("w%d" % i, [1]) for i in range(40)]))
case("too-many-outputs", one("Relu", outputs=["y"] + ["z%d" % i for i in range(5000)]))

# attributes of the wrong kind
for op, key, x in (("Conv", "strides", 1.5), ("Conv", "strides", "1,1"), ("Conv", "pads", 3), ("Conv", "auto_pad", [1]),
                   ("Conv", "group", 2.5), ("Conv", "auto_pad", "NEITHER"), ("MaxPool", "kernel_shape", 3),
                   ("Softmax", "axis", "last"), ("Transpose", "perm", 1), ("Cast", "to", "float"), ("LeakyRelu", "alpha", 1),
                   ("Elu", "alpha", [1]), ("Gather", "axis", 1.0), ("Constant", "value", 3), ("Constant", "value_ints", 3),
                   ("If", "then_branch", 1), ("Loop", "body", "b"), ("Scan", "body", [1]), ("LSTM", "hidden_size", "x"),
                   ("ConstantOfShape", "value", "0"), ("Einsum", "equation", 7), ("Resize", "mode", 7)):
    inits = [w("w", [2, 4, 3, 3])] if op == "Conv" else [shape("w", 0)] if op in ("Gather", "ConstantOfShape", "If") else []
    case("kind-%s-%s-%s" % (op.lower(), key, type(x).__name__),
         one(op, *inits, inputs=() if op in ("Constant", "ConstantOfShape", "If") else ("x",), **{key: x}), bench=(0, 4, 5, 6))
case("constant-lies", one("Constant", inputs=(), value=("tensor", tensor("t", F32, [HUGE], bytes(4)))), other=(4, 5, 6))
case("constant-none", one("Constant", inputs=()))

# ---- graphs

case("cycle", model(graph([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])], [X], [value("b", F32, ["n"])])),
     other=(4,), says="cycle")
case("cycle-self", model(graph([node("Add", ["x", "y"], ["y"])], [X], [Y])), other=(4,))
case("duplicate-output", model(graph([node("Relu", ["x"], ["y"]), node("Relu", ["x"], ["y"])], [X], [Y])), other=(4,), says="'y'")
case("duplicate-initializer", model(graph([node("Add", ["x", "w"], ["y"])], [X], [Y], [w("w", [1])[1], w("w", [1])[1]])), other=(4,), says="'w'")
case("duplicate-input", model(graph([node("Relu", ["x"], ["y"])], [X, X], [Y])), other=(4,), says="'x'")
case("duplicate-graph-output", model(graph([node("Relu", ["x"], ["y"])], [X], [Y, Y])), bench=(0, 4), other=(0, 4))
case("output-is-input", model(graph([node("Relu", ["x"], ["x"])], [X], [X])), other=(4,))
case("no-such-value", model(graph([node("Relu", ["nobody"], ["y"])], [X], [Y])), other=(4,), says="'nobody'")
case("no-such-output", model(graph([node("Relu", ["x"], ["y"])], [X], [value("z", F32, [1])])), other=(4,), says="'z'")
case("empty-name", model(graph([node("Relu", ["x"], [""])], [X], [value("", F32, [1])])), other=(0, 4))
case("empty-input-name", model(graph([node("Relu", [""], ["y"])], [value("", F32, [1])], [Y])), other=(0, 4))
case("empty-initializer-name", model(graph([node("Relu", ["x"], ["y"])], [X], [Y], [w("", [1])[1]])), bench=(0, 4), other=(0, 4))
case("no-nodes", model(graph([], [X], [X])), bench=(0, 4, 5))
case("nothing", model(b""), bench=(0, 4, 5))
case("no-type", model(graph([node("", ["x"], ["y"])], [X], [Y])))
case("long-name", model(graph([node("Relu", ["x" * 100000], ["y"])], [value("x" * 100000, F32, [1])], [Y])), bench=(0, 4, 5), other=(0, 4))
case("control-characters", model(graph([node("Relu", ["\x1b[2J\r\n"], ["y"])], [X], [Y])), other=(4,))
case("opset-huge", one("Relu", opset=(1 << 63) - 1), bench=(0, 4), other=(0, 4))
case("opset-none", number(1, 8) + blob(7, graph([node("Relu", ["x"], ["y"])], [X], [Y])), bench=(0, 4), other=(0, 4))


def nested(depth):
    g = graph([node("Identity", ["x"], ["o"])], [], [value("o", F32, [1])])
    for _ in range(depth):
        g = graph([node("If", ["c"], ["o"], then_branch=("graph", g), else_branch=("graph", g[:0] + graph(
            [node("Identity", ["x"], ["o"])], [], [value("o", F32, [1])])))], [], [value("o", F32, [1])])
    return model(graph([node("If", ["c"], ["y"], then_branch=("graph", g), else_branch=("graph", g))],
                       [value("x", F32, [1]), value("c", BOOL, [])], [value("y", F32, [1])]))


case("nested-12", nested(12), bench=(0, 4))
case("nested-300", nested(300), other=(4,))


def bomb(depth):  # each level twice: 2^depth graphs would be 2^depth bytes, so a file can only hold them all
    g = graph([node("Identity", ["x"], ["o"])], [], [value("o", F32, [1])])
    for _ in range(depth):
        g = graph([node("If", ["c"], ["o"], then_branch=("graph", g), else_branch=("graph", g))], [], [value("o", F32, [1])])
    return model(graph([node("If", ["c"], ["y"], then_branch=("graph", g), else_branch=("graph", g))],
                       [value("x", F32, [1]), value("c", BOOL, [])], [value("y", F32, [1])]))


case("nested-bomb", bomb(11), bench=(0, 4, 6))


def function(name, nodes, inputs=("a",), outputs=("b",), domain="f"):
    return (blob(1, name) + b"".join(blob(4, i) for i in inputs) + b"".join(blob(5, o) for o in outputs) +
            b"".join(blob(7, n) for n in nodes) + blob(9, number(2, 17)) + blob(9, blob(1, domain) + number(2, 1)) + blob(10, domain))


def calls(functions, first):
    return model(graph([node(first, ["x"], ["y"], domain="f")], [value("x", F32, [4])], [value("y", F32, ["n"])]),
                 functions=functions) + blob(8, blob(1, "f") + number(2, 1))


case("function-self", calls([function("F", [node("F", ["a"], ["b"], domain="f")])], "F"))
case("function-ring", calls([function("F", [node("G", ["a"], ["b"], domain="f")]),
                             function("G", [node("F", ["a"], ["b"], domain="f")])], "F"))
case("function-laughs", calls([function("F%d" % i, [node("F%d" % (i + 1), ["a"], ["t"], domain="f"),
                                                    node("F%d" % (i + 1), ["t"], ["b"], domain="f")]) for i in range(60)] +
                              [function("F60", [node("Relu", ["a"], ["b"])])], "F0"))
case("function-twice", calls([function("F", [node("Relu", ["a"], ["b"])])] * 2, "F"), bench=(0, 4))
case("function-no-output", calls([function("F", [node("Relu", ["a"], ["c"])])], "F"))
case("function-many-inputs", calls([function("F", [node("Relu", ["a"], ["b"])], inputs=["a"] * 3000)], "F"), bench=(0, 4))


def loop(body_nodes, body_out, *, trip=None, cond=None, state=(), state_out=(), extra_out=(), y="y", opset=17):
    body = graph(body_nodes, [value("i", I64, []), value("c", BOOL, [])] + [value("s", F32, ["n"]) for _ in state],
                 [value(body_out, BOOL, [])] + [value(o, F32, ["n"]) for o in list(state_out) + list(extra_out)])
    inits = [tensor("t", I64, [], longs(trip))] if trip is not None else []
    inits += [tensor("k", BOOL, [], bytes([cond]))] if cond is not None else []
    names = ["t" if trip is not None else "", "k" if cond is not None else ""] + list(state)
    return model(graph([node("Loop", names, [y], body=("graph", body))], [value("x", F32, [4])], [value(y, F32, ["n"])], inits), opset)


same = node("Identity", ["c"], ["d"])
case("loop-forever", loop([same, node("Identity", ["s"], ["o"])], "d", cond=1, state=["x"], state_out=["o"]), bench=(5, 6), says="Loop")
case("loop-forever-count", loop([same, node("Identity", ["s"], ["o"])], "d", trip=(1 << 63) - 1, state=["x"], state_out=["o"]), bench=(0, 5, 6))
case("loop-forever-moving", loop([same, node("Neg", ["s"], ["o"])], "d", cond=1, state=["x"], state_out=["o"]), bench=(5, 6))
case("loop-forever-collects", loop([same, node("Identity", ["s"], ["o"]), node("Relu", ["s"], ["p"])], "d", cond=1, state=["x"],
                                   state_out=["o"], extra_out=["p"]), bench=(4, 5, 6))
case("loop-doubles", loop([same, node("Concat", ["s", "s"], ["o"], axis=0)], "d", cond=1, state=["x"], state_out=["o"]), bench=(5, 6))
case("loop-doubles-product", loop([same, node("Mul", ["s", "s"], ["o"])], "d", trip=1 << 60, cond=1, state=["x"], state_out=["o"]), bench=(0, 5, 6))
case("loop-no-outputs", loop([same], "d", trip=1 << 60, cond=1), bench=(4, 5, 6))
case("scan-axis", one("Scan", num_scan_inputs=1, scan_input_axes=[99], body=("graph", graph([node("Relu", ["a"], ["b"])],
     [value("a", F32, ["n"])], [value("b", F32, ["n"])]))))
case("scan-inputs", one("Scan", num_scan_inputs=99, body=("graph", graph([node("Relu", ["a"], ["b"])],
     [value("a", F32, ["n"])], [value("b", F32, ["n"])]))))


# ---- external data

os.mkdir("inside")
for name in ("inside/d", "d"):
    with open(name, "wb") as f:
        f.write(bytes(64))
os.symlink("/etc/passwd", "inside/link")
os.symlink("..", "inside/up")
os.symlink("/dev/zero", "inside/zero")
os.mkfifo("inside/fifo")


def external(*pairs, dims=(4,)):
    t = tensor("w", F32, dims, None, number(14, 1) + b"".join(blob(13, blob(1, k) + blob(2, v)) for k, v in pairs))
    return model(graph([node("Add", ["x", "w"], ["y"])], [value("x", F32, [4])], [value("y", F32, [4])], [t]))


for name, pairs in {"dots": [("location", "../d")], "absolute": [("location", os.path.abspath("d"))],
                    "dots-inside": [("location", "inside/../../d")], "link": [("location", "link")], "link-folder": [("location", "up/d")],
                    "device": [("location", "/dev/zero")], "device-link": [("location", "zero")], "fifo": [("location", "fifo")],
                    "folder": [("location", ".")], "missing": [("location", "nobody")], "no-location": [("offset", "0")],
                    "offset": [("location", "d"), ("offset", "60")], "offset-huge": [("location", "d"), ("offset", str(2**64 - 8))],
                    "offset-negative": [("location", "d"), ("offset", "-8")], "length": [("location", "d"), ("length", "99")],
                    "length-huge": [("location", "d"), ("length", "9" * 400)], "empty": [("location", "")],
                    "self": [("location", "external-self.onnx"), ("offset", "4096")]}.items():
    case("inside/external-" + name, external(*pairs), other=(4, 5), bench=(4, 5), says="external data")
case("inside/external-dimensions", external(("location", "d"), dims=(HUGE, HUGE)), other=(4, 5), bench=(4, 5))


# ---- bytes

case("random", bytes(range(256)) * 64, other=(4,))
case("zeros", bytes(1 << 20), other=(4,))
case("groups", b"\x0b" * 100000, other=(4,))
case("unknown-fields", number(1, 8) + b"".join(blob(1000 + i, b"x") for i in range(20000)) + blob(7, b""), bench=(0, 4, 5), other=(0, 4))
case("many-nodes", model(graph([node("Relu", ["x" if not i else "a%d" % i], ["a%d" % (i + 1)]) for i in range(2000)], [X],
                               [value("a2000", F32, ["n"])])), bench=(0, 4, 5, 6))
case("long-length", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x", other=(4,))


def cpu_and_memory(command):
    """Exit code, seconds of processor time, largest resident set, words."""
    def limits():
        resource.setrlimit(resource.RLIMIT_CPU, (8, 8))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=limits, stdin=subprocess.DEVNULL)
    out = p.stdout.read()
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    return p.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, out.decode(errors="replace")


def check(name, command, codes, says, place):
    code, seconds, memory, words = cpu_and_memory(command)
    bad = []
    if code not in codes:
        bad.append("exit code %d, not one of %s" % (code, codes))
    if seconds > SECONDS:
        bad.append("%.1f s" % seconds)
    if memory > GB:
        bad.append("%d MB" % (memory >> 20))
    if code and not words.strip():
        bad.append("no words")
    if code and place and os.path.basename(place) not in words and not says:
        bad.append("does not name the file")
    if code and says and says not in words:
        bad.append("does not say %r" % says)
    if bad:
        failures.append("%s: %s: %s\n    %s" % (name, " ".join(command[1:]), "; ".join(bad), words.strip()[-300:]))
        print(failures[-1], flush=True)


wanted = sys.argv[2:]
for name, bench, other, says in cases:
    if wanted and name not in wanted:
        continue
    path, out = name + ".onnx", "o.onnx"
    only_read = other if 0 not in other else (0,) + tuple(other)
    check(name, [MOPT, "inspect", path, "--threads", "1"], only_read, says if 0 not in other else "", path if 0 not in other else "")
    check(name, [MOPT, "simplify", path, "-o", out, "-f", "-q", "--measure", "0", "--threads", "1"], other, "", "")
    check(name, [MOPT, "bench", path, "--runs", "1", "--warmup", "0", "--threads", "1"], bench, says, "")
    check(name, [MOPT, "quantize", path, "--weight-only", "int8", "-o", out, "-f", "-q", "--measure", "0", "--threads", "1"],
          (0, 4, 5, 6), "", "")

print("%d cases, %d failures" % (len(cases), len(failures)))
sys.exit(bool(failures))

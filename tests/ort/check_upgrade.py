"""--opset: nodes of every operator whose signature changed are brought to newer opsets; ONNX's checker takes the file, and
ONNX Runtime computes from it what it computes from the old one. What has no newer form is refused by name."""
import glob
import os
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import MOPT, check, infer, mopt, session
from inputs import SHARED, feeds_for

F, I = TensorProto.FLOAT, TensorProto.INT64
IR = {6: 3, 7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 16: 8, 17: 8, 18: 8}
TARGETS = (9, 11, 12, 13, 17, 18, 20, 21, 23, 25)


def model(opset, nodes, shape, constants=None, kind=F, outputs=("y",)):
    """Constants: arrays by name."""
    made = {o for n in nodes for o in n.output}
    kinds = {"i": I, "b": TensorProto.BOOL}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(o, kinds.get(o[0], kind), None) for o in outputs if o in made],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()])
    if opset < 9:       # files before IR 4 list their weights as inputs
        graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in graph.initializer)
    m = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR[opset]))
    for y in m.graph.output:        # the checker wants a shape; of those that stay unknown the rank is the input's
        if not y.type.tensor_type.HasField("shape"):
            y.CopyFrom(helper.make_tensor_value_info(y.name, kinds.get(y.name[0], kind), [None] * len(shape)))
    return m


def one(opset, kind, shape, inputs=(), constants=None, dtype=F, **attrs):
    return model(opset, [helper.make_node(kind, ["x", *inputs], ["y"], name=kind.lower(), **attrs)], shape, constants, dtype)


def f(*shape, seed=3):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def branches(opset):
    """What is changed lies in a branch of an If, and reads a value from outside."""
    def branch(name, kind):
        nodes = [helper.make_node("Squeeze", ["u"], [name + "_s"], axes=[0]),
                 helper.make_node(kind, [name + "_s"], [name], axes=[1], keepdims=1)]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, F, None)])
    nodes = [helper.make_node("Unsqueeze", ["x"], ["u"], axes=[0]),
             helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0), helper.make_node("Greater", ["m", "zero"], ["c"]),
             helper.make_node("If", ["c"], ["y"], then_branch=branch("t", "ReduceSum"), else_branch=branch("e", "ReduceMean"))]
    return model(opset, nodes, [3, 4], {"zero": np.float32(0)})


CASES = {
    "add6": one(6, "Add", [2, 3, 4, 5], ["w"], {"w": f(3)}, axis=1, broadcast=1),
    "mul6": one(6, "Mul", [2, 3, 4, 5], ["w"], {"w": f(3, 4)}, axis=1, broadcast=1),
    "prelu6": one(6, "PRelu", [2, 3, 4, 5], ["w"], {"w": f(3)}),
    "clip7": one(7, "Clip", [2, 3], min=-0.5, max=0.25),
    "clip6half": one(7, "Clip", [2, 3], dtype=TensorProto.FLOAT16, min=0.0, max=6.0),
    "batchnorm8": one(8, "BatchNormalization", [2, 3, 4, 4], list("abcd"),
                      dict(a=f(3), b=f(3, seed=4), c=f(3, seed=5), d=np.abs(f(3, seed=6)) + 1), spatial=1),
    "upsample7": one(7, "Upsample", [1, 2, 3, 4], scales=[1.0, 1.0, 2.0, 3.0], mode="nearest"),
    "upsample9": one(9, "Upsample", [1, 2, 3, 4], ["s"], {"s": np.float32([1, 1, 2, 2])}, mode="linear"),
    "resize10": one(10, "Resize", [1, 2, 3, 4], ["s"], {"s": np.float32([1, 1, 2, 2])}, mode="nearest"),
    "slice9": one(9, "Slice", [4, 5], starts=[1, -3], ends=[3, 100], axes=[0, 1]),
    "topk9": model(9, [helper.make_node("TopK", ["x"], ["y", "i"], k=2, axis=0)], [5, 3], outputs=("y", "i")),
    "pad10": one(10, "Pad", [2, 3], pads=[0, 1, 1, 0], value=1.5),
    "scatter10": one(10, "Scatter", [3, 3], ["k", "v"], dict(k=np.int64([[0, 2, 1]]), v=f(1, 3)), axis=0),
    "dropout10": one(10, "Dropout", [2, 3], ratio=0.3),
    "squeeze12": one(12, "Squeeze", [1, 3, 1], axes=[0]), "squeeze11all": one(11, "Squeeze", [1, 3, 1]),
    "unsqueeze12": one(12, "Unsqueeze", [2, 3], axes=[0, 3]),
    "split11": model(11, [helper.make_node("Split", ["x"], ["y", "z"], axis=1, split=[1, 4])], [2, 5], outputs=("y", "z")),
    "split17": model(17, [helper.make_node("Split", ["x"], ["y", "z"], axis=1)], [2, 6], outputs=("y", "z")),
    "softmax11": one(11, "Softmax", [2, 3, 4]), "logsoftmax11": one(11, "LogSoftmax", [2, 3, 4], axis=0),
    "hardmax11": one(11, "Hardmax", [2, 3, 4], axis=2),
    "roialign10": one(10, "RoiAlign", [1, 2, 8, 8], ["r", "k"], dict(r=np.float32([[0, 0, 5, 6]]), k=np.int64([0])),
                      output_height=3, output_width=3, sampling_ratio=2),
    "gridsample16": one(16, "GridSample", [1, 2, 4, 4], ["g"], {"g": np.tanh(f(1, 3, 3, 2))}, mode="bicubic"),
    "gridsample16plain": one(16, "GridSample", [1, 2, 4, 4], ["g"], {"g": np.tanh(f(1, 3, 3, 2))}),
    "dft17": one(17, "DFT", [2, 8, 5, 1], axis=2), "dft17plain": one(17, "DFT", [2, 8, 1]),
    "groupnorm18": one(18, "GroupNormalization", [2, 6, 4, 4], ["s", "b"], dict(s=f(3), b=f(3, seed=8)), num_groups=3),
    "branches12": branches(12),
}
for op in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"):
    CASES[f"reduce{op.lower()}11"] = one(11, "Reduce" + op, [2, 3, 4], axes=[-1, 0], keepdims=0)
CASES["reducemean11all"] = one(11, "ReduceMean", [2, 3, 4])

REFUSED = {
    "spatial": (one(8, "BatchNormalization", [2, 3], list("abcd"), {k: f(3) + 2 for k in "abcd"}, spatial=0), "spatial=0"),
    "half_pixel": (one(12, "Resize", [1, 1, 4, 4], ["", "s"], {"s": np.float32([1, 1, 2, 2])}, mode="nearest",
                       coordinate_transformation_mode="tf_half_pixel_for_nn"), "tf_half_pixel_for_nn"),
}


def compare(name, before, after, tolerance):
    for a, b in zip(before, after):
        if a.shape != b.shape or a.dtype != b.dtype:
            sys.exit(f"{name}: {a.dtype}{a.shape} became {b.dtype}{b.shape}")
        if a.size and a.dtype.kind == "f":
            a, b = a.astype(np.float64), b.astype(np.float64)
            worst = np.max(np.abs(a - b)) / max(1e-6, np.max(np.abs(a)))
            if not worst <= tolerance:
                sys.exit(f"{name}: outputs differ by {worst}")
        elif not np.array_equal(a, b):
            sys.exit(f"{name}: outputs differ")


def opset_of(path):
    return [x.version for x in onnx.load(path, load_external_data=False).opset_import if x.domain in ("", "ai.onnx")]


def upgrade(path, opset, target):
    mopt("simplify", path, "-o", target, "-f", "--opset", opset, "--measure", 0)
    if opset_of(target) != [opset]:
        sys.exit(f"{path}: is of opset {opset_of(target)}, not {opset}")




def run(path, x, names, lacking):
    """Through ONNX Runtime, or where it lacks an operator of that opset through mopt."""
    try:
        return session(path, plain=True).run(names, {"x": x})
    except Exception as e:      # noqa: BLE001
        if "NOT_IMPLEMENTED" not in str(e) and "deprecated" not in str(e):
            raise
        lacking.add(str(e).split("implementation for ")[-1].split(" ")[0])
        return infer(path, {"x": x}, names)


def cases():
    n, lacking = 0, set()
    for name, m in CASES.items():
        onnx.save(m, "before.onnx")
        kind = m.graph.input[0].type.tensor_type
        x = f(*[d.dim_value for d in kind.shape.dim]).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        x = np.abs(x) + x.dtype.type(0.1) if "log" in name else x
        names, old = [y.name for y in m.graph.output], m.opset_import[0].version
        before = run("before.onnx", x, names, lacking) if old >= 7 else infer("before.onnx", {"x": x}, names)
        for opset in [t for t in TARGETS if t > old]:
            upgrade("before.onnx", opset, "after.onnx")
            if not (opset < 21 and "groupnorm" in name):        # which the checker calls deprecated until 21
                onnx.checker.check_model("after.onnx", full_check=True)
            compare(f"{name} to {opset}", before, run("after.onnx", x, names, lacking), 2e-3 if "half" in name else 1e-5)
            n += 1
    print(n, "upgrades of single operators; run by mopt instead of ONNX Runtime:", sorted(lacking))


def models():
    n = 0
    for path in sorted(glob.glob(f"{SHARED}/models/*.onnx")):
        if os.path.getsize(path) > 20e6 or "light_" in path and "squeeze" not in path:
            continue
        before = session(path)
        for opset in (18, 25):
            if opset_of(path)[0] >= opset:
                continue
            upgrade(path, opset, "after.onnx")
            after = check("after.onnx")
            for feeds in feeds_for(path, before):
                try:
                    theirs = before.run(None, feeds)
                except Exception:   # noqa: BLE001 - a size that the model cannot take
                    continue
                ours = after.run(None, {x.name: feeds[x.name] for x in after.get_inputs()})
                compare(f"{path} to {opset}", theirs, ours, 1e-4)
            n += 1
    print(n, "upgrades of models")


def refusals():
    for name, (m, words) in REFUSED.items():
        onnx.save(m, "refused.onnx")
        done = subprocess.run([MOPT, "simplify", "refused.onnx", "-o", "x.onnx", "--opset", "17"], capture_output=True, text=True)
        if done.returncode == 0 or words not in done.stderr or os.path.exists("x.onnx"):
            sys.exit(f"{name}: exit {done.returncode}, {done.stderr}")
    onnx.save(CASES["split17"], "new.onnx")
    done = subprocess.run([MOPT, "simplify", "new.onnx", "-o", "x.onnx", "--opset", "13"], capture_output=True, text=True)
    if done.returncode == 0 or "lower" not in done.stderr:
        sys.exit(f"downgrade: exit {done.returncode}, {done.stderr}")


cases()
refusals()
models()

"""Attention written out in parts, as exporters write it: simplify makes one Attention of it, ONNX's checker takes the file, and
ONNX Runtime and mopt compute from it what ONNX Runtime computes from the parts. Without the rule the parts stay."""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import check, infer, mopt, session

F = TensorProto.FLOAT


def model(opset, scale_at, mask, batch=2):
    """Heads from a Linear each, as PyTorch's first exporter writes it; sizes of batch 2 or free."""
    rng = np.random.default_rng(1)
    constants = {"split": np.array([0, 0, 3, 4], np.int64), "join": np.array([0, 0, 12], np.int64),
                 "s": np.float32(0.5 if scale_at == "scores" else 0.25 ** 0.5)}
    nodes = []
    for h, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        constants["w" + h] = rng.standard_normal((6, 12)).astype(np.float32)
        nodes += [helper.make_node("MatMul", ["x", "w" + h], [h + "1"]), helper.make_node("Reshape", [h + "1", "split"], [h + "2"]),
                  helper.make_node("Transpose", [h + "2"], [h + "3"], perm=perm)]
    q, k = "q3", "k3"
    if scale_at == "both":
        nodes += [helper.make_node("Mul", ["q3", "s"], ["q4"]), helper.make_node("Mul", ["s", "k3"], ["k4"])]
        q, k = "q4", "k4"
    nodes.append(helper.make_node("MatMul", [q, k], ["scores"]))
    last = "scores"
    if scale_at == "scores":
        nodes.append(helper.make_node("Mul", [last, "s"], ["scaled"]))
        last = "scaled"
    inputs = [helper.make_tensor_value_info("x", F, [batch, 5, 6])]
    if mask:
        inputs.append(helper.make_tensor_value_info("mask", F, mask))
        nodes.append(helper.make_node("Add", [last, "mask"], ["masked"]))
        last = "masked"
    nodes += [helper.make_node("Softmax", [last], ["p"], axis=-1), helper.make_node("MatMul", ["p", "v3"], ["m1"]),
              helper.make_node("Transpose", ["m1"], ["m2"], perm=[0, 2, 1, 3]), helper.make_node("Reshape", ["m2", "join"], ["y"])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", F, [batch, 5, 12])],
                              [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


CASES = {
    "plain": model(17, "scores", None), "both": model(18, "both", None, "b"), "newer": model(24, "scores", None, "b"),
    "square": model(13, "both", [5, 5], "b"), "whole": model(21, "scores", [2, 3, 5, 5]), "keys": model(17, "scores", [2, 1, 1, 5]),
}


def types(path):
    return [n.op_type for n in onnx.load(path).graph.node]


for name, m in CASES.items():
    onnx.save(m, f"{name}.onnx")
    opset = max(m.opset_import[0].version, 23)
    mopt("simplify", f"{name}.onnx", "--opset", opset, "-o", "one.onnx", "-f", "--measure", 0)
    mopt("simplify", f"{name}.onnx", "--opset", opset, "--no-attention", "-o", "parts.onnx", "-f", "--measure", 0)
    kinds = types("one.onnx")
    if kinds.count("Attention") != 1 or "Softmax" in kinds or "Attention" in types("parts.onnx"):
        sys.exit(f"{name}: {kinds} with the rule, {types('parts.onnx')} without")
    check("one.onnx")
    rng = np.random.default_rng(2)
    feeds = {"x": rng.standard_normal((2, 5, 6)).astype(np.float32)}
    for x in m.graph.input[1:]:
        shape = [d.dim_value for d in x.type.tensor_type.shape.dim]
        feeds["mask"] = np.where(rng.random(shape) < 0.3, -10000.0, rng.standard_normal(shape)).astype(np.float32)
    want = session(f"{name}.onnx").run(None, feeds)[0]
    for who, got in (("ONNX Runtime", session("one.onnx").run(None, feeds)[0]), ("mopt", infer("one.onnx", feeds, ["y"])[0])):
        worst = np.max(np.abs(got - want)) / np.max(np.abs(want))
        if not worst < 1e-5:
            sys.exit(f"{name}: {who} differs by {worst:.3g}")
mopt("simplify", "one.onnx", "-o", "again.onnx", "--measure", 0)
assert types("again.onnx") == types("one.onnx"), "a second pass changed something"

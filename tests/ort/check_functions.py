"""Local functions: run as they are, and inlined by simplify, with ONNX Runtime's results; endless and explosive ones refused."""
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper

from common import MOPT, agree, infer, mopt, session

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("loc", 1)]
F = TensorProto.FLOAT


def node(kind, inputs, outputs, name="", refs=(), domain="", **attrs):
    """refs: pairs of an attribute and the function's attribute that it stands for."""
    n = helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attrs)
    n.attribute.extend(onnx.AttributeProto(name=a, ref_attr_name=b, type=onnx.AttributeProto.FLOAT) for a, b in refs)
    return n


def info(name, shape=(2, 3), kind=F):
    return helper.make_tensor_value_info(name, kind, shape)


def nested():
    """A function in a function and in a branch, attributes handed down, one by default, an input that is an output."""
    scale = helper.make_function("loc", "Scale", ["p"], ["q"], [
        node("Constant", [], ["c"], refs=[("value_float", "k")]), node("Mul", ["p", "c"], ["q"], "m")], OPSETS[:1], ["k"])
    then = helper.make_graph([node("Exp", ["r"], ["te"])], "then", [], [info("te", None)])
    other = helper.make_graph([node("Scale", ["r"], ["ee"], domain="loc", k=7.0)], "else", [], [info("ee", None)])
    outer = helper.make_function("loc", "Outer", ["u", "cond"], ["o", "u2"], [
        node("Scale", ["u"], ["t"], "s", [("k", "kk")], "loc"), node("LeakyRelu", ["t"], ["r"], "l", [("alpha", "slope")]),
        node("If", ["cond"], ["o"], then_branch=then, else_branch=other), node("Identity", ["u"], ["u2"])],
        OPSETS, ["kk"], [helper.make_attribute("slope", 0.3)])
    graph = helper.make_graph([node("Outer", ["x", "b"], ["y", "z"], "", domain="loc", kk=2.0),
                               node("Outer", ["y", "b"], ["w", ""], "", domain="loc", kk=-1.5, slope=0.1)], "g",
                              [info("x"), info("b", (), TensorProto.BOOL)], [info("w"), info("z")])
    return helper.make_model(graph, functions=[scale, outer], opset_imports=OPSETS, ir_version=10)


def calling(times, depth, endless=False):
    """Each function calls the next one so many times, the last one none, or the first."""
    functions = []
    for k in range(depth):
        callee = f"F{k + 1}" if k + 1 < depth else "F0" if endless else None
        body = [node(callee or "Neg", [f"v{i}"], [f"v{i + 1}"], domain="loc" if callee else "") for i in range(times)]
        functions.append(helper.make_function("loc", f"F{k}", ["v0"], [f"v{times}"], body, OPSETS))
    graph = helper.make_graph([node("F0", ["x"], ["y"], domain="loc")], "g", [info("x")], [info("y")])
    return helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=10)


def check_nested():
    onnx.save(nested(), "nested.onnx")
    mopt("simplify", "nested.onnx", "-o", "flat.onnx", "--inline-functions", "--measure", 0)
    flat = onnx.load("flat.onnx")
    assert not flat.functions and "Outer" not in {n.op_type for n in flat.graph.node}, "a call is left"
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    for b in (True, False):
        feeds = {"x": x, "b": np.array(b)}
        theirs = session("nested.onnx").run(None, feeds)
        for ours in (infer("nested.onnx", feeds, ["w", "z"]), infer("flat.onnx", feeds, ["w", "z"]),
                     session("flat.onnx").run(None, feeds)):
            for a, c in zip(theirs, ours):
                np.testing.assert_allclose(a, c, rtol=1e-5)
    kept = mopt("simplify", "nested.onnx", "-o", "kept.onnx", "--measure", 0)
    assert len(onnx.load("kept.onnx").functions) == 2, kept


def check_refused():
    onnx.save(calling(2, 6), "few.onnx")
    print("64 nodes", agree("few.onnx"))
    for name, model, word in (("endless", calling(2, 3, True), "calls itself"), ("bomb", calling(10, 12), "more than")):
        with open(f"{name}.onnx", "wb") as f:
            f.write(model.SerializeToString())
        done = subprocess.run([MOPT, "simplify", f"{name}.onnx", "-o", "out.onnx", "--inline-functions"], capture_output=True,
                              text=True, timeout=20)
        if done.returncode in (0, -6, -11) or word not in done.stderr:
            sys.exit(f"{name}: exit {done.returncode}, {done.stderr}")


check_nested()
check_refused()

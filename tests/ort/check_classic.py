"""What converters make of classic models: texts through .npy files, votes and ties, the same in ONNX Runtime."""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper

from common import infer, session

F, I, S = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def save(name, nodes, inputs, outputs):
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info(*x) for x in inputs],
                              [helper.make_tensor_value_info(*y) for y in outputs])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[
        helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("com.microsoft", 1)]), name)


def same(name, feeds):
    s = session(name)
    names = [y.name for y in s.get_outputs()]
    files = {k: v.astype(str) if v.dtype == object else v for k, v in feeds.items()}     # as numpy writes texts
    for k, want, got in zip(names, s.run(None, feeds), infer(name, files, names)):
        want = want.astype(str) if want.dtype == object else want
        if want.shape != got.shape or not (want == got if want.dtype.kind in "Uiu" else np.isclose(want, got, atol=1e-6)).all():
            sys.exit(f"{name}: {k} is {got} here, {want} there")


def forest(n_trees):
    """Stumps x > 0 that give the second class a share of 1 / n_trees each: half of them are a tie, rounded to a float."""
    trees = [(tree, node, mode, feature) for tree in range(n_trees)
             for node, mode, feature in ((0, "BRANCH_GT", tree), (1, "LEAF", 0), (2, "LEAF", 0))]
    save("forest.onnx", [helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "share"], domain="ai.onnx.ml", classlabels_int64s=[0, 1],
        nodes_treeids=[t[0] for t in trees], nodes_nodeids=[t[1] for t in trees], nodes_modes=[t[2] for t in trees],
        nodes_featureids=[t[3] for t in trees], nodes_values=[0.0] * len(trees),
        nodes_truenodeids=[1 if t[2] != "LEAF" else 0 for t in trees],
        nodes_falsenodeids=[2 if t[2] != "LEAF" else 0 for t in trees], class_treeids=list(range(n_trees)),
        class_nodeids=[1] * n_trees, class_ids=[1] * n_trees, class_weights=[1 / n_trees] * n_trees)],
        [("x", F, [None, n_trees])], [("label", I, None), ("share", F, None)])


forest(10)
x = -np.ones((4, 10), np.float32)
x[0, :5] = x[1, 5:] = x[2, :6] = x[3, ::2] = 1
same("forest.onnx", {"x": x})

save("words.onnx", [helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_strings=["a", "né", "日本"],
                                     values_strings=["one", "", "三😀"], default_string="?")],
     [("x", S, [None, 2])], [("y", S, [None, 2])])
same("words.onnx", {"x": np.array([["né", "a"], ["日本", ""], ["a", "b"]], dtype=object)})

# float16 as texts, and back
x = np.array([0.1, -1.5, 65504, 6e-8, np.inf, -np.inf, np.nan, 0.33325], np.float16)
for name, source, to in (("write.onnx", TensorProto.FLOAT16, S), ("read.onnx", S, TensorProto.FLOAT16)):
    save(name, [helper.make_node("Cast", ["x"], ["y"], to=to)], [("x", source, [None])], [("y", to, [None])])
same("write.onnx", {"x": x})
back = infer("read.onnx", {"x": infer("write.onnx", {"x": x}, ["y"])[0]}, ["y"])[0]
if not np.array_equal(back, x, equal_nan=True):
    sys.exit(f"float16: {x} came back as {back}")

# tokens of texts, by a pattern and by separators; rows of different lengths, other alphabets, nothing left
TEXTS = np.array(["a cat, the mat", "né 日本 x", "one", "", "12 b34-c"], dtype=object)
for attributes in ({"tokenexp": "[a-zA-Z0-9_]+"}, {"tokenexp": "\\w\\w+", "mincharnum": 3}, {"tokenexp": "."}, {"separators": [" ", ", "]},
                   {"separators": [",", " "], "mincharnum": 2}, {"separators": [""]}):
    save("tokens.onnx", [helper.make_node("Tokenizer", ["x"], ["y"], domain="com.microsoft", mark=0, pad_value="#",
                                          **{"mincharnum": 1, **attributes})], [("x", S, [None])], [("y", S, [None, None])])
    same("tokens.onnx", {"x": TEXTS})

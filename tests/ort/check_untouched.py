"""Reading and writing a model that no rule may touch keeps its meaning: every field of every message, in its order.

    check_untouched.py [FILE ...]       without files: made ones, and the shared models and node tests where they are there

Tensors are compared by their elements, as raw or typed storage says the same, in the file or beside it."""
import glob
import os
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import MOPT, report
from inputs import SHARED


def normal(tensor):
    """One form of storage for the same elements."""
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED) or tensor.HasField("segment"):
        return
    elements = numpy_helper.to_array(tensor).tobytes()
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data", "data_location"):
        tensor.ClearField(field)
    tensor.raw_data = elements


def walk(message):
    if isinstance(message, TensorProto):
        normal(message)
        return
    for field, value in message.ListFields():
        if field.message_type:
            for item in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
                walk(item)


def differences(a, b, where, found):
    """Names the places where two messages of a kind differ."""
    for field in a.DESCRIPTOR.fields:
        x, y, place = getattr(a, field.name), getattr(b, field.name), f"{where}.{field.name}"
        is_list = hasattr(x, "append") or hasattr(x, "add")
        is_said = field.message_type or field.containing_oneof     # else an absent one means its default
        if not is_list and is_said and field.has_presence and a.HasField(field.name) != b.HasField(field.name):
            found.append(f"{place} is there in one only")
        elif is_list and len(x) != len(y):
            found.append(f"{place}: {len(x)} and {len(y)}")
        elif field.message_type:
            pairs = zip(x, y) if is_list else [(x, y)] if a.HasField(field.name) else []
            for k, (i, j) in enumerate(pairs):
                differences(i, j, f"{place}[{k}]" if is_list else place, found)
        elif x != y and not (isinstance(x, float) and np.isnan(x) and np.isnan(y)):
            if not (is_list and np.array_equal(np.array(x), np.array(y), equal_nan=field.cpp_type in (5, 6))):
                found.append(f"{place}: {str(x)[:40]!r} and {str(y)[:40]!r}")


def made():
    """A model with every field that ONNX has and mopt does not need."""
    f, w = TensorProto.FLOAT, np.arange(6, dtype=np.float32).reshape(2, 3)
    pair = lambda k, v: onnx.StringStringEntryProto(key=k, value=v)     # noqa: E731
    inner = helper.make_node("Mul", ["p", "p"], ["q"], name="inner", doc_string="in a function")
    function = helper.make_function("local", "Square", ["p"], ["q"], [inner], [helper.make_opsetid("", 21)], ["gain"])
    function.doc_string, function.overload = "squares", "second"
    function.attribute_proto.append(helper.make_attribute("bias", 0.5))
    function.value_info.append(helper.make_tensor_value_info("q", f, None))
    function.metadata_props.append(pair("of", "function"))
    nodes = [helper.make_node("Square", ["x"], ["a"], domain="local", overload="second", name="call", gain=2.0),
             helper.make_node("Mystery", ["a", "", "w"], ["b", "", "c"], domain="far.away", name="", odd=[1, 2],
                              deep=helper.make_graph([helper.make_node("Nothing", [], ["n"])], "g", [], [])),
             helper.make_node("Gemm", ["a", "w"], ["y"], transB=1, doc_string="keeps its doc")]
    nodes[1].metadata_props.append(pair("pkg.torch.onnx.stack", "line 1\nline 2"))
    nodes[1].attribute[0].doc_string = "an attribute"
    for k in range(2):
        nodes[2].device_configurations.add(configuration_id=f"cfg{k}", pipeline_stage=k).sharding_spec.add(tensor_name="w", device=[0, 1])
    graph = helper.make_graph(nodes, "everything", [helper.make_tensor_value_info("x", f, ["batch", 3], "an input"),
                                                    helper.make_tensor_sequence_value_info("unused", f, None)],
                              [helper.make_tensor_value_info("y", f, ["batch", 2])],
                              [numpy_helper.from_array(w, "w"), helper.make_tensor("typed", f, [2], [1.5, -0.0]),
                               helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"\xff"]),
                               helper.make_tensor("tiny", TensorProto.INT4, [3], [1, -2, 3]),
                               helper.make_tensor("half", TensorProto.BFLOAT16, [2], [1.0, 2.0])], doc_string="a graph")
    graph.sparse_initializer.append(helper.make_sparse_tensor(
        helper.make_tensor("sparse", f, [1], [3.0]), helper.make_tensor("places", TensorProto.INT64, [1], [4]), [6]))
    graph.value_info.extend([helper.make_tensor_value_info("b", TensorProto.UNDEFINED, None),
                             helper.make_tensor_value_info("a", f, ["batch", 3])])
    graph.value_info[1].metadata_props.append(pair("of", "value"))
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph.input[0].type.denotation = "IMAGE"
    graph.initializer[0].doc_string = "a weight"
    graph.initializer[0].metadata_props.append(pair("of", "tensor"))
    graph.metadata_props.append(pair("of", "graph"))
    graph.quantization_annotation.add(tensor_name="w").quant_parameter_tensor_names.append(pair("SCALE_TENSOR", "typed"))
    model = helper.make_model(graph, functions=[function], opset_imports=[
        helper.make_opsetid("far.away", 3), helper.make_opsetid("", 21), helper.make_opsetid("local", 1)])
    model.ir_version, model.model_version, model.doc_string, model.domain = 11, 7, "a model", "org.example"
    model.producer_name, model.producer_version = "someone", "0.1"
    model.metadata_props.extend([pair("b", "1"), pair("a", "2")])
    model.configuration.add(name="cfg0", num_devices=2, device=["one", "two"])
    training = model.training_info.add()
    training.algorithm.CopyFrom(helper.make_graph([helper.make_node("Step", ["y"], ["z"])], "step", [], []))
    training.update_binding.append(pair("w", "z"))
    # fields that this version of ONNX does not know: number 1000, a varint
    return model.SerializeToString() + b"\xc0\x3e\x2a"


def main():
    files = sys.argv[1:]
    if not files:
        with open("made.onnx", "wb") as f:
            f.write(made())
        files = ["made.onnx"] + sorted(glob.glob(f"{SHARED}/models/*.onnx") + glob.glob(f"{SHARED}/models/*/*.onnx"))
        archive = f"{SHARED}/onnx-node-tests.tar.zst"
        if os.path.exists(archive):
            subprocess.run(["tar", "-xf", archive, "--wildcards", "*/model.onnx"], check=True)
            files += sorted(glob.glob("onnx-node-tests/*/*/model.onnx"))
    rules = [row["rule"] for row in report("simplify", "made.onnx" if os.path.exists("made.onnx") else files[0], "--dry-run",
                                           "--no-verify")["rules"]]
    n_wrong = 0
    for path in files:
        done = subprocess.run([MOPT, "simplify", path, "-o", "out.onnx", "--force", "--no-verify", "--measure", "0",
                               *[f"--no-{rule}" for rule in rules]], capture_output=True, text=True)
        found = []
        if done.returncode:
            found = [f"exit {done.returncode}: {done.stderr.strip()[-200:]}"]
        else:
            was, now = onnx.load(path), onnx.load("out.onnx")
            same_bytes = open(path, "rb").read()[-3:] == b"\xc0\x3e\x2a"
            if same_bytes and b"\xc0\x3e\x2a" not in open("out.onnx", "rb").read():
                found.append("a field of a later ONNX is gone")
            walk(was)
            walk(now)
            differences(was, now, "model", found)
        if found:
            n_wrong += 1
            print(path, "; ".join(found[:6]), flush=True)
    print(f"{len(files) - n_wrong} of {len(files)} models are the same")
    sys.exit(n_wrong > 0)


main()

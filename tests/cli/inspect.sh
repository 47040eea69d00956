# inspect: operators with their opset, coupled groups, memory, and the graph as SVG and DOT.
expect 0 "$MOPT" create resnet20 --input 3x32x32 -o r.onnx
expect 0 "$MOPT" inspect r.onnx --json --memory --svg r.svg --dot r.dot
cp out r.json
holds "$(number r.json operators.0.opset) == 17 && $(number r.json memory_bytes.weights) >= 4 * 270000"
holds "$(number r.json memory_bytes.activations) >= 4 * 16 * 32 * 32"
# a residual sum ties the first convolution to the last ones of its stage
number r.json layers.0.coupled | grep -q "layer1.2.conv2" || fail "the coupled group of conv1: $(number r.json layers.0.coupled)"
expect 0 "$MOPT" inspect r.onnx
says "coupled with bn1, layer1.0.conv1"
"$MOPT_PYTHON" - <<'END' || fail "the drawing"
import re, xml.etree.ElementTree as tree
root = tree.parse("r.svg").getroot()
space = "{http://www.w3.org/2000/svg}"
boxes = [g for g in root.findall(space + "g")]
assert len(boxes) == 73 + 2, len(boxes)                        # the nodes, one input, one output
rects = [[float(g.find(space + "rect").get(k)) for k in ("x", "y", "width", "height")] for g in boxes]
for i, (x, y, w, h) in enumerate(rects):
    assert x >= 0 and y >= 0 and x + w <= float(root.get("width")) and y + h <= float(root.get("height"))
    for X, Y, W, H in rects[:i]:
        assert x >= X + W or X >= x + w or y >= Y + H or Y >= y + h, "boxes overlap"
assert sum("weighted" == g.get("class") for g in boxes) == 21 + 21 + 1
dot = open("r.dot").read()
nodes = re.findall(r"^    (n\d+) \[label", dot, re.M)
edges = re.findall(r"^    (n\d+) -> (n\d+);", dot, re.M)
assert len(nodes) == len(set(nodes)) == len(boxes) and {e for pair in edges for e in pair} <= set(nodes)
assert len(edges) == len([p for p in root.findall(space + "path")]) == 73 + 9 + 1    # each Add has two
END
expect 2 "$MOPT" inspect r.onnx --svg r.svg
says "is there already"
cp r.svg first.svg
expect 0 "$MOPT" inspect r.onnx --svg r.svg -f
cmp r.svg first.svg || fail "the same graph, another drawing"
expect 2 "$MOPT" inspect r.onnx -f
# an operator that nobody knows, names that are markup, a node without name, an output that is an input
"$MOPT_PYTHON" - <<'END'
import onnx
from onnx import helper as h, TensorProto as T
x, y = (h.make_tensor_value_info(n, T.FLOAT, [1, 4]) for n in ('x"<&>\\', "y"))
nodes = [h.make_node("Frobnicate", ['x"<&>\\'], ["a"], name='</svg>"];\n'), h.make_node("Relu", ["a"], ["y"])]
onnx.save(h.make_model(h.make_graph(nodes, 'g"', [x], [y, x]), opset_imports=[h.make_opsetid("", 17)], ir_version=8), "odd.onnx")
END
expect 0 "$MOPT" inspect odd.onnx --svg odd.svg --dot odd.dot
"$MOPT_PYTHON" - <<'END' || fail "markup in names"
import xml.etree.ElementTree as tree
root = tree.parse("odd.svg").getroot()
kinds = [g.get("class") for g in root.iter("{http://www.w3.org/2000/svg}g")]
assert sorted(kinds) == ["end", "end", "end", "plain", "unknown"], kinds
assert 'x"<&>\\' in [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
dot = open("odd.dot").read()
assert r'x\"<&>\\' in dot and dot.count("{") == dot.count("}") == 1
END

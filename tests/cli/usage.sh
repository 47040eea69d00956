# What is typed wrong is said, with the nearest right thing, and exit code 2.
expect 2 "$MOPT"
says "usage: mopt VERB"
expect 0 "$MOPT" --help
says "quantize"
expect 0 "$MOPT" --version
expect 2 "$MOPT" prun x.onnx
says "did you mean 'prune'"
expect 0 "$MOPT" create lenet5 --input 1x28x28 --classes 10 -o m.onnx
expect 2 "$MOPT" prune m.onnx --amuont 0.5 -o o.onnx
says "amount"
expect 2 "$MOPT" prune m.onnx --amount 1 -o o.onnx
says "ambiguous"
expect 2 "$MOPT" prune m.onnx --amount 1.4 -o o.onnx
expect 2 "$MOPT" prune m.onnx --amount 0.5
says "-o"
expect 2 "$MOPT" prune m.onnx --amount 0.5 -o m.onnx -f
says "never overwritten"
expect 0 "$MOPT" prune m.onnx --amount 0.5 -o o.onnx
expect 2 "$MOPT" prune m.onnx --amount 0.5 -o o.onnx
says "exists"
expect 0 "$MOPT" prune m.onnx --amount 0.5 -o o.onnx -f
expect 0 "$MOPT" prune --amount=0.5 -fo o.onnx m.onnx
expect 2 "$MOPT" prune m.onnx --amount 0.5 --only 'nothing*' -o p.onnx
says "matches no layer"
[ ! -e p.onnx ] || fail "a failed run left a file"
expect 2 "$MOPT" quantize m.onnx -o q.onnx
says "--data"
expect 1 "$MOPT" inspect missing.onnx
says "missing.onnx"
printf 'not a model' > bad.onnx
expect 4 "$MOPT" inspect bad.onnx
says "bad.onnx"
for verb in train prune distill quantize bench eval inspect simplify diff create run infer report; do
    expect 0 "$MOPT" "$verb" --help
    says "usage: mopt $verb"
done

#!/bin/sh
# demo.sh - the whole loop on Fashion-MNIST: create, train, prune, shrink, distill, quantize, bench; one table at the end.
set -eu
cd "$(dirname "$0")/.."
data="idx:${MOPT_FASHION:-/usr/share/datasets/fashion-mnist}"
out=${1:-build/demo}
mopt=./mopt
rm -rf "$out"
mkdir -p "$out"
step() { printf '\n== %s\n   $ mopt' "$1"; shift; printf ' %s' "$@"; printf '\n'; "$mopt" "$@"; }

step "an untrained LeNet-5 (20-50-500)" create lenet5 --input 1x28x28 --classes 10 -o "$out/lenet5.onnx"
step "train it; a teacher needs plain labels" train "$out/lenet5.onnx" --data "$data" --epochs 8 --label-smoothing 0 \
    -o "$out/trained.onnx" --report "$out/train.json"
step "keep a tenth of its weights" prune "$out/trained.onnx" --amount 0.9 --data "$data" --epochs 3 -o "$out/sparse.onnx"
step "remove channels until half of the MACs are gone" prune "$out/trained.onnx" --structured --target macs=0.5x \
    --data "$data" --epochs 3 -o "$out/small.onnx"
step "a smaller student" create mlp --layers 784,300,100,10 --input 1x28x28 -o "$out/student.onnx"
step "teach it what LeNet-5 knows" distill "$out/student.onnx" --teacher "$out/trained.onnx" --data "$data" --epochs 10 \
    -o "$out/distilled.onnx"
step "int8" quantize "$out/trained.onnx" --data "$data" -o "$out/int8.onnx"
step "all of them side by side, one image at a time" bench "$out/trained.onnx" "$out/sparse.onnx" "$out/small.onnx" \
    "$out/distilled.onnx" "$out/int8.onnx" --data "$data" --report "$out/bench.json"
./mopt report "$out"/*.json -o "$out/report.html" -f
echo "the files, and report.html, are in $out"

#!/bin/sh
# bench.sh - speed beside PyTorch and ONNX Runtime, which it installs into build/venv-bench (8 GB of disk, minutes).
set -eu
cd "$(dirname "$0")/../.."
tests/venv.sh build/venv-bench numpy onnx onnxruntime torch
build/venv-bench/bin/python tests/bench/train_peers.py ./mopt build/venv-bench/bin/python "$@"

#!/bin/sh
# results.sh [SECTION ...] - every number of docs/RESULTS.md again; an hour or two on two cores.
# MOPT_CIFAR: a folder of CIFAR-10 images by class (default build/cifar10-train; the cifar section needs it).
set -eu
cd "$(dirname "$0")/../.."
tests/venv.sh build/venv numpy onnx onnxruntime sympy   # sympy: quant_pre_process asks for it
exec build/venv/bin/python tests/bench/results.py ./mopt build/results "$@"

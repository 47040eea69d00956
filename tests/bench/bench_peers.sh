#!/bin/sh
# bench_peers.sh [OPTION ...] - mopt beside PyTorch and ONNX Runtime; the options are those of bench_peers.py.
# The peers, the newest of PyPI, go into build/venv-peers; MOPT_PYTHON=PYTHON uses what is installed there instead.
set -eu
cd "$(dirname "$0")/../.."
if [ -z "${MOPT_PYTHON:-}" ]; then
    [ -d build/venv-peers ] || echo "installing torch, onnxruntime and onnx into build/venv-peers: about 8 GB of disk, some minutes"
    tests/venv.sh build/venv-peers numpy onnx onnxruntime torch
    MOPT_PYTHON=build/venv-peers/bin/python
fi
exec "$MOPT_PYTHON" tests/bench/bench_peers.py ./mopt "$@"

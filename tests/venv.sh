#!/bin/sh
# venv.sh FOLDER [PACKAGE ...] - a Python virtual environment with what tests compare against
# (onnx, onnxruntime, numpy from PyPI). Kept when it is there already.
set -eu
folder=$1
shift
[ $# -gt 0 ] || set -- numpy onnx onnxruntime
stamp="$folder/have-$(echo "$*" | tr ' ' '-')"
[ -e "$stamp" ] && exit 0
echo "python packages for tests, into $folder: $*"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
touch "$stamp"

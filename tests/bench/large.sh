#!/bin/sh
# large.sh [GB [FOLDER]] - weight-only int8, fp16 and inspect on a model of GB gigabytes (8) that is made in FOLDER and
# removed again, each under a limit of 1 GB of memory besides the page cache (ulimit -d). Needs twice that much disk.
set -eu
gb=${1:-8} folder=${2:-build/large} mopt=$(pwd)/mopt
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
trap 'rm -rf "$folder"' EXIT
python3 "$here/large_model.py" "$folder" "$gb"
cd "$folder"
ulimit -d 1048576
for job in "inspect large.onnx" "quantize large.onnx --weight-only int8 -o int8.onnx -q" "quantize large.onnx --fp16 -o half.onnx -q" \
    "quantize large.onnx --weight-only int8 -o small.onnx -q --max-memory 600MB"; do
    start=$(date +%s.%N)
    # shellcheck disable=SC2086
    "$mopt" $job > /dev/null
    echo "$job: $(echo "$(date +%s.%N) $start" | awk '{ printf "%.1f s", $1 - $2 }')"
done
cmp int8.onnx.data small.onnx.data

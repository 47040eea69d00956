#!/bin/sh
# large.sh [GB [FOLDER]] - weight-only int8 and int4, fp16 and inspect on a model of GB gigabytes (8) that is made in FOLDER and
# removed again, each under a limit of 1 GB of memory besides the page cache (ulimit -d), and
# again with --max-memory 600MB, which must give the same bytes. Needs twice that much disk.
set -eu
gb=${1:-8} folder=${2:-build/large} mopt=$(pwd)/mopt
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
trap 'rm -rf "$folder"' EXIT
python3 "$here/large_model.py" "$folder" "$gb"
cd "$folder"
ulimit -d 1048576
run() {
    start=$(date +%s.%N)
    "$mopt" "$@" > /dev/null &
    pid=$! peak=0
    while kill -0 $pid 2> /dev/null; do
        now=$(awk '/^RssAnon/ { print int($2 / 1024) }' /proc/$pid/status 2> /dev/null || true)
        [ "${now:-0}" -gt $peak ] && peak=$now
        sleep 0.1
    done
    wait $pid
    echo "$*: $(echo "$(date +%s.%N) $start" | awk '{ printf "%.1f s", $1 - $2 }'), at most $peak MB of its own"
}
compare() { # WORDS NAME: the same job with hardly any memory gives the same bytes
    # shellcheck disable=SC2086
    run quantize large.onnx $1 -o "$2.onnx" -q
    # shellcheck disable=SC2086
    run quantize large.onnx $1 -o small.onnx -q --max-memory 600MB
    cmp "$2.onnx.data" small.onnx.data
    ls -l "$2.onnx.data" | awk '{ print $5 / 1e9 " GB, the same bytes" }'
    rm -f "$2.onnx" "$2.onnx.data" small.onnx small.onnx.data
}
run inspect large.onnx
compare "--weight-only int8" int8
compare "--weight-only int4" int4
compare "--fp16" half

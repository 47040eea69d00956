# Each allocation failed in turn: a status and words, no crash, no half file.
expect 0 "$MOPT" create mlp --layers 784,8,10 --input 1x28x28 -o m.onnx
torture() {
    n=0
    while :; do
        rm -f o.onnx
        got=0
        MOPT_FAIL_ALLOC=$n "$@" > out 2> err || got=$?
        [ $got = 0 ] && break
        [ $got -le 6 ] || { cat err >&2; fail "allocation $n failed: exit code $got: $*"; }
        [ -s err ] || fail "allocation $n failed without a word: $*"
        [ ! -e o.onnx ] || fail "allocation $n failed and left a file: $*"
        n=$((n + 1 + n / 40))
        [ $n -lt 20000 ] || fail "never enough allocations: $*"
    done
    [ $n -gt 10 ] || fail "nothing was failed: $*"
}
torture "$MOPT" inspect m.onnx
torture "$MOPT" simplify m.onnx -o o.onnx
torture "$MOPT" prune m.onnx --amount 0.5 -o o.onnx --measure 0
torture "$MOPT" prune m.onnx --structured --target macs=0.5x -o o.onnx --measure 0
torture "$MOPT" quantize m.onnx --weight-only int8 -o o.onnx --measure 0
torture "$MOPT" bench m.onnx --runs 1 --warmup 0
torture "$MOPT" create mlp --layers 784,8,10 --input 1x28x28 -o o.onnx

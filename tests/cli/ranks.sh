# Ranks (docs/DISTRIBUTED.md): 1, 2 and 4 of them write the same bytes and measure the same numbers; a rank that dies ends
# the job; a run goes on with another number of ranks. Without the MPI plug-in there is one check: that mopt says so.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
if [ ! -e "$(dirname "$MOPT")/libmopt-mpi.so" ] || ! command -v mpirun > /dev/null; then
    [ -z "${MOPT_REQUIRE_ALL:-}" ] || fail "no MPI plug-in or no mpirun: install libopenmpi-dev and openmpi-bin, and make MPI=1"
    OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2 MOPT_MPI_PLUGIN=/nowhere.so expect 1 "$MOPT" inspect x.onnx
    says "cannot talk"
    echo "ranks: not tested, there is no MPI here" >&2
    exit 0
fi
ranks() { n=$1; shift; expect 0 mpirun --oversubscribe -np "$n" "$MOPT" "$@"; }

expect 0 "$MOPT" create mlp --layers 784,32,10 --input 1x28x28 -o mlp.onnx
expect 0 "$MOPT" create lenet5 --input 1x28x28 --classes 10 -o lenet5.onnx
cat > bn.json << 'END'
{ "input": [1, 28, 28], "layers": [
  { "type": "conv", "out": 4, "kernel": 5, "stride": 4 }, { "type": "batchnorm" }, { "type": "relu" },
  { "type": "conv", "out": 8 }, { "type": "batchnorm" }, { "type": "relu" },
  { "type": "global-pool" }, { "type": "flatten" }, { "type": "dropout", "rate": 0.2 }, { "type": "linear", "out": 10 } ] }
END
expect 0 "$MOPT" create bn.json -o bn.onnx

# ---- the same bytes; 518 samples leave an uneven last batch ----
for net in mlp lenet5 bn; do
    set -- train $net.onnx --data "$DATA" --subset 518 --epochs 1 --batch 64 --seed 3 -q --no-evaluate --measure 0
    for n in 1 2 4; do ranks $n "$@" -o $net.$n.onnx; done
    cmp $net.1.onnx $net.2.onnx || fail "$net: 1 and 2 ranks differ"
    cmp $net.1.onnx $net.4.onnx || fail "$net: 1 and 4 ranks differ"
done
set -- train mlp.onnx --data "$DATA" --subset 518 --epochs 1 --batch 64 --seed 3 -q --no-evaluate --measure 0
expect 0 "$MOPT" "$@" --shards 4 -o mlp.alone.onnx
cmp mlp.1.onnx mlp.alone.onnx || fail "one process with --shards 4 differs"
ranks 2 "$@" --bucket 0.01 --accumulate 2 --report r.json -o mlp.small.onnx
[ "$(number r.json comm.n_ranks)" = 2 ] || fail "the report does not say how many ranks"
expect 0 "$MOPT" "$@" --shards 4 --accumulate 2 -o mlp.accumulated.onnx
cmp mlp.small.onnx mlp.accumulated.onnx || fail "buckets change the result"
# ---- within rounding: three ranks, and bfloat16 on the wire ----
ranks 3 "$@" -o mlp.3.onnx
ranks 2 "$@" --wire bf16 -o mlp.bf16.onnx
for other in 3 bf16; do
    expect 0 "$MOPT" diff mlp.1.onnx mlp.$other.onnx --data "$DATA" --json
    holds "$(number out outputs.0.cosine) > 0.999" || fail "$other is far from one rank"
done

# ---- the other verbs ----
for verb in "quantize lenet5.1.onnx --subset 500" "prune lenet5.1.onnx --structured --amount 0.5 --score taylor --subset 500 --epochs 0" \
    "prune mlp.1.onnx --amount 0.8 --subset 300 --epochs 1" "distill mlp.onnx --teacher lenet5.1.onnx --subset 300 --epochs 1"; do
    # shellcheck disable=SC2086
    for n in 1 2; do ranks $n $verb --data "$DATA" --seed 3 -q --measure 0 -o v.$n.onnx -f; done
    cmp v.1.onnx v.2.onnx || fail "1 and 2 ranks differ: $verb"
done
expect 0 "$MOPT" eval lenet5.1.onnx --data "$DATA" --json
cp out alone.json
ranks 3 eval lenet5.1.onnx --data "$DATA" --json
for number in accuracy f1 top5 loss n_samples; do
    [ "$(number out metrics.$number)" = "$(number alone.json metrics.$number)" ] || fail "3 ranks measure another $number"
done

# ---- words: once, by rank 0, and the exit code is the job's ----
expect 2 mpirun --oversubscribe -np 2 "$MOPT" bench mlp.onnx
says "without mpirun"
[ "$(cat out err | grep -c "without mpirun")" = 1 ] || fail "said by more than one rank"
expect 2 mpirun --oversubscribe -np 3 "$MOPT" "$@" --shards 4 -o no.onnx
says "cannot be dealt to 3 ranks"

# ---- a rank that dies ends the job; what was kept goes on with one rank to the same bytes ----
set -- train mlp.onnx --data "$DATA" --subset 20% --epochs 3 --batch 64 --seed 3 --no-evaluate --measure 0
expect 0 "$MOPT" "$@" --shards 4 -q -o whole.onnx
mpirun --oversubscribe -np 2 "$MOPT" "$@" --checkpoint c.ckpt --checkpoint-every 0 -q -o dead.onnx > log 2>&1 &
job=$!
victim=
for i in $(seq 1000); do
    if [ -s c.ckpt ]; then
        for p in $(pgrep -P $job); do
            tr '\0' '\n' < /proc/$p/environ 2> /dev/null | grep -q '^OMPI_COMM_WORLD_RANK=1$' && victim=$p
        done
        break
    fi
    sleep 0.02
done
[ -n "$victim" ] || { cat log >&2; fail "rank 1 was not found"; }
kill -KILL "$victim"
got=0
wait $job || got=$?
[ $got != 0 ] || fail "a rank died, and the job ended well"
[ -s log ] || fail "a rank died, and nobody said so"
[ ! -e dead.onnx ] || fail "a rank died, and a file was written"
expect 0 "$MOPT" train --resume c.ckpt -q -o resumed.onnx
cmp whole.onnx resumed.onnx || fail "resumed with one rank instead of two, it wrote other bytes"

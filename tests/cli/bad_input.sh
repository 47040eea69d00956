# Bad input: words that name the place, the right exit code, nothing lost.
expect 0 "$MOPT" create mlp --layers 784,16,10 --input 1x28x28 -o m.onnx
size=$(stat -c %s m.onnx)
for n in 0 1 2 10 100 1000 $((size / 2)) $((size - 1)); do
    head -c "$n" m.onnx > cut.onnx
    expect 4 "$MOPT" inspect cut.onnx
    says "cut.onnx"
done
expect 5 "$MOPT" eval m.onnx --data idx:/nonexistent
says "/nonexistent"
expect 2 "$MOPT" eval m.onnx --data idxx:/nonexistent
says "idx"
mkdir -p images/cat images/dog
expect 5 "$MOPT" eval m.onnx --data imagefolder:images
says "cat"
# labels out of range
printf '0,0,1\n1,1,0\n1,0,7\n' > rows.csv
expect 0 "$MOPT" create mlp --layers 2,4,2 --input 2 -o tiny.onnx
expect 5 "$MOPT" train tiny.onnx --data csv:rows.csv --epochs 1 -o t.onnx
[ ! -e t.onnx ] || fail "a failed run left a file"
# a header is no sample
printf 'alpha,beta,label\n' > header.csv
expect 5 "$MOPT" train tiny.onnx --data csv:header.csv --epochs 1 -o t.onnx
says "header.csv: has a header and no row"
# a loss that is not a number stops and says which step
expect 1 "$MOPT" train m.onnx --data "$DATA" --subset 2% --epochs 2 --lr 10000 --optimizer sgd --clip 0 -o nan.onnx
says "step"
[ ! -e nan.onnx ] || fail "a failed run left a file"
# a full disk: the old file stays
if [ -e /dev/full ]; then
    got=0
    "$MOPT" inspect m.onnx --json > /dev/full 2> err || got=$?
    [ $got = 1 ] || fail "stdout was full, and exit code $got"
fi
# short training with nothing chosen stays finite
expect 0 "$MOPT" create lenet5 --input 1x28x28 --classes 10 -o lenet5.onnx
expect 0 "$MOPT" train lenet5.onnx --data "$DATA" --subset 5% --epochs 1 -o short.onnx -q --no-evaluate --measure 0
# a limit of the shell on files is a failed write
(ulimit -f 8; got=0; "$MOPT" inspect m.onnx --report /dev/null > /dev/null
 "$MOPT" create mlp --layers 784,300,10 --input 1x28x28 -o big.onnx 2> err || got=$?; [ $got = 1 ]) || fail "ulimit -f"
[ ! -e big.onnx ] || fail "a failed run left a file"
# Ctrl-C without --checkpoint: the checkpoint lies beside the output that was not written
"$MOPT" train lenet5.onnx --data "$DATA" --epochs 50 -o stopped.onnx -q --no-evaluate --measure 0 2> err &
pid=$!
sleep 3
kill -INT $pid 2> /dev/null || true
got=0
wait $pid || got=$?
[ $got = 130 ] && [ ! -e stopped.onnx ] && says "stopped.onnx.ckpt" && [ -s stopped.onnx.ckpt ] ||
    fail "interrupted without --checkpoint: exit code $got"
# Ctrl-C: exit code 130, a checkpoint, and the same result after --resume
"$MOPT" train m.onnx --data "$DATA" --subset 10% --epochs 3 --seed 3 -o whole.onnx -q --no-evaluate --measure 0
"$MOPT" train m.onnx --data "$DATA" --subset 10% --epochs 3 --seed 3 -o cut.onnx -f -q --no-evaluate --measure 0 --checkpoint run.ckpt 2> err &
pid=$!
for i in $(seq 300); do
    [ -s run.ckpt ] && break
    kill -0 $pid 2> /dev/null || break
    sleep 0.05
done
kill -INT $pid 2> /dev/null || true
got=0
wait $pid || got=$?
if [ $got = 130 ]; then
    [ -s run.ckpt ] || fail "no checkpoint after Ctrl-C"
    expect 0 "$MOPT" train m.onnx --resume run.ckpt --data "$DATA" --subset 10% --epochs 3 --seed 3 -o cut.onnx -f -q --no-evaluate --measure 0
elif [ $got != 0 ]; then
    fail "after Ctrl-C the exit code is $got"
fi
cmp whole.onnx cut.onnx || fail "the resumed run wrote other bytes"

# A run that was killed or stopped goes on to the bytes that it would have ended with: each verb that trains.
expect 0 "$MOPT" create mlp --layers 784,16,10 --input 1x28x28 -o m.onnx
expect 0 "$MOPT" create mlp --layers 784,8,10 --input 1x28x28 -o s.onnx

# resumes NAME SIGNAL VERB...: whole, and cut in two at some moment after the first checkpoint
resumes() {
    name=$1 signal=$2 verb=$3
    shift 2
    set -- "$@" --data "$DATA" --subset 3% --epochs 3 --seed 3 -q --no-evaluate --measure 0
    expect 0 "$MOPT" "$@" -o $name.whole.onnx
    "$MOPT" "$@" -o $name.onnx --checkpoint $name.ckpt --checkpoint-every 0 > log 2>&1 &
    pid=$!
    for i in $(seq 1000); do
        [ -s $name.ckpt ] && break
        kill -0 $pid 2> /dev/null || break
        sleep 0.02
    done
    sleep 0.2
    kill -$signal $pid 2> /dev/null || true
    got=0
    wait $pid 2> /dev/null || got=$?
    case $got in
    0) ;; # it was faster than the signal
    130) grep -q "resume" log || fail "$name: interrupted, and does not say how to go on" ;;
    137) ;;
    *) cat log >&2; fail "$name: exit code $got" ;;
    esac
    [ $got = 0 ] || [ ! -e $name.onnx ] || fail "$name: stopped, and yet a file was written"
    [ -s $name.ckpt ] || fail "$name: no checkpoint"
    expect 0 "$MOPT" $verb --resume $name.ckpt -o $name.onnx -f -q
    cmp $name.whole.onnx $name.onnx || fail "$name: the resumed run wrote other bytes"
    expect 0 "$MOPT" $verb --resume $name.ckpt -o $name.onnx -f -q # stopped behind the last step: only the writing is left
    cmp $name.whole.onnx $name.onnx || fail "$name: the run that was resumed at its end wrote other bytes"
}
resumes train KILL train m.onnx
resumes weights KILL prune m.onnx --amount 0.9
resumes oneshot INT prune m.onnx --amount 0.9 --ramp oneshot
resumes channels INT prune m.onnx --structured --amount 0.5
resumes rounds KILL prune m.onnx --structured --amount 0.5 --steps 3 --between 0.6
resumes distill KILL distill s.onnx --teacher m.onnx
resumes qat KILL quantize m.onnx --qat
# other settings than the checkpoint's are refused, and so is a checkpoint of another verb or of nothing
expect 2 "$MOPT" distill s.onnx --teacher s.onnx --resume distill.ckpt --data "$DATA" --subset 3% --epochs 3 --seed 3 -o x.onnx -q
expect 2 "$MOPT" train m.onnx --resume train.ckpt --data "$DATA" --subset 3% --epochs 4 --seed 3 -o x.onnx -q
says "epochs"
head -c 300 train.ckpt > short.ckpt
got=0
"$MOPT" train --resume short.ckpt -o x.onnx 2> err || got=$?
[ $got = 5 ] && grep -q short.ckpt err || fail "a checkpoint that is cut off: exit code $got"
[ ! -e x.onnx ] || fail "a failed run left a file"

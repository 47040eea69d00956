# What whole commands do with models of a known kind: a fixed batch, sparse rows, outputs whose error is known.
expect 0 "$MOPT" create lenet5 --input 1x28x28 --classes 10 -o lenet5.onnx
expect 0 "$MOPT" train lenet5.onnx --data "$DATA" --subset 2% --epochs 1 -o t.onnx --report t.json -q --no-evaluate --measure 0

# memory of a training run: a part for each thing that is held, and the whole process no smaller than their sum
for part in model block weights gradients optimizer best data batches scratch planned peak_rss; do
    holds "$(number t.json memory_bytes.$part) > 0"
done
holds "$(number t.json memory_bytes.weights) >= 4 * 431080 && $(number t.json memory_bytes.gradients) == $(number t.json memory_bytes.optimizer)"
holds "$(number t.json memory_bytes.best) == $(number t.json memory_bytes.weights)"
holds "$(number t.json memory_bytes.peak_rss) > $(number t.json memory_bytes.block) + 4 * $(number t.json memory_bytes.weights)"
# 60,000 and 10,000 pictures are in memory whatever the subset; the sum is the sum
holds "$(number t.json memory_bytes.data) >= 70000 * 785"
sum=0
for part in model block weights gradients optimizer best data batches scratch beside; do
    sum="$sum + $(number t.json memory_bytes.$part)"
done
holds "$(number t.json memory_bytes.planned) == $sum"
holds "$(number t.json memory_bytes.peak_over_planned) < 1.25"
# --max-memory holds the sum, not the block alone, and a dry run says so too
expect 6 "$MOPT" train lenet5.onnx --data "$DATA" --subset 2% --epochs 1 -o u.onnx --max-memory 75MB -n
expect 6 "$MOPT" train lenet5.onnx --data "$DATA" --subset 2% --epochs 1 -o u.onnx --max-memory 75MB
says "smaller --batch"
expect 0 "$MOPT" train lenet5.onnx --data "$DATA" --subset 2% --epochs 1 -o u.onnx --max-memory 75MB --batch 16 -n
# what the job runs unasked, for the table and to verify, keeps to it as well, and the file is the same
expect 0 "$MOPT" create mlp --layers 784,3000,3000,10 --input 1x28x28 -o wide.onnx
expect 0 "$MOPT" quantize wide.onnx --weight-only int8 -o wide8.onnx -v
! grep -q "no latency" err || fail "a small model was not measured"
expect 0 "$MOPT" quantize wide.onnx --weight-only int8 -o wide8m.onnx -v --max-memory 64MB
says "no latency of a model this large within the memory allowed"
cmp wide8.onnx wide8m.onnx
expect 0 "$MOPT" simplify wide.onnx -o wides.onnx --max-memory 64MB
says "not verified: both models"
expect 0 "$MOPT" simplify wide.onnx -o wides2.onnx -f
cmp wides.onnx wides2.onnx
# prune too
expect 0 "$MOPT" prune wide.onnx --amount 0.5 -o widep.onnx --measure 0 --threads 1
expect 0 "$MOPT" prune wide.onnx --amount 0.5 -o widepm.onnx --measure 0 --threads 1 --max-memory 64MB
cmp widep.onnx widepm.onnx

# the last weights without validation: it is what happens anyway
expect 0 "$MOPT" train lenet5.onnx --data "$DATA" --subset 1% --epochs 1 -o u.onnx --val-split 0 --keep last -q --no-evaluate --measure 0

# exported for one picture: it trains in batches all the same, and the file still says one picture
"$MOPT_PYTHON" - <<'END'
import onnx, numpy as np
m = onnx.load("lenet5.onnx")
for v in list(m.graph.input) + list(m.graph.output):
    v.type.tensor_type.shape.dim[0].dim_value = 1
del m.graph.value_info[:]
onnx.save(m, "one.onnx")
for n in m.graph.node:       # a Reshape to 1x800 holds for one picture only
    if n.op_type == "Flatten":
        n.op_type = "Reshape"
        del n.attribute[:]
        n.input.append("target")
m.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 800]), "target"))
onnx.save(m, "rigid.onnx")
END
expect 0 "$MOPT" train one.onnx --data "$DATA" --subset 2% --epochs 1 -o one-t.onnx --report one.json -q --no-evaluate --measure 0
holds "$(number one.json training.batch) == 128 && $(number one.json training.accumulate) == 1"
expect 0 "$MOPT" inspect one-t.onnx --json
cp out one-i.json
[ "$(number one-i.json inputs.0.shape)" = 1x1x28x28 ] || fail "the fixed batch was lost: $(number one-i.json inputs.0.shape)"
expect 0 "$MOPT" train rigid.onnx --data "$DATA" --subset 1% --epochs 1 --batch 32 -o rigid-t.onnx --report rigid.json -q --no-evaluate --measure 0
holds "$(number rigid.json training.batch) == 1 && $(number rigid.json training.accumulate) == 32"
# the same samples in the same batches: the same weights, but for the order of the sums
"$MOPT_PYTHON" - <<'END' || fail "a batch of 128 and of 1 in the file train to different weights"
import onnx, numpy as np
def weights(path):
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
a, b = weights("t.onnx"), weights("one-t.onnx")
assert all(np.array_equal(a[k], b[k]) for k in a if a[k].dtype == np.float32)
END

# diff: B is A with the last layer times 1.5, times -1, plus a quarter
"$MOPT_PYTHON" - <<'END'
import onnx, numpy as np
for name, scale, shift in ("more", 1.5, 0), ("minus", -1, 0), ("plus", 1, 0.25):
    m = onnx.load("t.onnx")
    last = [n for n in m.graph.node if n.op_type in ("Gemm", "MatMul")][-1]
    for t in m.graph.initializer:
        if t.name in last.input[1:]:
            x = onnx.numpy_helper.to_array(t) * np.float32(scale)
            x = x + np.float32(shift) if t.name == last.input[2] else x
            t.CopyFrom(onnx.numpy_helper.from_array(x, t.name))
    onnx.save(m, name + ".onnx")
END
compare() {
    expect 0 "$MOPT" diff t.onnx $1.onnx --data "$DATA" --samples 100 --json
    cp out d.json
    holds "$(number d.json n_samples) == 100"
}
near() { awk "BEGIN { d = ($1) - ($2); exit !(d < $3 && d > -$3) }" || fail "$1 is not $2"; }
compare more
near "$(number d.json outputs.0.cosine)" 1 1e-6
near "$(number d.json outputs.0.sqnr_db)" 6.0206 1e-3
compare minus
near "$(number d.json outputs.0.cosine)" -1 1e-6
near "$(number d.json outputs.0.sqnr_db)" -6.0206 1e-3
compare plus
near "$(number d.json outputs.0.max_abs)" 0.25 1e-4
near "$(number d.json outputs.0.mean_abs)" 0.25 1e-4
expect 3 "$MOPT" diff t.onnx minus.onnx --samples 4 --min-cosine 0.9
expect 0 "$MOPT" diff t.onnx t.onnx --samples 4 --min-cosine 1

# the first layer, a sum of 25 products that is pooled at once, stays float on x86 unless it is asked for
weights_of() { "$MOPT_PYTHON" -c '
import onnx, sys
m = onnx.load(sys.argv[1])
made = {n.output[0]: n for n in m.graph.node}
conv = [n for n in m.graph.node if n.op_type == "Conv"]
print(" ".join("int8" if n.input[1] in made and made[n.input[1]].op_type == "DequantizeLinear" else "float" for n in conv))' "$1"; }
quantized() {
    form=$1
    shift
    expect 0 "$MOPT" quantize t.onnx --data "$DATA" --samples 64 -o q.onnx -f --report q.json -q --no-evaluate --measure 0 "$@"
    [ "$(weights_of q.onnx)" = "$form" ] || fail "convolutions are $(weights_of q.onnx), not $form: $*"
}
quantized "float int8"
grep -q "faster in float" q.json || fail "the report does not say why the first layer stayed float"
quantized "int8 int8" --target arm
quantized "int8 int8" --set '*conv1*=int8'
quantized "float float" --skip '*conv*'

# sparse rows into the first matrix product: as good as the same numbers dense, to the same weights
"$MOPT_PYTHON" - <<'END'
import random
random.seed(4)
with open("rows.svm", "w") as s, open("rows.csv", "w") as c:
    for i in range(400):
        label = i % 3
        columns = sorted({label * 10 + random.randrange(10) for _ in range(3)} | {random.randrange(40) for _ in range(2)})
        values = {k: round(random.uniform(0.5, 2), 3) for k in columns}
        s.write("%d %s\n" % (label, " ".join("%d:%g" % (k + 1, v) for k, v in values.items())))
        c.write(",".join("%g" % values.get(k, 0) for k in range(40)) + ",%d\n" % label)
END
expect 0 "$MOPT" create mlp --layers 40,16,3 --input 40 -o rows.onnx
for data in svmlight:rows.svm csv:rows.csv; do
    expect 0 "$MOPT" train rows.onnx --data $data --transform none --epochs 10 --batch 20 -o ${data%%:*}.onnx --report ${data%%:*}.json -q --measure 0
    expect 0 "$MOPT" eval ${data%%:*}.onnx --data $data --json
    cp out e.json
    holds "$(number e.json metrics.accuracy) > 0.9"
done
near "$(number svmlight.json training_result.loss_last)" "$(number csv.json training_result.loss_last)" 1e-4
expect 5 "$MOPT" train rows.onnx --data svmlight:rows.svm,columns=50 --epochs 1 -o x.onnx

# The first session of a new user, as the interface promises it; a part of the data keeps it short.
expect 0 "$MOPT" create lenet5 --input 1x28x28 --classes 10 -o lenet5.onnx
expect 0 "$MOPT" train lenet5.onnx --data "$DATA" --subset 10% --epochs 2 -o trained.onnx --report train.json
expect 0 "$MOPT" eval trained.onnx --data "$DATA" --json
cp out eval.json
accuracy=$(number eval.json metrics.accuracy)
holds "$accuracy > 0.75 && $(number eval.json metrics.accuracy_low) < $accuracy"
holds "$(number eval.json metrics.accuracy_high) > $accuracy && $(number eval.json n_samples) == 10000"
expect 0 "$MOPT" inspect trained.onnx --json
cp out inspect.json
holds "$(number inspect.json totals.parameters) == 431080 && $(number inspect.json totals.macs) == 2293000"
holds "$(number inspect.json totals.nonzero) > 430000 && $(number inspect.json totals.bytes) == $(stat -c %s trained.onnx)"
expect 0 "$MOPT" prune trained.onnx --amount 0.9 --data "$DATA" --subset 10% --epochs 2 -o sparse.onnx
expect 0 "$MOPT" inspect sparse.onnx --json
cp out sparse.json
holds "$(number sparse.json totals.nonzero) < 0.11 * 431080"
expect 0 "$MOPT" prune trained.onnx --amount 0.5 -o half.onnx
expect 0 "$MOPT" inspect half.onnx --json
cp out half.json
holds "$(number half.json totals.nonzero) < 0.51 * 431080 && $(number half.json totals.nonzero) > 0.49 * 431080"
expect 0 "$MOPT" prune trained.onnx --structured --target macs=0.5x --data "$DATA" --subset 10% --epochs 1 -o small.onnx
expect 0 "$MOPT" inspect small.onnx --json
cp out small.json
holds "$(number small.json totals.macs) <= 0.505 * 2293000 && $(number small.json totals.macs) > 0.4 * 2293000"
expect 0 "$MOPT" create mlp --layers 784,300,100,10 --input 1x28x28 -o student.onnx
expect 0 "$MOPT" distill student.onnx --teacher trained.onnx --data "$DATA" --subset 10% --epochs 1 -o distilled.onnx
expect 0 "$MOPT" quantize trained.onnx --data "$DATA" -o int8.onnx
expect 0 "$MOPT" quantize trained.onnx --weight-only int8 -o w8.onnx
expect 0 "$MOPT" quantize trained.onnx --qat --data "$DATA" --subset 5% --epochs 1 -o qat.onnx
expect 0 "$MOPT" bench trained.onnx int8.onnx small.onnx --profile --json
cp out bench.json
holds "$(number bench.json models.0.latency_ms.mean) > 0 && $(number bench.json models.1.latency_ms.median) > 0"
holds "$(number bench.json models.2.latency_ms.p99) > 0 && $(number bench.json models.2.ratio) > 0"
holds "$(number bench.json models.0.profile.3.us) > 0 && $(number bench.json models.1.profile.0.us) > 0"
expect 0 "$MOPT" bench trained.onnx --train --batch 16 --runs 5 --profile --json
cp out bench.json
holds "$(number bench.json models.0.latency_ms.median) > 0 && $(number bench.json models.0.profile.0.us) > 0"
expect 0 "$MOPT" simplify trained.onnx -o clean.onnx
expect 0 "$MOPT" diff trained.onnx int8.onnx --data "$DATA" --json
cp out diff.json
holds "$(number diff.json outputs.0.cosine) > 0.98 && $(number diff.json outputs.0.sqnr_db) > 12"
holds "$(number diff.json outputs.0.max_abs) > 0"
cat > recipe.json <<'END'
{ "mopt": 1, "seed": 7, "passes": [ { "pass": "prune", "amount": 0.5 }, { "pass": "quantize", "weight-only": "int8" } ] }
END
expect 0 "$MOPT" run recipe.json trained.onnx -o out.onnx
[ -s out.onnx ] || fail "run wrote no file"

# Gates: exit code 3, the output still written, the verdict in the report.
expect 0 "$MOPT" create mlp --layers 784,32,10 --input 1x28x28 -o m.onnx
expect 3 "$MOPT" eval m.onnx --data "$DATA" --min-accuracy 0.9
says "min-accuracy"
expect 3 "$MOPT" prune m.onnx --amount 0.5 --max-size 1kB -o p.onnx --report p.json
[ -s p.onnx ] || fail "a gate that failed must not keep the output back"
[ "$(number p.json gates.0.verdict)" = failed ] || fail "the verdict is missing"
[ "$(number p.json exit_code)" = 3 ] || fail "the exit code is missing"
expect 0 "$MOPT" prune m.onnx --amount 0.5 --max-size 1MB -o q.onnx
expect 2 "$MOPT" prune m.onnx --amount 0.5 --max-size large -o r.onnx
expect 2 "$MOPT" eval m.onnx --data "$DATA" --max-latency p99=20ms
says "measures no"

# Each allocation failed in turn, of mopt and of the libraries below it: a status and words, no crash, no block left, no half
# file. Long runs are sampled; TORTURE=0 takes every single one.
expect 0 "$MOPT" create mlp --layers 6,4,3 --input 6 -o m.onnx
awk 'BEGIN { for (i = 0; i < 12; i++) printf "%d,%d,1,0,1,%d,%d\n", i, i % 2, i % 5, i % 3 }' > rows.csv
stride=${TORTURE:-30}
torture() { "$MOPT_TORTURE" -s "$stride" "$@" || fail "$*"; }
data="--data csv:rows.csv --threads 1"
quiet="--threads 1 --measure 0"
torture inspect m.onnx --threads 1
torture -o o.onnx create mlp --layers 6,4,3 --input 6 -o o.onnx
torture -o o.onnx simplify m.onnx -o o.onnx $quiet
torture -o o.onnx prune m.onnx --amount 0.5 --skip fc1 --only 'fc*' --only '*' -o o.onnx $quiet
torture -o o.onnx prune m.onnx --structured --target macs=0.5x -o o.onnx $quiet
torture -o o.onnx quantize m.onnx --weight-only int8 -o o.onnx $quiet
torture bench m.onnx --runs 1 --warmup 0 --threads 1
torture bench m.onnx --train --runs 1 --warmup 0 --threads 1
torture diff m.onnx m.onnx --threads 1
torture eval m.onnx $data --json
torture -o o.onnx train m.onnx $data --measure 0 --epochs 1 --batch 4 -o o.onnx
torture -o o.onnx distill m.onnx --teacher m.onnx $data --measure 0 --epochs 1 --batch 4 -o o.onnx
torture -o o.onnx quantize m.onnx $data --measure 0 -o o.onnx
printf '[{"pass":"prune","amount":0.3},{"pass":"simplify"}]' > recipe.json
torture -o o.onnx run recipe.json m.onnx -o o.onnx $quiet --report r.json
expect 0 "$MOPT" inspect m.onnx --report r.json
torture -o page.html report r.json -o page.html

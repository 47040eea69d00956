# The report: what it says of machine and files, also of a run that failed; the dry run's plan; gates that cannot be judged.
expect 0 "$MOPT" create mlp --layers 784,32,10 --input 1x28x28 -o m.onnx
expect 0 "$MOPT" prune m.onnx --amount 0.5 --seed 5 -o p.onnx --report p.json
says "seed                          5"
[ "$(number p.json files.0.role)" = input ] && [ "$(number p.json files.1.role)" = output ] || fail "files"
holds "$(number p.json files.1.bytes) == $(stat -c %s p.onnx) && $(number p.json machine.cores) > 0"
# the hash is of the bytes: of the output here, of the input when that file is read next, from stdin too
hash=$(number p.json files.1.xxh64)
expect 0 "$MOPT" inspect p.onnx --report i.json
[ "$(number i.json files.0.xxh64)" = "$hash" ] || fail "the same file has another hash"
"$MOPT" inspect - --json < p.onnx > s.json
[ "$(number s.json files.0.xxh64)" = "$hash" ] || fail "the same bytes from stdin have another hash"
expect 1 "$MOPT" prune missing.onnx --amount 0.5 -o q.onnx --report f.json
holds "$(number f.json exit_code) == 1"
[ "$(number f.json model)" = missing.onnx ] || fail "the report does not name the model"
number f.json error | grep -q missing.onnx || fail "the report does not say what failed"
expect 5 "$MOPT" train m.onnx --data idx:/nonexistent -o q.onnx --report f.json
holds "$(number f.json exit_code) == 5"

# -n: what would come out, and nothing written
plan() {
    expect 0 "$MOPT" "$@" -n --json
    cp out plan.json
    expect 0 "$MOPT" "$@" -o real.onnx -f --report real.json --measure 0
    for key in parameters nonzero macs bytes; do
        [ "$(number plan.json predicted.$key)" = "$(number real.json after.$key)" ] || fail "predicted $key: $*"
    done
    holds "$(number plan.json predicted.memory_bytes.weights) > 0"
}
plan prune m.onnx --amount 0.9
plan prune m.onnx --structured --target macs=0.5x
plan prune m.onnx --structured --target size=60kB
plan prune m.onnx --structured --target params=15k
plan quantize m.onnx --weight-only int8
plan quantize m.onnx --fp16
plan quantize m.onnx --dynamic
holds "$(number real.json after.parameters) >= $(number real.json before.parameters)"
plan simplify m.onnx
expect 0 "$MOPT" quantize m.onnx --data "$DATA" -n
says "peak memory"
expect 0 "$MOPT" quantize m.onnx --data "$DATA" --qat -n
says "predicted"
expect 0 "$MOPT" train m.onnx --data "$DATA" -n
[ ! -e q.onnx ] || fail "a file was written"

# what a gate cannot judge is said before the work
expect 2 "$MOPT" train m.onnx --data "$DATA" --max-latency p99=20ms -o q.onnx
expect 1 "$MOPT" train m.onnx --data "$DATA" --max-drop 1% --baseline missing.json -o q.onnx
says "missing.json"
expect 2 "$MOPT" eval m.onnx --data "$DATA" --baseline p.json
says "max-drop"
expect 2 "$MOPT" inspect m.onnx --data "$DATA"
expect 2 "$MOPT" prune m.onnx --amount 0.5 --teacher p.onnx -o q.onnx
[ ! -e q.onnx ] || fail "a file was written"

# create reports too
expect 0 "$MOPT" create mlp --layers 784,16,10 --input 1x28x28 --seed 3 -o n.onnx --json --report n.json
holds "$(number n.json totals.parameters) == 784 * 16 + 16 + 160 + 10 && $(number n.json seed) == 3"
[ "$(number n.json files.0.name)" = n.onnx ] || fail "the file that create wrote is not in its report"
expect 2 "$MOPT" create mlp --input 4 --classes 2 -o c.onnx --print-recipe
# options that would do nothing are refused
expect 2 "$MOPT" quantize m.onnx --data "$DATA" --percentile 99 -o q.onnx
expect 2 "$MOPT" quantize m.onnx --fp16 --method minmax -o q.onnx
expect 2 "$MOPT" distill m.onnx --teacher p.onnx --data "$DATA" --beta 4 -o q.onnx
# bench names its engine
expect 0 "$MOPT" bench m.onnx --seconds 0.05
says "engine: mopt on cpu"
says "outliers"
# the page: every element that was opened is closed, in order; a column for every key of any row; failures are told
expect 0 "$MOPT" bench m.onnx p.onnx --seconds 0.02 --report b.json
expect 0 "$MOPT" report p.json b.json f.json -o page.html
"$MOPT_PYTHON" - <<'END' || fail "the page is not well formed"
import html.parser, sys
class Page(html.parser.HTMLParser):
    void, open, seen = {"meta", "rect", "path", "polyline"}, [], set()
    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in self.void:
            self.open.append(tag)
    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)
    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag
page, text = Page(), open("page.html").read()
page.feed(text)
page.close()
assert not page.open and {"table", "td", "th", "svg", "rect", "details"} <= page.seen, page.seen
assert text.startswith("<!doctype html>") and "/nonexistent" in text and "sparsity" in text
END
expect 2 "$MOPT" report p.json -o q.html --seed 3
expect 2 "$MOPT" report p.json -o q.html --json
# a spec in a file says everything
echo '{ "family": "mlp" }' > spec.json
expect 2 "$MOPT" create spec.json --classes 5 -o c.onnx
says "'classes'"
expect 0 "$MOPT" create spec.json --seed 5 -o c.onnx
# -h: what is there and nothing twice
"$MOPT" prune --help > help.txt
[ "$(grep -c -- --dry-run help.txt)" = 1 ] || fail "--dry-run is not listed once"
for verb in train prune distill quantize bench eval inspect simplify diff create infer report; do
    ! "$MOPT" $verb --help | grep -E '^ .*--' | sed 's/^ *\(-[a-z], \)\?\(--[a-z0-9-]*\).*/\2/' | sort | uniq -d | grep . || fail "$verb --help lists a flag twice"
done
! "$MOPT" inspect --help | grep -e '--data' -e '--only' || fail "inspect --help lists what it refuses"
expect 2 "$MOPT" inspect m.onnx -f
expect 2 "$MOPT" inspect m.onnx -q -v
expect 2 "$MOPT" inspect m.onnx --external-data
expect 2 "$MOPT" inspect m.onnx --progress plane
says "did you mean 'plain'"
# one JSON object and the report file whatever failed, and before the work began too
told() {
    code=$1
    shift
    rm -f told.json
    expect "$code" "$MOPT" "$@" --json --report told.json
    cmp out told.json || fail "--json and --report differ: $*"
    [ "$(number told.json exit_code)" = "$code" ] && [ "$(number told.json verb)" = "$1" ] || fail "what the report says: $*"
    [ -n "$(number told.json error)" ] || fail "no words in the report: $*"
}
told 2 prune m.onnx --amuont 0.5 -o q.onnx
told 2 prune m.onnx --amount 0.5 -o m.onnx
told 2 prune m.onnx --amount 0.5 -o p.onnx
told 2 prune m.onnx --amount 0.5 --lr 1 -o q.onnx
told 2 eval
told 2 create mlpp -o q.onnx
told 1 run missing.json m.onnx -o q.onnx
told 1 bench m.onnx missing.onnx
told 2 inspect m.onnx --device gpu
expect 2 "$MOPT" prune m.onnx --amount 0.5 -o q.onnx --report nowhere/r.json
[ ! -e q.onnx ] || fail "the report could not be written, and the work was done all the same"
expect 2 "$MOPT" prune m.onnx --amount 0.5 -o "$PWD" -f
says "is a folder"
expect 0 "$MOPT" create mlp --layers 784,16,10 --input 1x28x28 -n
says "parameters"

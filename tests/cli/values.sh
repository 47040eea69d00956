# Every option of the verbs that take most of them, with values that are none: refused in words, and no file is made.
i=0
echo a,b,c,d,label > d.csv
while [ $i -lt 60 ]; do
    echo "0.$((i * 7 % 10)),0.$((i * 3 % 10)),0.$((i % 9)),1.$i,$((i % 3))" >> d.csv
    i=$((i + 1))
done
expect 0 "$MOPT" create mlp --layers 4,8,3 --input 4 -o m.onnx
takes_files='report|trace|checkpoint|resume|progress|threads|json|output|svg|dot'
takes_all='max-size|subset|max-drop|max-rmse'       # as large as one likes
each() { # VERB ARGUMENTS...
    verb=$1 n=0
    for flag in $("$MOPT" "$verb" --help | grep -oE -- '--[a-z0-9-]+ [A-Z|a-z0-9]+' | grep -oE -- '--[a-z0-9-]+' | sort -u |
                  grep -vE -- "--($takes_files)\$"); do
        for value in -1 nan 'x!' 1e308; do
            [ "$value" = 1e308 ] && echo "$flag" | grep -qE -- "--($takes_all)\$" && continue
            n=$((n + 1)) got=0
            "$MOPT" "$@" "$flag=$value" > out 2> err || got=$?
            [ "$got" = 2 ] || [ "$got" = 4 ] || [ "$got" = 5 ] || [ "$got" = 1 ] || fail "exit code $got: $verb $flag=$value"
            [ -s err ] || fail "no words: $verb $flag=$value"
            [ ! -e o.onnx ] || fail "a file: $verb $flag=$value"
        done
    done
    [ $n -gt 40 ] || fail "$verb: only $n values tried"
}
each train m.onnx --data csv:d.csv,label=label --epochs 1 --measure 0 --no-evaluate -o o.onnx
each quantize m.onnx --data csv:d.csv,label=label --measure 0 -o o.onnx
each prune m.onnx --measure 0 -o o.onnx
expect 2 "$MOPT" prune m.onnx --amount 99999999999999999999 -o o.onnx
says "more than can be counted"

# outputs that are no files stay what they are, and standard output by its other name is still the model alone
mkfifo pipe
cat pipe > piped.onnx &
expect 0 "$MOPT" prune m.onnx --amount 0.5 -o pipe -f --measure 0
wait
[ -p pipe ] || fail "a pipe was replaced"
expect 0 "$MOPT" prune m.onnx --amount 0.5 -o - --measure 0
cmp out piped.onnx
"$MOPT" prune m.onnx --amount 0.5 -o /dev/stdout --measure 0 2> err | cat > named.onnx
cmp out named.onnx

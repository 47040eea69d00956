# lib.sh - what every script of tests/cli has: $MOPT, $DATA, an empty folder, and ways to say what is expected.
set -eu
DATA="idx:${MOPT_FASHION:-/usr/share/datasets/fashion-mnist}"

fail() { echo "FAILED: $*" >&2; exit 1; }

# expect CODE COMMAND...: the exit code is CODE; stdout and stderr go to the files out and err.
expect() {
    want=$1
    shift
    got=0
    "$@" > out 2> err || got=$?
    [ "$got" = "$want" ] || { cat out err >&2; fail "exit code $got, not $want: $*"; }
}
# says TEXT: the last command's stderr or stdout holds TEXT.
says() { grep -qF -- "$1" out err || { cat out err >&2; fail "does not say: $1"; }; }
silent() { [ ! -s out ] || fail "stdout is not empty: $(head -3 out)"; }
# number FILE PATH: a number of a JSON report, through python's json (no jq needed).
number() {
    "$MOPT_PYTHON" -c '
import json, sys
x = json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."):
    x = x[int(k)] if isinstance(x, list) else x[k]
print(x)' "$1" "$2"
}
# holds EXPRESSION: of numbers, by awk.
holds() { awk "BEGIN { exit !($*) }" || fail "does not hold: $*"; }

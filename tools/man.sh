#!/bin/sh
# man.sh MOPT - the manual page mopt.1 from the program's own help, so that both say the same.
set -eu
mopt=$1
escape() { sed -e 's/\\/\\e/g' -e 's/^\./\\\&./' -e "s/^'/\\\\\&'/" -e 's/-/\\-/g'; }
printf '.TH MOPT 1 "" "%s" "User Commands"\n' "$("$mopt" --version)"
printf '.SH NAME\nmopt \\- train, prune, distill, quantize and bench ONNX models\n'
printf '.SH SYNOPSIS\n.B mopt\n.I VERB IN.onnx\n[\\-o OUT.onnx] [options]\n.SH VERBS\n.nf\n'
"$mopt" --help | escape
printf '.fi\n'
for verb in $("$mopt" --help | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p'); do
    printf '.SH MOPT %s\n.nf\n' "$(echo "$verb" | tr a-z A-Z)"
    "$mopt" "$verb" --help | escape
    printf '.fi\n'
done

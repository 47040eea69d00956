#!/bin/sh
# lint.sh - the rules of docs/ARCHITECTURE.md that a script can read: which folder may include which,
# what the library may not call, how long a function may be. Prints each break; exit 1 when there is one.
cd "$(dirname "$0")/.." || exit 1
status=0
bad() { echo "lint: $*"; status=1; }

# ---- arrows: folder, then the prefixes it may include ----
allowed() {
    case $1 in
    cmd) echo "cmd/ mopt.h" ;;
    formats) echo "formats/ lib/ kernels/backend.h onnx.pb-c.h" ;;
    lib/passes) echo "lib/" "kernels/backend.h" ;;
    lib/ops) echo "lib/ops/ lib/run/ lib/graph/ lib/base/ lib/mopt.h kernels/backend.h" ;;
    lib/run) echo "lib/run/ lib/graph/ lib/base/ lib/mopt.h kernels/" ;;
    lib/data) echo "lib/data/ lib/graph/ lib/base/ lib/mopt.h" ;;
    lib/graph) echo "lib/graph/ lib/base/ lib/mopt.h" ;;
    lib/base) echo "lib/base/ lib/mopt.h" ;;
    kernels) echo "kernels/" ;;
    esac
}
for folder in cmd formats lib/passes lib/ops lib/run lib/data lib/graph lib/base kernels; do
    for file in $(find $folder -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | sort); do
        for include in $(sed -n 's/^ *# *include "\([^"]*\)".*/\1/p' "$file"); do
            ok=0
            for prefix in $(allowed $folder); do
                case $include in "$prefix"*) ok=1 ;; esac
            done
            [ $ok = 1 ] || bad "$file includes $include, which $folder/ may not"
        done
    done
done

# ---- the library never prints, never exits, opens no file ----
hits=$(grep -nE '\b(printf|puts|putchar|fputs|fopen|fdopen|exit|abort)\(' lib/*/*.c | grep -vE 'snprintf|vsnprintf' || true)
[ -z "$hits" ] || bad "lib/ prints, exits or opens a file:
$hits"

# ---- functions that were better never called ----
hits=$(grep -nE '\b(strcpy|strcat|sprintf|vsprintf|strtok|gets|atoi|rand|srand|localtime|alloca|tmpnam)\(' \
    lib/*/*.c formats/*.c cmd/*.c kernels/*.c kernels/*/*.c || true)
[ -z "$hits" ] || bad "banned function:
$hits"

# ---- a function fits a screen or two ----
hits=$(awk 'FNR == 1 { start = 0 }
    /^[a-zA-Z].*\)$/ || /^[a-zA-Z_].*,$/ { if (!open) name = $0 }
    /^{/ { start = FNR; open = 1 }
    /^}/ { if (open && FNR - start > 80) print FILENAME ":" start ": " FNR - start " lines: " name; open = 0 }' \
    lib/*/*.c formats/*.c cmd/*.c kernels/*.c kernels/*/*.c kernels/*/*.cu)
[ -z "$hits" ] || bad "longer than 80 lines:
$hits"

# ---- what is called by name can be called ----
for file in $(grep -lE '^#!' -r tools tests .ci --include='*.sh' --include=run); do
    [ -x "$file" ] || bad "$file is not executable"
done

# ---- a make that installs first may not name the build folder: what it installs can change that name ----
hits=$(grep -nE '\$\(MAKE\).*\$\(B\)' Makefile || true)
[ -z "$hits" ] || bad "a make within make that names \$(B):
$hits"

# ---- unfinished work ----
hits=$(grep -nE '\b(TODO|FIXME|XXX)\b' -r lib formats cmd kernels tests docs Makefile README.md --include='*.[ch]' --include='*.md' \
    --include='*.sh' --include=Makefile 2>/dev/null | grep -v '^tests/lint.sh' || true)
[ -z "$hits" ] || bad "unfinished:
$hits"

[ $status = 0 ] && echo "lint: ok"
exit $status

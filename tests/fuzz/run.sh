#!/bin/sh
# run.sh "TARGET ..." SECONDS - libFuzzer with AddressSanitizer and UBSan over the readers; findings and the grown
# corpus stay in build/fuzz/TARGET. tests/fuzz/corpus/TARGET holds the seeds, which the tests replay.
set -eu
cd "$(dirname "$0")/../.."
command -v clang > /dev/null || { echo "clang is needed: tools/deps.sh check" >&2; exit 1; }
make -s build/gen/onnx.pb-c.c
lib=build/fuzz/lib
mkdir -p "$lib"
flags="-g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -I. -Ilib -Ibuild/gen -D_GNU_SOURCE -w"
for f in lib/*/*.c kernels/*.c kernels/cpu/*.c kernels/cuda/none.c formats/*.c build/gen/onnx.pb-c.c; do
    case $f in *_avx2.c | *_avx512.c | *_vnni.c | *_amx.c) extra="-mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni" ;; *) extra= ;; esac
    o="$lib/$(echo "$f" | tr / _).o"
    [ "$o" -nt "$f" ] || clang $flags $extra -c -o "$o" "$f"
done
for t in $1; do
    mkdir -p "build/fuzz/$t"
    clang $flags -fsanitize=fuzzer,address,undefined -o "build/fuzz/fuzz_$t" "tests/fuzz/fuzz_$t.c" "$lib"/*.o \
        "/usr/lib/$(cc -dumpmachine)/openblas-serial/libopenblas.a" -lprotobuf-c -lcjson -ljpeg -lpng -lz -ldl -lpthread -lm
    seeds=
    [ -d "tests/fuzz/corpus/$t" ] && seeds="tests/fuzz/corpus/$t"
    echo "fuzzing $t for $2 s"
    "build/fuzz/fuzz_$t" -max_total_time="$2" -rss_limit_mb=1024 -timeout=5 -artifact_prefix="build/fuzz/$t-" "build/fuzz/$t" $seeds
done

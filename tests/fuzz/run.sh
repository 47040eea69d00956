#!/bin/sh
# run.sh "TARGET ..." SECONDS - libFuzzer with AddressSanitizer and UBSan over the readers, one target after another;
# findings and the grown corpus stay in build/fuzz/TARGET. tests/fuzz/corpus/TARGET holds the seeds, which the tests
# replay. At the end one line a target: how many inputs it ran.
set -eu
cd "$(dirname "$0")/../.."
command -v clang > /dev/null || { echo "clang is needed: tools/deps.sh check" >&2; exit 1; }
san=fuzzer-no-link,address,undefined
programs=
for t in $1; do programs="$programs build/cuda0-fuzzer-no-link-address-undefined/fuzz_$t"; done
# shellcheck disable=SC2086
make -s CC="${FUZZ_CC:-clang}" CUDA=0 SAN=$san WARN=-w $programs
status=0
for t in $1; do
    mkdir -p "build/fuzz/$t"
    seeds=
    [ -d "tests/fuzz/corpus/$t" ] && seeds="tests/fuzz/corpus/$t"
    # shellcheck disable=SC2086
    if "build/cuda0-$(echo $san | tr , -)/fuzz_$t" -max_total_time="$2" -rss_limit_mb=1024 -malloc_limit_mb=1024 -timeout=5 \
        -print_final_stats=1 -artifact_prefix="build/fuzz/$t-" "build/fuzz/$t" $seeds > "build/fuzz/$t.log" 2>&1; then
        verdict="no finding"
    else
        verdict="A FINDING: see build/fuzz/$t.log"
        status=1
    fi
    echo "$t: $(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/$t.log") inputs, $verdict"
done
exit $status

#!/bin/sh
# gpu.sh - everything that only a card can show, in one call of less than 8 minutes: kernels and gradients against the CPU,
# compute-sanitizer, training curves, times of training and inference. The table comes last, and below it PASS or FAIL.
#
#     tests/bench/gpu.sh          on the machine with the card; builds first where the build is missing (CUDA=1)
#     tests/bench/gpu.sh pack     before, where mopt can be built, for a machine that lacks the packages to do so: puts
#                                 programs and libraries into build/gpu and, packed, build/gpu.tar.gz; either will do there
#
# MOPT_GPU_OUT   folder of logs and reports (build/gpu-out)       MOPT_GPU_SECONDS   time for all of it (460)
# MOPT_FASHION   folder of Fashion-MNIST (that of Debian's dataset-fashion-mnist); where there is none, made-up pictures
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
packed=$root/build/gpu

make_all() {
    archs=$1
    make -j"$(nproc)" MPI=0 CUDA=1 ${archs:+CUDA_ARCHS="$archs"} build/cuda1-nompi/mopt build/cuda1-nompi/check \
        build/cuda1-nompi/libmopt-cuda.so
}

if [ "${1:-}" = pack ]; then
    set -e
    make_all "${CUDA_ARCHS:-90}"
    rm -rf "$packed"
    mkdir -p "$packed/lib"
    for f in mopt check libmopt-cuda.so; do
        strip -o "$packed/$f" "build/cuda1-nompi/$f"
    done
    # all but the libraries of the compiler, which must be the machine's own
    ldd "$packed/mopt" "$packed/check" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
        grep -vE '/(libc|libm|libpthread|libdl|librt|libstdc\+\+|libgcc_s|ld-linux[^/]*)\.so' | xargs -I{} cp -L {} "$packed/lib/"
    tar -czf "$packed.tar.gz" -C build gpu
    du -shc "$packed" "$packed.tar.gz"
    exit 0
fi

out=${MOPT_GPU_OUT:-$root/build/gpu-out}
seconds=${MOPT_GPU_SECONDS:-460}
start=$(date +%s)
failed=0
mkdir -p "$out"
: > "$out/table"
left() { echo $((seconds - $(date +%s) + start)); }
row() { printf '%-44s %s\n' "$1" "$2" >> "$out/table"; }
finish() {
    echo
    echo "== $(date -u +%F) $card"
    cat "$out/table"
    if [ "$failed" = 0 ]; then echo "PASS ($(($(date +%s) - start)) s)"; else echo "FAIL: $failed of the checks above"; fi
    exit "$((failed > 0))"
}
# check NAME SECONDS COMMAND...: a row with pass or FAIL; the end of what it said where it failed
check() {
    name=$1 limit=$2
    shift 2
    [ "$(left)" -lt "$limit" ] && limit=$(left)
    if [ "$limit" -lt 5 ]; then
        failed=$((failed + 1))
        row "$name" "FAIL: no time was left"
        return 1
    fi
    timeout -k 5 "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
    if [ "$code" = 0 ]; then
        row "$name" pass
        return 0
    fi
    row "$name" "FAIL, exit code $code"
    failed=$((failed + 1))
    echo "-- $name:"
    tail -n 25 "$out/$name.log" | cut -c1-300
    return 1
}

card=$(nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader 2>/dev/null | head -1)
if [ -z "$card" ]; then
    echo "gpu.sh: nvidia-smi finds no card here"
    exit 1
fi

# ---- the programs, and cuBLAS where the toolkit or a Python package has it ----
own_path=${LD_LIBRARY_PATH:-}
if [ ! -x "$packed/mopt" ] && [ -e "$packed.tar.gz" ]; then
    tar -xzf "$packed.tar.gz" -C build
fi
if [ -x "$packed/mopt" ]; then
    bin=$packed
    LD_LIBRARY_PATH=$packed/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else
    bin=$root/build/cuda1-nompi
    arch=$(echo "$card" | sed 's/.*, //; s/\.//')
    if ! make_all "$arch" > "$out/build.log" 2>&1; then
        tail -n 20 "$out/build.log"
        echo "FAIL: it does not build here; see 'tests/bench/gpu.sh pack'"
        exit 1
    fi
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
fi
for d in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib \
    $(python3 -c 'import sys,glob; print(*[d for p in sys.path for d in glob.glob(p + "/nvidia/*/lib")])' 2>/dev/null); do
    { [ -e "$d/libcublas.so.13" ] || [ -e "$d/libcudnn.so.9" ]; } && LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$d
done
export LD_LIBRARY_PATH
export MOPT_CUDA_PLUGIN="$bin/libmopt-cuda.so"
mopt=$bin/mopt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ---- does it run at all ----
"$mopt" create mlp --layers 784,64,10 --input 1x28x28 -o "$work/mlp.onnx" -q || exit 1
check device 60 "$mopt" bench "$work/mlp.onnx" --device cuda --seconds 0.2 || finish

# ---- right answers ----
# a suite passes without a device where none opens; the step above has shown that one does
check kernels 120 env MOPT_T=kernels CK_TIMEOUT_MULTIPLIER=5 "$bin/check"
# kernels over bfloat16, with cuDNN and without; a defect of cuDNN leaves the row below it
check bf16 60 env MOPT_T=bf16_kernels CK_TIMEOUT_MULTIPLIER=5 "$bin/check"
check without-cudnn 100 env MOPT_CUDNN=0 MOPT_T=kernels CK_TIMEOUT_MULTIPLIER=5 "$bin/check"
# in one process: making a context costs more than a case
check gradients 90 env MOPT_T=gradients MOPT_TEST_DEVICE=cuda CK_FORK=no "$bin/check"
if command -v compute-sanitizer > /dev/null; then
    check sanitizer 100 env MOPT_T=cuda_kernels CK_FORK=no CK_DEFAULT_TIMEOUT=0 compute-sanitizer --error-exitcode 9 "$bin/check"
else
    row sanitizer "not here"
fi

# ---- training curves: LeNet-5 on the card and on the CPU ----
data=${MOPT_FASHION:-/usr/share/datasets/fashion-mnist}
if [ ! -d "$data" ]; then
    data=$work/pictures
    python3 tests/bench/made_up_digits.py "$data" || exit 1
    row data "made-up pictures, not Fashion-MNIST"
fi
"$mopt" create lenet5 -o "$work/lenet5.onnx" -q
accuracy() { # of the trained model, in units of 0.01 %
    tr -d ' \t\n' < "$1" | sed -n 's/.*"after":{[^}]*"metrics":{[^}]*"accuracy":\([0-9.e-]*\).*/\1/p' | awk '{ print int($1 * 10000) }'
}
train() { # device, report, precision
    timeout 80 "$mopt" train "$work/lenet5.onnx" --data "idx:$data" --subset 12000 --epochs 2 --device "$1" --report "$2" \
        --precision "${3:-fp32}" -o "$work/trained-$1.onnx" -f -q
}
same_curve() {
    train cuda "$out/lenet5-cuda.json" && train cpu "$out/lenet5-cpu.json" || return 1
    on_card=$(accuracy "$out/lenet5-cuda.json") on_cpu=$(accuracy "$out/lenet5-cpu.json")
    echo "accuracy in 0.01 %: cuda $on_card, cpu $on_cpu"
    [ "$on_card" -gt 5000 ] && [ $((on_card - on_cpu)) -lt 200 ] && [ $((on_cpu - on_card)) -lt 200 ]
}
learns() { # by precision: the loss must come down
    train cuda "$out/lenet5-$1.json" "$1" && [ "$(accuracy "$out/lenet5-$1.json")" -gt 5000 ]
}
without_graphs() {
    (MOPT_CUDA_GRAPHS=0 && export MOPT_CUDA_GRAPHS && train cuda "$out/lenet5-plain.json") || return 1
    [ "$(accuracy "$out/lenet5-plain.json")" = "$(accuracy "$out/lenet5-cuda.json")" ]
}
begin=$(date +%s)
if same_curve > "$out/curve.log" 2>&1; then
    row curve "pass, $(tail -n 1 "$out/curve.log"), $(($(date +%s) - begin)) s"
else
    row curve FAIL
    failed=$((failed + 1))
    tail -n 10 "$out/curve.log"
fi

for how in "learns bf16" "learns fp16" without_graphs; do
    # shellcheck disable=SC2086
    if $how > "$out/$how.log" 2>&1; then row "train, $how" pass; else row "train, $how" FAIL; failed=$((failed + 1)); fi
done

# ---- verbs that read activations, gradients and weights back
check quantize 60 "$mopt" quantize "$work/trained-cuda.onnx" --data "idx:$data" --subset 2000 --device cuda -o "$work/int8.onnx" -f -q
check prune 60 "$mopt" prune "$work/trained-cuda.onnx" --data "idx:$data" --subset 2000 --structured --amount 0.3 --epochs 1 \
    --device cuda -o "$work/pruned.onnx" -f -q
check eval 60 "$mopt" eval "$work/trained-cpu.onnx" --data "idx:$data" --device cuda -q

# ---- times; the peers only where they are installed ----
median() { tr -d ' \t\n' < "$1" | sed -n 's/.*"latency_ms":{[^}]*"median":\([0-9.e-]*\).*/\1/p' | head -1; }
measure() { # row, then the options of bench; leaves $ms
    [ "$(left)" -lt 15 ] && { row "$1" "no time was left"; return 1; }
    what=$1
    shift
    if timeout 40 "$mopt" bench "$@" --device cuda --seconds 1 --warmup 0.5 --json > "$out/bench.json" 2> "$out/bench.log"; then
        ms=$(median "$out/bench.json")
        row "$what" "$ms ms"
    else
        failed=$((failed + 1))
        row "$what" "FAIL: $(tail -n 1 "$out/bench.log")"
    fi
}
for net in mlp lenet5 cnn resnet20 resnet18 mobilenetv2 transformer; do
    "$mopt" create "$net" -o "$work/$net.onnx" -f -q 2> /dev/null || { row "$net" "cannot be made"; failed=$((failed + 1)); continue; }
    measure "mopt infer $net, batch 1" "$work/$net.onnx"
    measure "mopt infer $net, batch 64" "$work/$net.onnx" --batch 64
done
for net in lenet5 resnet20; do
    measure "mopt train $net, batch 128, fp32" "$work/$net.onnx" --train --batch 128
    MOPT_CUDA_TF32=1 measure "mopt train $net, batch 128, TF32" "$work/$net.onnx" --train --batch 128
    measure "mopt train $net, batch 128, bf16" "$work/$net.onnx" --train --batch 128 --precision bf16
    measure "mopt train $net, batch 128, fp16" "$work/$net.onnx" --train --batch 128 --precision fp16
    MOPT_CUDA_GRAPHS=0 measure "mopt train $net, batch 128, bf16, no graphs" "$work/$net.onnx" --train --batch 128 --precision bf16
    MOPT_CUDNN=0 measure "mopt train $net, batch 128, bf16, no cuDNN" "$work/$net.onnx" --train --batch 128 --precision bf16
done
if [ "$(left)" -gt 40 ] && LD_LIBRARY_PATH=$own_path python3 -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null; then
    timeout "$(left)" env LD_LIBRARY_PATH="$own_path" python3 tests/bench/gpu_peers.py "$work" $(($(left) - 20)) >> "$out/table" 2> "$out/peers.log" ||
        row peers "stopped: $(tail -n 1 "$out/peers.log" | cut -c1-120)"
else
    row peers "PyTorch with CUDA is not here, or no time was left"
fi
finish

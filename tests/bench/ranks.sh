#!/bin/bash
# ranks.sh [ROUNDS] - two ranks of one thread beside one rank of one thread, interleaved, on ResNet-20 and LeNet-5; how much
# of the exchange was hidden; whether 1, 2 and 4 ranks write the same file; and what 64 and 1,024 ranks would make of it:
#     T(n) = max(t, 2 (n - 1) / n B / w) + b / w + m * latency * log2 n
# t: measured time of a step of one rank at its own share of samples (weak scaling: each rank keeps the share that one of
# two ranks had), B bytes of gradients, b of the last bucket, w bandwidth and latency as given for the network.
# LINK=bytes per second (12.5e9 / 8 * 8: 100 Gbit/s), LATENCY=seconds. Wants a quiet machine of two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
rounds=${1:-3}
link=${LINK:-12.5e9} latency=${LATENCY:-5e-6}
mopt=$PWD/mopt
data=idx:${MOPT_FASHION:-/usr/share/datasets/fashion-mnist}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
field() { python3 -c 'import json,sys
x = json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."): x = x[k]
print(x)' "$1" "$2"; }
for net in lenet5 resnet20; do
    "$mopt" create $net --input 1x28x28 --classes 10 -o $net.onnx > /dev/null
    subset=20% && [ $net = resnet20 ] && subset=3%
    set -- train $net.onnx --data "$data" --subset $subset --epochs 1 --batch 128 --seed 1 --threads 1 --no-evaluate \
        --measure 0 --val-split 0 -q -f
    for i in $(seq "$rounds"); do
        for n in 1 2; do
            mpirun -np $n --oversubscribe --bind-to core "$mopt" "$@" -o $net.$n.onnx --report $net.$n.$i.json
        done
    done
    mpirun -np 4 --oversubscribe --bind-to none "$mopt" "$@" -o $net.4.onnx
    same=yes
    cmp -s $net.1.onnx $net.2.onnx && cmp -s $net.1.onnx $net.4.onnx || same=NO
    echo "$net: 1, 2 and 4 ranks write the same file: $same"
    python3 - $net "$rounds" "$link" "$latency" <<'END'
import json, math, statistics, sys
net, rounds, link, latency = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
runs = {n: [json.load(open(f"{net}.{n}.{i}.json")) for i in range(1, rounds + 1)] for n in (1, 2)}
rate = {n: [r["training_result"]["samples_per_second"] for r in runs[n]] for n in runs}
ratios = [b / a for a, b in zip(rate[1], rate[2])]
print(f"{net}: samples/s 1 rank {statistics.median(rate[1]):.0f}, 2 ranks {statistics.median(rate[2]):.0f}, "
      f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
c = [r["comm"] for r in runs[2]]
total = lambda key: sum(x[key] for x in c)
steps = runs[2][0]["training_result"]["n_steps"]
large, exposed = total("large_seconds"), total("large_exposed_seconds")
print(f"{net}: {c[0]['bytes'] / steps / 1e6:.2f} MB a step; hidden of all buckets "
      f"{100 * (1 - total('exposed_seconds') / max(total('seconds'), 1e-12)):.1f} %, of those from 1 MB on "
      + (f"{100 * (1 - exposed / large):.1f} %" if large else "none there")
      + f"; a step exposes {1e6 * total('exposed_seconds') / steps / rounds:.0f} us, BatchNormalization "
      f"{1e6 * total('batchnorm_seconds') / steps / rounds:.0f} us")
t = statistics.median(r["training_result"]["seconds"] / steps for r in runs[2])
bytes_ = c[0]["bytes"] / steps
last, syncs = bytes_ / max(c[0]["sums"] / steps, 1), c[0]["batchnorm_sums"] / steps
for n in (64, 1024):
    T = max(t, 2 * (n - 1) / n * bytes_ / link) + last / link + syncs * latency * math.log2(n)
    print(f"{net}: projected to {n} ranks of {link * 8 / 1e9:.0f} Gbit/s and {latency * 1e6:.0f} us: a step of "
          f"{64 * n} samples {1e3 * T:.1f} ms, efficiency {100 * t / T:.1f} %")
END
done

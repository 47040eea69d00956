#!/bin/bash
# two_hosts.sh [RATE] - two ranks on two hosts that have nothing but a network between them: two network namespaces, each
# with its own host name, joined by a veth pair of RATE (1gbit; tc where it is there). Rank 1 is started by mpirun through a
# stand-in for ssh that enters the other namespace, so that all traffic of MPI goes over TCP. Prints the rate of training on
# one rank and on two, and whether they write the same file. Needs root, iproute2, util-linux; leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/../.."
rate=${1:-1gbit}
mopt=$PWD/mopt
data=idx:${MOPT_FASHION:-/usr/share/datasets/fashion-mnist}
folder=$(mktemp -d)
a=mopt-a-$$ b=mopt-b-$$
clean() {
    ip netns del $a 2> /dev/null || true
    ip netns del $b 2> /dev/null || true
    rm -rf "$folder"
}
trap clean EXIT
ip netns add $a
ip netns add $b
ip link add v0 netns $a type veth peer name v1 netns $b
ip -n $a addr add 10.77.0.1/24 dev v0
ip -n $b addr add 10.77.0.2/24 dev v1
for x in "$a v0" "$b v1"; do
    set -- $x
    ip -n "$1" link set lo up
    ip -n "$1" link set "$2" up
    ip netns exec "$1" tc qdisc add dev "$2" root tbf rate "$rate" burst 256kb latency 50ms 2> /dev/null ||
        echo "no tc here: the link has no limit"
done
# "ssh HOST COMMAND": in the namespace of that address
cat > "$folder/rsh" <<END
#!/bin/bash
while [ "\${1#-}" != "\$1" ]; do shift; done
shift
exec ip netns exec $b unshare --uts sh -c "hostname mopt-b; \$*"
END
chmod +x "$folder/rsh"
"$mopt" create lenet5 --input 1x28x28 --classes 10 -o "$folder/net.onnx" > /dev/null
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
run() { # run NAME HOSTS N
    ip netns exec $a unshare --uts sh -c "hostname mopt-a; exec mpirun -np $3 --host $2 --mca plm_rsh_agent $folder/rsh \
        --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 --bind-to none \
        '$mopt' train '$folder/net.onnx' --data '$data' --subset 5% --epochs 1 --batch 128 --seed 1 --threads 1 \
        --no-evaluate --measure 0 -q -o '$folder/$1.onnx' --report '$folder/$1.json'"
    python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))
print(sys.argv[2] + ":", round(r["training_result"]["samples_per_second"]), "samples/s", r.get("comm", ""))' "$folder/$1.json" "$1"
}
run one 10.77.0.1:1 1
run two 10.77.0.1:1,10.77.0.2:1 2
cmp "$folder/one.onnx" "$folder/two.onnx" && echo "one and two hosts write the same file"

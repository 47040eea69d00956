#!/bin/sh
# deps.sh build|demo|check - install from Debian's packages what is missing, and nothing else.
# Says what it will run before it runs it. As root, or with sudo.
set -eu
build="gcc make pkg-config protobuf-c-compiler libprotobuf-c-dev libcjson-dev libopenblas-serial-dev libdnnl-dev
       libjpeg-dev libpng-dev libtiff-dev libwebp-dev libopenjp2-7-dev libpcre2-dev zlib1g-dev libopenmpi-dev openmpi-bin"
demo="dataset-fashion-mnist"
check="check libsubunit-dev libonnx-testdata dataset-fashion-mnist python3 python3-venv zstd g++ clang libclang-rt-14-dev"
case "${1:-}" in
build) want=$build ;;
demo) want="$build $demo" ;;
check) want="$build $check" ;;
*) echo "usage: tools/deps.sh build|demo|check" >&2; exit 2 ;;
esac
missing=
for p in $want; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo="sudo"
echo "installing what is missing:"
echo "    $sudo apt-get update"
echo "    $sudo apt-get install -y --no-install-recommends$missing"
$sudo apt-get update -q
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends $missing

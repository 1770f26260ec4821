#!/bin/sh
# aarch64.sh [FOLDER]: builds everything for aarch64 (warnings are errors) and runs the suites kernels, unit and golden
# under qemu. On Debian 12, amd64:
#   dpkg --add-architecture arm64 && apt-get update
#   apt-get install --no-install-recommends gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user-static libgomp1:arm64 \
#       libopenblas-dev:arm64 libyaml-dev:arm64 libzstd-dev:arm64 zlib1g-dev:arm64 libjansson-dev:arm64 \
#       libprotobuf-c-dev:arm64 libssl-dev:arm64 libcmocka-dev:arm64
# libsentencepiece-dev cannot stand beside its amd64 twin; its headers are the same and its libraries lie elsewhere:
#   apt-get download libsentencepiece0:arm64 libsentencepiece-dev:arm64
#   for package in libsentencepiece*_arm64.deb; do dpkg -x $package /; done
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$source/build-aarch64}
[ -f "$build/build.ninja" ] || meson setup --cross-file "$source/tests/cross/aarch64.ini" "$build" "$source"
ninja -C "$build"
cd "$build"
exec meson test --no-rebuild --suite kernels --suite unit --suite golden --timeout-multiplier 10 --print-errorlogs

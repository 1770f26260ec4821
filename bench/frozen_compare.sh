#!/bin/sh
# SPDX-License-Identifier: MIT
# bench/frozen beside torch and bitsandbytes (bench/rivals/frozen_torch.py) cell by cell in one run:
#   frozen_compare.sh BUILD_DIR PYTHON [M...]
# CSV: side,shape,m,path,gflop_s,peak_share,gvalues_s,read_share,decode_share,dense_gflop_s,torch_gflop_s,ratio,
# bnb_gflop_s,ratio. A header line in '#' names the machine.
set -e
build=$1
python=$2
shift 2
[ $# -gt 0 ] || set -- 1 8 16 32 64 128 256 512 2048
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
export OMP_WAIT_POLICY=passive
for m in "$@"; do
  "$build/bench/frozen" --m "$m" --seconds 0.05 >> "$dir/ours"
  "$python" "$here/rivals/frozen_torch.py" --m "$m" 2> /dev/null >> "$dir/rivals"
done
grep '^#' "$dir/ours" | head -n 1
echo "side,shape,m,path,gflop_s,peak_share,gvalues_s,read_share,decode_share,dense_gflop_s,torch_gflop_s,to_torch,bnb_gflop_s,to_bnb"
awk -F, 'BEGIN { OFS = "," }
  NR == FNR { rival[$1, $2, $3, $4] = $6; next }
  /^#/ || $1 == "side" { next }
  { torch = rival["torch", $1, $2, $3]; bnb = rival["bnb", $1, $2, $3]
    to_torch = torch == "" ? "" : sprintf("%.2f", $6 / torch)
    to_bnb = bnb == "" ? "" : sprintf("%.2f", $6 / bnb)
    print $1, $2, $3, $4, $6, $7, $8, $10, $11, $12, torch, to_torch, bnb, to_bnb }' \
  "$dir/rivals" "$dir/ours"

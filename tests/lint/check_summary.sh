#!/bin/sh
# SPDX-License-Identifier: MIT
# check_summary.sh ROOT: tests/summarise adds up right, tells reasons, and never takes silence for success.
set -u
summarise=${1:?usage: check_summary.sh ROOT}/tests/summarise
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
failed=0
cat >"$dir/log.json" <<'END'
{"name": "unit:a", "stdout": "fine\n", "result": "OK", "returncode": 0}
{"name": "unit:b", "stdout": "says \"result\": \"FAIL\"\n", "result": "OK"}
{"name": "unit:c", "stdout": "line\nneeds AVX-512\n\n", "result": "SKIP"}
{"name": "unit:d", "result": "TIMEOUT"}
END
printf 'noise\nSKIP x: no network\n7 passed, 0 failed, 1 skipped\n' >"$dir/other.log"
printf '7 passed' >"$dir/cut.log"

# expect EXIT LAST_LINE ARGUMENT...
expect() {
    code=$1 last=$2
    shift 2
    "$summarise" "$@" >"$dir/out" 2>&1
    [ $? -eq "$code" ] && [ "$(tail -n 1 "$dir/out")" = "$last" ] ||
        { echo "$*: expected exit $code and '$last', found:"; cat "$dir/out"; failed=1; }
}
expect 0 "7 passed, 0 failed, 1 skipped" o="$dir/other.log"
expect 1 "9 passed, 1 failed, 2 skipped" m="$dir/log.json" o="$dir/other.log"
grep -q '^SKIP m/unit:c: needs AVX-512$' "$dir/out" || { echo "no reason for the skip"; failed=1; }
grep -q '^FAIL m/unit:d (timeout)$' "$dir/out" || { echo "the failure is not named"; failed=1; }
expect 1 "0 passed, 1 failed, 0 skipped" c="$dir/cut.log"
expect 1 "7 passed, 1 failed, 1 skipped" n="$dir/none.log" o="$dir/other.log"
exit $failed

# SPDX-License-Identifier: MIT
# lib.sh: what the shell tests share. Usage in a test: . "$(dirname "$0")/lib.sh"; then expect..., end with `finish`.
# HANMIX names the program; SOURCE the source tree. Each test works in a fresh folder $dir, which is the working directory.
set -u
: "${HANMIX:?the program to test}" "${SOURCE:?the source tree}"
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 2
failures=0

fail() { echo "FAIL: $*"; failures=$((failures + 1)); }

# expect CODE COMMAND...: runs it with out and err in files of these names, and checks the exit code.
expect() {
    wanted=$1
    shift
    "$@" >out 2>err </dev/null
    code=$?
    if grep -qE 'Sanitizer|runtime error:' err; then
        fail "$*: a sanitizer reports"
        sed 's/^/  err: /' err | head -n 40
    fi
    [ "$code" -eq "$wanted" ] && return 0
    fail "$*: exit $code, expected $wanted"
    sed 's/^/  out: /' out | head -n 20
    sed 's/^/  err: /' err | head -n 20
    return 1
}
# has FILE TEXT: a line of the file holds the text.
has() { grep -qF -- "$2" "$1" || { fail "'$2' is not in $1:"; sed 's/^/  /' "$1" | head -n 20; }; }
# hasnt FILE TEXT
hasnt() { if grep -qF -- "$2" "$1"; then fail "'$2' is in $1"; fi; }
# one_sentence: err holds one line
one_sentence() { [ "$(wc -l <err)" -eq 1 ] || { fail "not one sentence on stderr:"; sed 's/^/  /' err; }; }
# refused CODE TEXT STAGE SETTINGS...: the stage ends with that code and one sentence that holds TEXT, and leaves nothing behind
refused() {
    refused_code=$1 refused_text=$2
    shift 2
    rm -rf x x.partial
    expect "$refused_code" "$HANMIX" stage "$@" --out x --quiet
    has err "$refused_text"
    one_sentence
    gone x x.partial x.lock .x.old
}
# fine STAGE SETTINGS...: the stage ends well, its folder is x
fine() { rm -rf x x.partial; expect 0 "$HANMIX" stage "$@" --out x --quiet; there x/report.json; }
# tensors FILE HEADER DATA_BYTES: a safetensors file with that header and so many zeros
tensors() {
    tensors_len=$(printf %s "$2" | wc -c)
    printf "\\$(printf %03o $((tensors_len % 256)))\\$(printf %03o $((tensors_len / 256 % 256)))\\0\\0\\0\\0\\0\\0%s" "$2" >"$1"
    head -c "$3" /dev/zero >>"$1"
}
# spoil FILE OFFSET BYTES: overwrite there (printf escapes); an offset below 0 counts from the end
spoil() {
    spoil_at=$2
    [ "$spoil_at" -ge 0 ] || spoil_at=$(($(wc -c <"$1") + spoil_at))
    printf "$3" | dd of="$1" bs=1 seek="$spoil_at" conv=notrunc 2>/dev/null
}
# same A B
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
# there PATH..., gone PATH...
there() { for path; do [ -e "$path" ] || fail "$path is not there"; done; }
gone() { for path; do [ ! -e "$path" ] || fail "$path is there"; done; }
# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
    tries=$(($1 * 20))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { fail "waited in vain for: $*"; return 1; }
        sleep 0.05
    done
}
skip() { echo "$*"; exit 77; }
finish() { [ $failures -eq 0 ] || { echo "$failures failures"; exit 1; }; exit 0; }

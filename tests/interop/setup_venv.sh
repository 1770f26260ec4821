#!/bin/sh
# SPDX-License-Identifier: MIT
# setup_venv.sh DIR: a virtual environment with the pinned tools of requirements.txt; nothing is done when it is current.
set -eu
dir=${1:?usage: setup_venv.sh DIR}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
if [ -f "$dir/requirements.txt" ] && cmp -s "$here/requirements.txt" "$dir/requirements.txt"; then
    exit 0
fi
echo "installing the tools of tests/interop/requirements.txt into $dir"
"$python" -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
cp "$here/requirements.txt" "$dir/requirements.txt" # written last: an interrupted install is begun again

#!/usr/bin/env bash
# Copy what a run has published to a folder: the outputs, and the manifest last. For publish.then.
set -euo pipefail
export LC_ALL=C.UTF-8

usage() {
    cat <<'TEXT'
usage: copy_to_folder.sh FOLDER MANIFEST

Copies the outputs that a manifest names from beside it to FOLDER, which must exist, and the
manifest last: whoever sees it there has all of them. Each file gets its name by a rename, once it
is on the disk and its SHA-256 is that of the manifest. What is there already is left as it is, so
it may be killed and run again.
TEXT
}

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

case ${1-} in -h | --help) usage && exit 0 ;; esac
(($# == 2)) || { usage >&2 && exit 2; }
[[ $1 == /* ]] && target=$1 || target=./$1
[[ $2 == /* ]] && manifest=$2 || manifest=./$2
[[ -d $target ]] || fail "no such folder: $target"
[[ -f $manifest ]] || fail "no such manifest: $manifest"
source=${manifest%/*}

# The Python of ds-flow's environment, or else any other.
python=$(dirname "${BASH_SOURCE[0]}")/../../.venv/bin/python
[[ -x $python ]] || python=python3

part=$target/.ds-flow_${manifest##*/}.part
trap 'rm -f -- "$part"' EXIT

hash_of() { # of a file; nothing if there is none
    [[ ! -f $1 || -L $1 ]] || sha256sum <"$1" | cut -d ' ' -f 1
}

copy() { # NAME SHA256
    local name=$1 wanted=$2
    [[ $(hash_of "$target/$name") != "$wanted" ]] || return 0
    rm -f -- "$part"
    cp -- "$source/$name" "$part"
    sync -- "$part"
    [[ $(hash_of "$part") == "$wanted" ]] || fail "$name: its bytes are not those that were published"
    mv -f -T -- "$part" "$target/$name"
}

# Names and hashes, each ended by a NUL byte.
read_outputs='
import json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    outputs = json.load(file)["outputs"]
for one in outputs:
    if "/" in one["name"] or one["name"].startswith("."):
        sys.exit("not the name of an output: " + ascii(one["name"]))
    sys.stdout.buffer.write("\0".join((one["name"], one["sha256"], "")).encode())
'
mapfile -d '' -t outputs < <("$python" -I -c "$read_outputs" "$manifest")
wait "$!" # its failure is one here
for ((i = 0; i < ${#outputs[@]}; i += 2)); do
    copy "${outputs[i]}" "${outputs[i + 1]}"
done
sync -- "$target" # the outputs' names, before that of the manifest
wanted=$(sha256sum <"$manifest" | cut -d ' ' -f 1) # also of a link, and a failure is one here
copy "${manifest##*/}" "$wanted"
sync -- "$target"

#!/usr/bin/env bash
# Combine CSV files that have the same header into one: the header once, then all rows in order.
set -euo pipefail
export LC_ALL=C # bytes, whatever the encoding

usage() {
    cat <<'TEXT'
usage: combine.sh OUTPUT [INPUT...]

Writes the rows of all inputs, in order, under their common header to OUTPUT: at once and whole,
or not at all. Without INPUT, reads their names from standard input, each ended by a NUL byte.
Without any, writes nothing. An input that is missing, empty or has another header is named on
standard error; nothing is written then, and the exit code is 1; 75 if a disk takes no more.
TEXT
}

fail() {
    printf 'combine.sh: %s\n' "$1" >&2
    exit 1
}

case ${1-} in
    -h | --help) usage && exit 0 ;;
    '') usage >&2 && exit 2 ;;
    /*) output=$1 ;;
    *) output=./$1 ;; # so that no command takes it for an option
esac
shift

# A full disk has its own exit code: if the log is on it, too, the failed tool's message is lost. What
# this script has written still fills the disk, so a probe shows whether it is full.
end() {
    local code=$1 message probe=${output%/*}/.${output##*/}.probe
    if ((code > 0 && code < 128)); then
        message=$({ head -c 65536 /dev/zero >"$probe"; } 2>&1) || case $message in
            *'No space left'* | *'quota exceeded'* | *'Read-only file system'*) code=75 ;;
        esac
    fi
    rm -rf -- "$probe" ${scratch:+"$scratch"} ${partial:+"$partial"}
    exit "$code"
}

partial=''
scratch=''
trap 'end $?' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
scratch=$(mktemp -d)

if (($# > 0)); then printf '%s\0' "$@"; else cat; fi |
    sed -z 's|^[^/]|./&|' >"$scratch/inputs"
mapfile -d '' inputs <"$scratch/inputs"
if ((${#inputs[@]} == 0)); then
    printf 'combine.sh: no input, so nothing is written\n' >&2
    exit 0
fi

[[ ! -d $output ]] || fail "$output: is a directory"
for input in "${inputs[@]}"; do
    if [[ ! -s $input || ! -f $input || ! -r $input ]]; then
        [[ -e $input ]] || fail "$input: no such file"
        [[ -f $input && -r $input ]] || fail "$input: not a file that can be read"
        fail "$input: is empty"
    fi
    [[ ! $input -ef $output ]] || fail "$input: is also the output"
done

# Inputs that lack their last newline get a copy that has it.
parts=("${inputs[@]}")
last_bytes=$(xargs -0 tail -q -c 1 -- <"$scratch/inputs" | tr -c '\n' 'x' | tr '\n' '.')
if [[ $last_bytes == *x* ]]; then
    for index in "${!inputs[@]}"; do
        [[ ${last_bytes:index:1} == x ]] || continue
        parts[index]=$scratch/$index
        { cat -- "${inputs[index]}" && printf '\n'; } >"${parts[index]}"
    done
fi
printf '%s\0' "${parts[@]}" >"$scratch/parts"

# The header is the first record: it ends with the first line after which no quote is open.
header_bytes=$(awk '
    { bytes += length($0) + 1; quotes += gsub(/"/, "") }
    quotes % 2 == 0 { print bytes; exit }
' <"${parts[0]}")
[[ $header_bytes ]] || fail "${inputs[0]}: has no whole header"
head -c "$header_bytes" -- "${parts[0]}" >"$scratch/header"

# One stream of all headers against the first one repeated: no process an input.
if ! cmp -s \
    <(xargs -0 head -q -c "$header_bytes" -- <"$scratch/parts" 2>/dev/null) \
    <(yes -- "$(<"$scratch/header")" | head -c "$((header_bytes * ${#parts[@]}))"); then
    IFS= read -r -N "$header_bytes" header <"$scratch/header"
    for index in "${!parts[@]}"; do
        IFS= read -r -N "$header_bytes" start <"${parts[index]}" || true # shorter ones end early
        [[ $start == "$header" ]] || fail "${inputs[index]}: its header is not that of ${inputs[0]}"
    done
    fail 'an input changed while it was read'
fi

partial=$(mktemp -- "${output%/*}/.${output##*/}.XXXXXX")
chmod -- "$(printf '%o' "$((0666 & ~$(umask)))")" "$partial" # mktemp keeps others out
{
    cat -- "$scratch/header"
    xargs -0 tail -q -c "+$((header_bytes + 1))" -- <"$scratch/parts"
} >"$partial"
# This job's outcome may survive a power loss, so the file must, too.
sync -- "$partial"
mv -fT -- "$partial" "$output"
sync -- "${output%/*}"

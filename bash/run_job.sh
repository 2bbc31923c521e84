#!/usr/bin/env bash
# run_job.sh ROUND INDEX...: run jobs of a round, one after the other, each at most once.
#
# ROUND/INDEX.args holds a job's command, NUL-separated; ROUND/INDEX.stdin, if there, is its input.
# ROUND/env, if there, holds variables for all of them. A job is claimed first (INDEX.claim: host, id
# and time; an existing claim means that it ran or runs elsewhere), its output goes to INDEX.log, and
# its exit code to INDEX.exit by one rename, so that whoever asks later, from any host, after any crash,
# reads a whole verdict or none. INDEX.starved is there before it if the kernel killed the job for want
# of memory. Scratch files go into the folder tmp of the batch's work directory, and with it.
set -u
# shellcheck source=bash/oom_kills.sh
source "${BASH_SOURCE[0]%/*}/oom_kills.sh"
round=$1
shift
mask=$(umask)
id=${LSB_JOBID:-$$}
((${LSB_JOBINDEX:-0})) && id+="[$LSB_JOBINDEX]"

# Builtins where there are some: an array may start a thousand of these at once.
run_job() {
    local index=$1 args code before log stdin=/dev/null
    set -o noclobber
    { printf '%s %s %(%s)T\n' "$HOSTNAME" "$id" -1 >"$round/$index.claim"; } 2>/dev/null || return 0
    set +o noclobber
    mapfile -d '' -t args <"$round/$index.args"
    ((${#args[@]})) || return # lost with the power: to run nothing is no success
    [[ -e $round/$index.stdin ]] && stdin=$round/$index.stdin
    count_oom_kills
    before=$oom_kills
    umask 077 # what a job prints is for this user alone
    exec {log}>"$round/$index.log"
    umask "$mask"
    "${args[@]}" <"$stdin" >&"$log" 2>&1 {log}>&-
    code=$?
    exec {log}>&-
    count_oom_kills
    ((code == 137 && oom_kills > before)) && : >"$round/$index.starved"
    printf '%s %(%s)T\n' "$code" -1 >"$round/$index.exit.part" &&
        mv -- "$round/$index.exit.part" "$round/$index.exit"
    return "$code"
}

# shellcheck source=/dev/null
[[ -e $round/env ]] && . "$round/env"
scratch=${round%/jobs/*}/tmp
[[ -d $scratch ]] && export TMPDIR=$scratch
status=0
for index; do
    run_job "$index" || status=$?
done
exit "$status"

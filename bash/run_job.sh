#!/usr/bin/env bash
# run_job.sh ROUND INDEX...: run jobs of a round, one after the other, each at most once.
#
# In ROUND it reads:
#   INDEX.args     the job's command, NUL-separated
#   INDEX.stdin    its standard input, if the file exists
#   env            variables for all jobs, if the file exists
# and writes, in this order:
#   INDEX.claim    host, id and time; if the file exists, the job runs or ran elsewhere
#   INDEX.log      what the job prints
#   INDEX.starved  if the kernel killed the job because memory ran out: how much there was
#   INDEX.exit     its exit code and time, by one rename: a reader finds it whole or not at all
# Temporary files go to the folder tmp of the batch's work directory, and are removed with it.
set -u
# shellcheck source=bash/oom_kills.sh
source "${BASH_SOURCE[0]%/*}/oom_kills.sh"
round=$1
shift
mask=$(umask)
id=${LSB_JOBID:-$$}
((${LSB_JOBINDEX:-0})) && id+="[$LSB_JOBINDEX]"
[[ ${SLURM_ARRAY_TASK_ID-} ]] && id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

# Builtins where possible: an array may start a thousand of these at once.
run_job() {
    local index=$1 args code before log stdin=/dev/null
    set -o noclobber
    { printf '%s %s %(%s)T\n' "$HOSTNAME" "$id" -1 >"$round/$index.claim"; } 2>/dev/null || return 0
    set +o noclobber
    mapfile -d '' -t args <"$round/$index.args"
    ((${#args[@]})) || return # lost with the power: running nothing is no success
    [[ -e $round/$index.stdin ]] && stdin=$round/$index.stdin
    count_oom_kills
    before=$oom_kills
    umask 077 # only this user may read what a job prints
    exec {log}>"$round/$index.log"
    umask "$mask"
    "${args[@]}" <"$stdin" >&"$log" 2>&1 {log}>&-
    code=$?
    exec {log}>&-
    count_oom_kills
    ((code == 137 && oom_kills > before)) && memory_allowed >"$round/$index.starved"
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

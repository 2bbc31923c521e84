#!/usr/bin/env bash
# run_attempt.sh ATTEMPT_DIR COMMAND...: run one attempt and record its exit code by one rename.
#
# This shell leads the attempt's process group. An interrupt of the group ends COMMAND, not this
# shell, which then records how COMMAND ended. If memory runs out, the kernel kills a run's processes
# before the daemon, and ATTEMPT_DIR/starved records that.
set -u
# shellcheck source=bash/oom_kills.sh
source "${BASH_SOURCE[0]%/*}/oom_kills.sh"
attempt=$1
shift
trap : INT
echo 500 2>/dev/null >/proc/self/oom_score_adj
count_oom_kills
before=$oom_kills
"$@"
code=$?
count_oom_kills
((code != 0 && oom_kills > before)) && memory_allowed >"$attempt/starved"
printf '%s\n' "$code" >"$attempt/exit_code.part" && mv -- "$attempt/exit_code.part" "$attempt/exit_code"
exit "$code"

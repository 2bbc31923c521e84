#!/usr/bin/env bash
# run_attempt.sh ATTEMPT_DIR COMMAND...: run one attempt, and leave its exit code by one rename.
#
# It leads the attempt's process group. An interrupt of the group is for COMMAND; this shell
# outlives it to record how it ended. Where memory runs out, the kernel is to take a run's processes
# before the daemon; ATTEMPT_DIR/starved then says that it did.
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
((code != 0 && oom_kills > before)) && : >"$attempt/starved"
printf '%s\n' "$code" >"$attempt/exit_code.part" && mv -- "$attempt/exit_code.part" "$attempt/exit_code"
exit "$code"

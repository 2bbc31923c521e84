#!/usr/bin/env bash
# run_attempt.sh ATTEMPT_DIR COMMAND...: run one attempt, and leave its exit code by one rename.
#
# It leads the attempt's process group. An interrupt of the group is for COMMAND; this shell
# outlives it to record how it ended.
set -u
attempt=$1
shift
trap : INT
"$@"
code=$?
printf '%s\n' "$code" >"$attempt/exit_code.part" && mv -- "$attempt/exit_code.part" "$attempt/exit_code"
exit "$code"

#!/usr/bin/env bash
# oom_kills.sh, to be sourced: a SIGKILL does not tell who sent it, but the kernel counts its own.

# Count in oom_kills the processes of this one's cgroup that the kernel killed because memory ran out.
count_oom_kills() {
    local names path file word number
    oom_kills=0
    while IFS=: read -r _ names path; do
        case $names in
            '') file=/sys/fs/cgroup$path/memory.events ;; # version 2
            memory) file=/sys/fs/cgroup/memory$path/memory.oom_control ;;
            *) continue ;;
        esac
        [[ -r $file ]] || continue
        while read -r word number; do
            # shellcheck disable=SC2034 # the sourcing script reads it
            [[ $word == oom_kill ]] && oom_kills=$number
        done <"$file"
    done </proc/self/cgroup
}

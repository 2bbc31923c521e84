#!/usr/bin/env bash
# oom_kills.sh: to be sourced. A SIGKILL does not say whose it was, but the kernel counts its own.

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
            # shellcheck disable=SC2034 # for whoever sources this
            [[ $word == oom_kill ]] && oom_kills=$number
        done <"$file"
    done </proc/self/cgroup
}

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

# Print how much memory this one may have, in MB: "512 group" for the least that its cgroup and those
# around it allow, or "16000 host" for all that there is.
memory_allowed() {
    local names path root file bytes least=0 total=0
    while IFS=: read -r _ names path; do
        case $names in
            '') root=/sys/fs/cgroup file=memory.max ;;
            memory) root=/sys/fs/cgroup/memory file=memory.limit_in_bytes ;;
            *) continue ;;
        esac
        while :; do
            bytes=
            [[ -r $root$path/$file ]] && read -r bytes <"$root$path/$file"
            # Version 1 has a number of 19 digits for no limit.
            [[ $bytes =~ ^[0-9]{1,18}$ ]] && ((least == 0 || bytes < least)) && least=$bytes
            [[ -n $path ]] || break
            path=${path%/*}
        done
    done </proc/self/cgroup
    while read -r names bytes _; do
        [[ $names == MemTotal: ]] && total=$((bytes * 1024))
    done </proc/meminfo
    if ((least == 0 || (total > 0 && total < least))); then
        printf '%s host\n' $((total >> 20))
    else
        printf '%s group\n' $((least >> 20))
    fi
}

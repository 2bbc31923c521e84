#!/usr/bin/env bash
# systemd_box.sh STATE CHECKOUT CGROUP...: become systemd on a throw-away view of this machine.
#
# Started by systemd_box.py as the first process of a PID namespace. What is written below / goes to
# a tmpfs and is lost; CHECKOUT is there read-only. CGROUP... are its own cgroups, one a hierarchy.
set -euo pipefail

# None of the capabilities that act on the host's kernel, clock or disks.
kept=(setpriv --inh-caps=-all "--bounding-set=-sys_time,-sys_module,-sys_rawio,-sys_boot,-mknod,-syslog,-wake_alarm,-audit_control")

if [[ $1 != --inside ]]; then
    for cgroup in "${@:3}"; do
        echo 0 >"$cgroup/cgroup.procs" # 0 is whoever writes
    done
    read -r pid _ </proc/self/stat # /proc is still the host's
    echo "$pid" >"$1/pid.part"
    mv "$1/pid.part" "$1/pid"
    exec unshare --mount --propagation private --ipc --uts --cgroup -- bash "$0" --inside "$@"
fi

state=$2 checkout=$3
root=$state/box/root
etc=$root/etc/systemd

mount_cgroups() {
    local all=$root/sys/fs/cgroup names
    if [[ -e /sys/fs/cgroup/cgroup.procs ]]; then
        mount -t cgroup2 cgroup2 "$all"
        return
    fi
    mount -t tmpfs -o mode=755 tmpfs "$all"
    while IFS=: read -r _ names _; do
        case $names in
            '') mkdir "$all/unified" && mount -t cgroup2 cgroup2 "$all/unified" ;;
            name=systemd) mkdir "$all/systemd" && mount -t cgroup -o none,name=systemd cgroup "$all/systemd" ;;
            *) mkdir "$all/$names" && mount -t cgroup -o "$names" cgroup "$all/$names" ;;
        esac
    done </proc/self/cgroup
}

mount_devices() {
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero full random urandom tty; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root"/dev/{pts,shm}
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    ln -s /proc/self/fd "$root/dev/fd"
}

# Nothing starts but the journal and what a test starts.
write_units() {
    rm -rf "$root"/{etc,lib,usr/lib}/systemd/system{,-generators}/*.{wants,requires} \
        "$root"/{etc,lib,usr/lib}/systemd/system-{generators,environment-generators} \
        "$root/var/log/journal"
    mkdir -p "$etc/system" "$etc/journald.conf.d"
    printf '%s\n' '[Unit]' Requires=basic.target Wants=systemd-journald.service >"$etc/system/box.target"
    ln -s /dev/null "$etc/system/docker.service" # it would change the host's network
    # A test reads every line: none may be dropped for coming too fast.
    printf '%s\n' '[Journal]' Storage=volatile RateLimitBurst=0 >"$etc/journald.conf.d/box.conf"
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
}

mount -t tmpfs -o mode=755 tmpfs "$state/box"
mkdir "$root" "$state/box/upper" "$state/box/work"
mount -t overlay -o "lowerdir=/,upperdir=$state/box/upper,workdir=$state/box/work" overlay "$root"
write_units
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys" # the host's kernel settings
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount_cgroups
mount_devices
mkdir -p "$root$checkout"
mount --bind -o ro "$checkout" "$root$checkout"

cd "$root"
pivot_root . . # the old root lies on top of the new one ...
umount -l .    # ... and goes
cd /
mount --make-rshared /
exec env -i PATH="$PATH" LANG=C.UTF-8 container=ds-flow-box "${kept[@]}" \
    /lib/systemd/systemd --system --unit=box.target systemd.show_status=no </dev/null

#!/usr/bin/env bash
# install.sh install PREFIX [USER [GROUP]]: make this checkout the service ds-flow under PREFIX, run as
# USER, with an inbox for the members of GROUP.
# install.sh uninstall PREFIX: take it away.
#
# Root writes to PREFIX and runs what lies in it, so it and all above it must be root's alone.
# To install again is to upgrade. What is the team's own is kept by both: config/, .env, data/, out/,
# log/, .metaflow/, a flows/transforms.py that was changed there, and other files in flows/.
set -euo pipefail
umask 022

verb=${1-} prefix=${2%/}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
unit=/etc/systemd/system/ds-flow.service
page=/etc/systemd/system/ds-flow-web.service # installed, and off until somebody enables it
user=${3-} droppers=${4-}
[[ $user || ! -e $unit ]] || user=$(sed -n 's/^User=//p' "$unit") # of the last installation
user=${user:-ds-flow}
group=$(id -gn "$user" 2>/dev/null) || group=$user # its members are operators
cd / # nothing is looked for in the current folder
own=flows/transforms.py
list=$prefix/.installed # of every file put there, with its hash

fail() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

has_systemd() { [[ -d /run/systemd/system ]]; }

# A service under ProtectHome= and another user can run no Python that lies in a home.
find_python() {
    local python
    for python in /usr/{local/,}bin/python3{.14,.13,.12,.11,}; do
        case $(realpath -q "$python") in /home/* | /root/* | '') continue ;; esac
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
}

shipped() {
    cd "$checkout"
    find daemon flows bash systemd docs pyproject.toml LICENSE \
        README.md ARCHITECTURE.md CHANGELOG.md SECURITY.md \
        -name __pycache__ -prune -o -type f -print
}

installed() { # what an earlier installation has put there
    [[ ! -e $list ]] || cut -c 67- "$list" | grep -Ev '(^|/)\.\.(/|$)' || true
}

is_own() { # whether the file there is not the one that was installed
    [[ -e $prefix/$1 ]] && ! (cd "$prefix" && grep -F "  $1" "$list" | sha256sum --check --status) 2>/dev/null
}

refuse() { # PATH REASON
    fail "$1 $2. Root would trust it. Look at it, then remove it, or: chown -h root: '$1'; chmod go-w '$1'"
}

# Group root may write: whoever is in it is trusted with this host.
foreign=('(' ! -user root -o ! -type l '(' -perm -002 -o -perm -020 ! -gid 0 ')' ')')

# Nothing in the prefix is written to or run before this has found that nobody but root could change it.
# Root neither writes to nor runs what a team may own: single files of config/ and flows/, and folders
# of its own beside them.
refuse_foreign() {
    local place found keep=() its_user others=()
    its_user=$(id -u "$user" 2>/dev/null) || its_user=0
    place=$(realpath -m -- "$prefix")
    [[ $place == "$prefix" ]] || fail "$prefix leads through a link: say PREFIX=$place"
    while
        found=$(find "$place" -maxdepth 0 "${foreign[@]}" 2>/dev/null || true)
        [[ ! $found ]] || refuse "$place" "is not root's alone"
        [[ $place != / ]]
    do
        place=$(dirname "$place")
    done
    [[ -d $prefix ]] || return 0
    for place in daemon flows bash systemd config .venv .python; do
        others+=(! -name "$place")
    done
    keep=(-type d -path "$prefix/*" ! -path "$prefix/*/*" "${others[@]}" -prune -o)
    for place in data out log .metaflow; do
        keep+=(-path "$prefix/$place" -type l -user root -prune -o)
    done
    keep+=(-path "$prefix/.env" -type f -links 1 -uid "$its_user" -prune -o)
    keep+=('(' -path "$prefix/config/*" -o -path "$prefix/flows/*" ')' -type f -links 1 -prune -o)
    found=$(find "$prefix" -mindepth 1 "${keep[@]}" "${foreign[@]}" -print -quit)
    [[ ! $found ]] || refuse "$found" "is not root's alone"
    found=$(find "$prefix" -mindepth 1 "${keep[@]}" -path "$prefix/.venv/*" -prune -o \
        -path "$prefix/.python/*" -prune -o '(' -type l -o -type f -links +1 ')' -print -quit)
    [[ ! $found ]] || refuse "$found" "is a link"
}

make_accounts() {
    getent passwd "$user" >/dev/null ||
        useradd --system --user-group --no-create-home --home-dir "$prefix" --shell /usr/sbin/nologin "$user"
    group=$(id -gn "$user")
    [[ $droppers ]] || droppers=$(group_of_inbox)
    [[ $droppers != "$group" ]] || fail "the group $group reads outputs and logs: droppers need another one"
    getent group "$droppers" >/dev/null || groupadd --system "$droppers"
    add_member "$user" "$droppers"
}

group_of_inbox() { # of the last installation, if droppers had one of their own
    local now
    now=$(stat --format=%G "$prefix/data" 2>/dev/null) || now=root
    case $now in
        "$group" | root | UNKNOWN) echo "$user-drop" ;;
        *) echo "$now" ;;
    esac
}

add_member() { # USER GROUP
    [[ " $(id -Gn "$1") " == *" $2 "* ]] || gpasswd --add "$1" "$2" >/dev/null ||
        echo "Add the user $1 to the group $2 where that is kept" >&2
}

# Older versions let the service's own group drop files. Now its members read outputs and logs, so
# whoever was let in to drop is moved. A group that is not the user's own is the site's.
move_droppers() {
    local names name
    [[ -d $prefix/data && $(stat --format=%G "$prefix/data") == "$group" ]] || return 0
    ! [[ -d $prefix/out ]] || rights 750 "$group" "$prefix/out" # older versions opened it to all
    if [[ $group != "$user" ]]; then
        echo "The members of $group read outputs and logs. To let one drop files: gpasswd --add NAME $droppers"
        return
    fi
    IFS=, read -ra names <<<"$(getent group "$group" | cut -d : -f 4)"
    for name in "${names[@]}"; do
        add_member "$name" "$droppers"
        gpasswd --delete "$name" "$group" >/dev/null || continue
        echo "Moved $name from the group $group to $droppers: who drops files reads no logs"
        echo "If $name is an operator: gpasswd --add $name $group"
    done
}

rights() { # MODE GROUP FOLDER: a link to a folder is root's, and so is the say over where it leads
    if [[ -L $3 ]]; then
        echo "$3 is a link: the rights of where it leads to stay as they are"
    else
        install -d -o "$user" -g "$2" -m "$1" "$3"
    fi
}

make_folders() {
    install -d "$prefix"
    install -d -g "$group" -m 750 "$prefix/config" # a webhook's address may hold a token
    [[ -d $prefix/out ]] || rights 750 "$group" "$prefix/out"
    rights 750 "$group" "$prefix/log"
    rights 750 "$group" "$prefix/.metaflow"
    rights 3770 "$droppers" "$prefix/data" # nobody removes or replaces another one's files
}

# What is dropped can be read by the service and its operators, whatever the dropper's umask is, and
# be read or changed by no other dropper.
share_inbox() {
    [[ -L $prefix/data ]] || "$prefix/.venv/bin/python" -I "$prefix/systemd/inbox_acl.py" "$prefix/data" "$group"
}

copy_files() {
    local old=() new name kept=()
    mapfile -t old < <(installed)
    mapfile -t new < <(shipped)
    if is_own "$own"; then
        echo "Kept $prefix/$own, which was changed there"
        kept=(--exclude="$own")
    fi
    tar -C "$checkout" "${kept[@]}" -cf - -- "${new[@]}" |
        tar -C "$prefix" -xf - --no-same-owner --no-same-permissions
    (cd "$checkout" && sha256sum -- "${new[@]}") >"$list"
    for name in "${old[@]}"; do # what this version no longer has
        [[ " ${new[*]} " == *" $name "* ]] || rm -f -- "$prefix/$name"
    done
    install -m 644 "$checkout/config/settings.yaml" "$prefix/config/settings.default.yaml"
    [[ -e $prefix/config/settings.yaml ]] ||
        install -m 644 "$checkout/config/settings.yaml" "$prefix/config/settings.yaml"
    # It holds secrets; older versions let the group read it.
    [[ -e $prefix/.env ]] || install -m 400 "$checkout/.env.example" "$prefix/.env"
    chmod 400 "$prefix/.env"
    chown "$user:" "$prefix/.env"
}

make_environment() {
    local python choice
    python=$(find_python)
    choice=(--python "$python")
    [[ $python ]] || choice=(--python 3.13 --python-preference only-managed)
    UV_PROJECT_ENVIRONMENT=$prefix/.venv UV_PYTHON_INSTALL_DIR=$prefix/.python UV_LINK_MODE=copy \
        "$checkout/.ci/uv" sync --quiet --no-dev --project "$prefix" "${choice[@]}"
    chmod -R go=rX "$prefix/.venv"
    "$prefix/.venv/bin/python" -I -m compileall -q "$prefix/daemon" "$prefix/flows"
}

put_units() {
    local place
    for place in "$unit" "$page"; do
        sed -e "s#/opt/ds-flow#$prefix#g" -e "s#^User=.*#User=$user#" -e "s#^Group=.*#Group=$group#" \
            "$checkout/systemd/${place##*/}" >"$place"
    done
    if has_systemd; then systemctl daemon-reload; fi
}

install_all() {
    local was_active=''
    refuse_foreign
    if has_systemd && systemctl --quiet is-active ds-flow; then
        was_active=1
        trap 'echo "ds-flow is stopped, and not installed whole: install again" >&2' EXIT
        systemctl stop ds-flow # no run may see half of the old version and half of the new
    fi
    make_accounts
    move_droppers
    make_folders
    copy_files
    make_environment
    share_inbox
    put_units
    trap - EXIT
    if has_systemd; then systemctl try-restart ds-flow-web; fi
    if [[ $was_active ]]; then
        systemctl start ds-flow
        echo "Upgraded and started again: $prefix"
    else
        echo "Installed in $prefix. Next: edit $prefix/config/settings.yaml; systemctl enable --now ds-flow"
    fi
}

uninstall_all() {
    local names=() name
    refuse_foreign
    [[ -e $list ]] || fail "nothing is installed in $prefix"
    for name in ds-flow ds-flow-web; do # older versions had no page
        ! has_systemd || [[ ! -e /etc/systemd/system/$name.service ]] ||
            systemctl disable --quiet --now "$name"
    done
    rm -f "$unit" "$page"
    if has_systemd; then systemctl daemon-reload; fi
    mapfile -t names < <(installed)
    for name in "${names[@]}"; do
        if [[ $name != "$own" ]] || ! is_own "$own"; then
            rm -f -- "$prefix/$name"
        fi
    done
    find "$prefix/daemon" "$prefix/flows" -name __pycache__ -prune -exec rm -rf {} +
    rm -rf "$prefix"/{.venv,.python,uv.lock,.installed,config/settings.default.yaml}
    find "$prefix"/{daemon,flows,bash,systemd} -depth -type d -empty -delete
    echo "Removed from $prefix; kept: config, .env, data, out, log, .metaflow and the user $user with its groups"
}

[[ $prefix =~ ^/[A-Za-z0-9._/-]+$ ]] || fail "PREFIX should be an absolute path of plain characters: '$prefix'"
[[ ! $prefix =~ ^/(home|root)/ ]] || fail "PREFIX may not be in a home: the service sees none"
[[ $EUID == 0 ]] || fail "must be run as root"
case $verb in
    install) install_all ;;
    uninstall) uninstall_all ;;
    *) fail "usage: install.sh install PREFIX [USER [GROUP]] | uninstall PREFIX" ;;
esac

#!/usr/bin/env bash
# install.sh install [--name=NAME] [PREFIX [USER [GROUP]]]: make this checkout the service ds-flow, or
# ds-flow-NAME, under PREFIX, run as USER, with an inbox for the members of GROUP.
# install.sh uninstall [--name=NAME] [--purge] [PREFIX]: take it away; with --purge its data, too.
#
# Root writes to PREFIX and runs what lies in it, so it and all above it must be root's alone.
# To install again is to upgrade. What is the team's own is kept by both: config/, .env, data/, out/,
# log/, .metaflow/, a flows/transforms.py that was changed there, and other files in flows/.
# The units say which services there are, and where. No service touches another one.
set -euo pipefail
umask 022

verb=${1-} called='' purge='' words=()
for word in "${@:2}"; do
    case $word in
        --name=*) called=${word#*=} ;;
        --purge) purge=1 ;;
        *) words+=("$word") ;;
    esac
done
[[ $called != default ]] || called=''
service=ds-flow${called:+-$called}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
units=/etc/systemd/system
unit=$units/$service.service
page=$units/$service-web.service # installed, and off until somebody enables it
cd /                             # nothing is looked for in the current folder
own=flows/transforms.py

fail() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

fault() { # of a NAME: ds-flow-web is a page, ds-flow-drop a group
    [[ ! $1 =~ ^[a-z][a-z0-9]{0,15}$ || $1 == web || $1 == drop ]]
}

prefix_of() { # UNIT: where a service is installed, or nothing if the unit is none of ours
    sed -nE '\#^ExecStart=/[^ ]*/\.venv/bin/ds-flow serve( |$)# { s#^ExecStart=(/[^ ]*)/\.venv/bin/.*#\1#p; q }' "$1"
}

is_page() { # UNIT: whether make install has put it there
    [[ -f $1 && ! -L $1 ]] && grep -qE '^ExecStart=/[^ ]*/\.venv/bin/ds-flow web( |$)' "$1"
}

user_of() { # UNIT
    sed -n '/^User=/ { s///p; q }' "$1"
}

services() { # the unit of every installed one
    local place
    for place in "$units"/ds-flow.service "$units"/ds-flow-*.service; do
        [[ ! -f $place || -L $place || ! $(prefix_of "$place") ]] || echo "$place"
    done
}

named() { # UNIT: without folder and ending
    basename "$1" .service
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

# A unit, a prefix and a user belong to one service.
refuse_others() {
    local place there mine='' others="is not a unit that make install has put there. Look at it, then remove it"
    [[ ! -e $page && ! -L $page ]] || is_page "$page" || fail "$page $others"
    if [[ -e $unit || -L $unit ]]; then
        [[ -f $unit && ! -L $unit ]] && mine=$(prefix_of "$unit")
        [[ $mine ]] || fail "$unit $others"
        [[ $prefix == "$mine" ]] || fail "$service is installed in $mine. To upgrade or remove it, leave out PREFIX." \
            "For a service beside it, give a NAME. To move it, uninstall it first"
    fi
    while read -r place; do
        [[ $place != "$unit" ]] || continue
        there=$(prefix_of "$place")
        [[ $prefix/ != "$there"/* && $there/ != "$prefix"/* ]] ||
            fail "$there belongs to $(named "$place"): give another PREFIX, or its NAME to upgrade or remove it"
        [[ $verb != install || $(user_of "$place") != "$user" ]] ||
            echo "Note: the user $user runs $(named "$place"), too: each could change what the other has" >&2
    done < <(services)
}

# What an uninstalled service has left is its user's: another one could not read it, nor write to it.
refuse_left() {
    local place owner
    [[ ! -e $unit ]] || return 0
    for place in "$prefix"/{out,.metaflow}; do
        [[ -d $place && ! -L $place ]] || continue
        owner=$(stat --format=%U "$place")
        [[ $owner == root || $owner == "$user" ]] ||
            fail "$place belongs to the user $owner: give SERVICE_USER=$owner to go on with it, or another PREFIX"
    done
}

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
    for place in daemon flows bash systemd docs config .venv .python; do
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

first_settings() { # a service beside others has a name of its own, and its page an address
    local edit=()
    [[ ! $called ]] ||
        edit=(-e "s/^project_name: [^ ]*/project_name: $called/" -e "s#^  listen: [^ ]*#  listen: /run/$service-web/socket#")
    sed "${edit[@]}" -e '' "$checkout/config/settings.yaml" >"$prefix/config/settings.yaml.part"
    mv "$prefix/config/settings.yaml.part" "$prefix/config/settings.yaml"
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
    for name in "${old[@]}"; do # what this version no longer has
        [[ " ${new[*]} " == *" $name "* ]] || rm -f -- "$prefix/$name"
    done
    (cd "$checkout" && sha256sum -- "${new[@]}") >"$list.part" # if this is cut off, the old list stays
    mv "$list.part" "$list"
    install -m 644 "$checkout/config/settings.yaml" "$prefix/config/settings.default.yaml"
    [[ -e $prefix/config/settings.yaml ]] || first_settings
    # Paths in them are those of this service.
    sed -i "s#/opt/ds-flow#$prefix#g" "$prefix"/systemd/drop-ins/{,*/}*.conf
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
        "$checkout/.ci/uv" sync --quiet --no-dev --all-extras --project "$prefix" "${choice[@]}"
    chmod -R go=rX "$prefix/.venv"
    "$prefix/.venv/bin/python" -I -m compileall -q "$prefix/daemon" "$prefix/flows"
}

put_units() {
    local kind place
    for kind in '' -web; do
        place=$units/$service$kind.service
        sed -e "s#/opt/ds-flow#$prefix#g" -e "s#^User=.*#User=$user#" -e "s#^Group=.*#Group=$group#" \
            -e "s#^Description=ds-flow:#Description=$service:#" \
            -e "s#^RuntimeDirectory=.*#RuntimeDirectory=$service-web#" -e "s#/run/ds-flow-web/#/run/$service-web/#g" \
            "$checkout/systemd/ds-flow$kind.service" >"$place.part"
        mv "$place.part" "$place"
    done
    if has_systemd; then systemctl daemon-reload; fi
}

install_all() {
    local was_active=''
    if has_systemd && systemctl --quiet is-active "$service"; then
        was_active=1
        trap 'echo "$service is stopped, and not installed whole: install again" >&2' EXIT
        systemctl stop "$service" # no run may see half of the old version and half of the new
    fi
    make_accounts
    move_droppers
    make_folders
    copy_files
    make_environment
    share_inbox
    put_units
    trap - EXIT
    if has_systemd; then systemctl try-restart "$service-web"; fi
    if [[ $was_active ]]; then
        systemctl start "$service"
        echo "Upgraded $service and started it again: $prefix"
    else
        echo "Installed $service in $prefix. Next: edit $prefix/config/settings.yaml; systemctl enable --now $service"
    fi
}

# The unit goes last: until then the service is listed, and can be uninstalled again.
uninstall_all() {
    local names=() one
    [[ -e $list ]] || fail "nothing is installed in $prefix"
    for one in "$service" "$service-web"; do # older versions had no page
        ! has_systemd || [[ ! -e $units/$one.service ]] || systemctl disable --quiet --now "$one"
    done
    mapfile -t names < <(installed)
    for one in "${names[@]}"; do
        if [[ $one != "$own" ]] || ! is_own "$own"; then
            rm -f -- "$prefix/$one"
        fi
    done
    for one in daemon flows bash systemd docs; do
        [[ -d $prefix/$one ]] || continue # of an uninstallation that was interrupted
        find "$prefix/$one" -name __pycache__ -prune -exec rm -rf {} +
        find "$prefix/$one" -depth -type d -empty -delete
    done
    # What is mounted stays, as what a link leads to.
    [[ ! $purge ]] || rm -rf --one-file-system --preserve-root=all "$prefix"/{config,flows,data,out,log,.metaflow,.env} || true
    rm -rf "$prefix"/{.venv,.python,uv.lock,config/settings.default.yaml}
    rm -f "$unit" "$page"
    if has_systemd; then systemctl daemon-reload; fi
    rm -f "$list" "$list.part"
    say_removed
}

say_removed() {
    local one
    if [[ $purge ]]; then
        rmdir --ignore-fail-on-non-empty "$prefix" || true # it may be a mount
        for one in "$prefix"/{config,flows,data,out,log,.metaflow,.env}; do
            [[ ! -e $one ]] || echo "Kept: $one, which is mounted or could not be removed"
        done
        echo "Removed $service from $prefix with its inputs, outputs, ledger, logs and settings"
        echo "Kept: where links led to, a ledger elsewhere, and the user $user with its groups"
    else
        echo "Removed $service from $prefix; kept: config, .env, data, out, log, .metaflow (so the inputs, outputs," \
            "ledger and logs) and the user $user with its groups"
    fi
    [[ ! -d $units/$service.service.d ]] || echo "Kept: $units/$service.service.d"
}

[[ ! $called ]] || ! fault "$called" || fail "NAME should be a word of at most 16 small letters and digits, not web or drop: '$called'"
prefix=${words[0]-}
[[ $prefix || ! -f $unit ]] || prefix=$(prefix_of "$unit") # of the last installation
prefix=${prefix:-/opt/$service}
prefix=${prefix%/}
user=${words[1]-} droppers=${words[2]-}
[[ $user || ! -f $unit ]] || user=$(user_of "$unit")
user=${user:-$service}
group=$(id -gn "$user" 2>/dev/null) || group=$user # its members are operators
list=$prefix/.installed                            # of every file put there, with its hash
[[ $prefix =~ ^/[A-Za-z0-9._/-]+$ ]] || fail "PREFIX should be an absolute path of plain characters: '$prefix'"
[[ ! $prefix =~ ^/(home|root)/ ]] || fail "PREFIX may not be in a home: the service sees none"
[[ $EUID == 0 ]] || fail "must be run as root"
case $verb in
    install) ;;
    uninstall)
        [[ -e $unit || ${words[0]-} || -e $list ]] ||
            fail "there is no service $service; installed: $(services | xargs -rn 1 basename -s .service | paste -sd , | sed 's/,/, /g')"
        ;;
    *) fail "usage: install.sh install [--name=NAME] [PREFIX [USER [GROUP]]] | uninstall [--name=NAME] [--purge] [PREFIX]" ;;
esac
refuse_others
[[ $verb != install ]] || refuse_left
refuse_foreign
"${verb}_all"

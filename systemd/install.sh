#!/usr/bin/env bash
# install.sh install PREFIX [USER]: make this checkout the service ds-flow under PREFIX, run as USER.
# install.sh uninstall PREFIX: take it away.
#
# To install again is to upgrade. What is the team's own is kept by both: config/, .env, data/, out/,
# log/, .metaflow/, a flows/transforms.py that was changed there, and other files in flows/.
set -euo pipefail
umask 022

verb=${1-} prefix=${2-}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
unit=/etc/systemd/system/ds-flow.service
user=${3-}
[[ $user || ! -e $unit ]] || user=$(sed -n 's/^User=//p' "$unit") # of the last installation
user=${user:-ds-flow}
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
    find daemon flows bash systemd pyproject.toml README.md ARCHITECTURE.md CHANGELOG.md LICENSE \
        -name __pycache__ -prune -o -type f -print
}

is_own() { # whether the file there is not the one that was installed
    [[ -e $prefix/$1 ]] && ! (cd "$prefix" && grep -F "  $1" "$list" | sha256sum --check --status) 2>/dev/null
}

make_user() {
    getent passwd "$user" >/dev/null ||
        useradd --system --user-group --no-create-home --home-dir "$prefix" --shell /usr/sbin/nologin "$user"
}

make_folders() {
    install -d "$prefix" "$prefix/config"
    install -d -o "$user" -g "$group" "$prefix/out"
    install -d -o "$user" -g "$group" -m 750 "$prefix/log" "$prefix/.metaflow"
    install -d -o "$user" -g "$group" -m 2775 "$prefix/data" # members of the group may drop files
}

copy_files() {
    local old=() new name
    [[ -e $list ]] && mapfile -t old < <(cut -c 67- "$list")
    mapfile -t new < <(shipped)
    if is_own "$own"; then
        echo "Kept $prefix/$own, which was changed there"
        cp -- "$prefix/$own" "$prefix/$own.kept"
    fi
    tar -C "$checkout" -cf - -- "${new[@]}" | tar -C "$prefix" -xf - --no-same-owner --no-same-permissions
    (cd "$checkout" && sha256sum -- "${new[@]}") >"$list"
    [[ -e $prefix/$own.kept ]] && mv -- "$prefix/$own.kept" "$prefix/$own"
    for name in "${old[@]}"; do # what this version no longer has
        [[ " ${new[*]} " == *" $name "* ]] || rm -f -- "$prefix/$name"
    done
    install -m 644 "$checkout/config/settings.yaml" "$prefix/config/settings.default.yaml"
    [[ -e $prefix/config/settings.yaml ]] ||
        install -m 644 "$checkout/config/settings.yaml" "$prefix/config/settings.yaml"
    # Members of the group may drop files, and are to read no secret; older versions let them.
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
    "$prefix/.venv/bin/python" -m compileall -q "$prefix/daemon" "$prefix/flows"
}

put_unit() {
    sed -e "s#/opt/ds-flow#$prefix#g" -e "s#^User=.*#User=$user#" -e "s#^Group=.*#Group=$group#" \
        "$checkout/systemd/ds-flow.service" >"$unit"
    if has_systemd; then systemctl daemon-reload; fi
}

install_all() {
    local was_active='' group
    if has_systemd && systemctl --quiet is-active ds-flow; then
        was_active=1
        trap 'echo "ds-flow is stopped, and not installed whole: install again" >&2' EXIT
        systemctl stop ds-flow # no run may see half of the old version and half of the new
    fi
    make_user
    group=$(id -gn "$user")
    make_folders
    copy_files
    make_environment
    put_unit
    trap - EXIT
    if [[ $was_active ]]; then
        systemctl start ds-flow
        echo "Upgraded and started again: $prefix"
    else
        echo "Installed in $prefix. Next: edit $prefix/config/settings.yaml; systemctl enable --now ds-flow"
    fi
}

uninstall_all() {
    local names=() name
    [[ -e $list ]] || fail "nothing is installed in $prefix"
    if has_systemd; then systemctl disable --quiet --now ds-flow; fi
    rm -f "$unit"
    if has_systemd; then systemctl daemon-reload; fi
    mapfile -t names < <(cut -c 67- "$list")
    for name in "${names[@]}"; do
        if [[ $name != "$own" ]] || ! is_own "$own"; then
            rm -f -- "$prefix/$name"
        fi
    done
    find "$prefix/daemon" "$prefix/flows" -name __pycache__ -prune -exec rm -rf {} +
    rm -rf "$prefix"/{.venv,.python,uv.lock,.installed,config/settings.default.yaml}
    find "$prefix"/{daemon,flows,bash,systemd} -depth -type d -empty -delete
    echo "Removed from $prefix; kept: config, .env, data, out, log, .metaflow and the user $user"
}

[[ $prefix =~ ^/[A-Za-z0-9._/-]+$ ]] || fail "PREFIX should be an absolute path of plain characters: '$prefix'"
[[ ! $prefix =~ ^/(home|root)/ ]] || fail "PREFIX may not be in a home: the service sees none"
[[ $EUID == 0 ]] || fail "must be run as root"
case $verb in
    install) install_all ;;
    uninstall) uninstall_all ;;
    *) fail "usage: install.sh install PREFIX [USER] | uninstall PREFIX" ;;
esac

#!/usr/bin/env bash
# Runs the set-up and tests on Debian 13, the system of today's boards, in a chroot.
#
# usage: tools/trixie.sh [PYTEST-ARGUMENT...]
#   As root. Without arguments: the element's and the runtime's tests. The chroot and
#   what is set up in it stay for the next run; the work tree is copied anew.
#
# UPFROST_TRIXIE=...           the chroot's folder (default: ~/.cache/upfrost/trixie)
# UPFROST_DEBIAN_ARCHIVE=...   an archive of Debian, where the system's apt has none
#
# Packages come from the archive of the system's own apt, Python's by the system's own
# pip configuration. Mounts are in a namespace of their own and end with this script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SUITE=trixie
readonly ROOT=${UPFROST_TRIXIE:-${XDG_CACHE_HOME:-$HOME/.cache}/upfrost/$SUITE}
readonly TREE=$ROOT/upfrost
readonly INSIDE='cd /upfrost
make gstreamer
make lint
exec .venv/bin/python -m pytest "$@"'

fail() {
    printf 'trixie: %s\n' "$@" >&2
    exit 1
}

# archive LABEL: the address that apt has for Debian's archive with that label.
archive() {
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(SITE)' 'Created-By: Packages' \
        | sed -n "s/^Debian|$1|//p" | sort -u | head -n 1
}

make_chroot() {
    local main security
    command -v debootstrap >/dev/null \
        || fail "needs debootstrap: apt-get install debootstrap"
    main=${UPFROST_DEBIAN_ARCHIVE:-$(archive Debian)}
    [[ -n $main ]] || fail "apt knows no archive of Debian. If it never read its lists:" \
        "  apt-get update" "or name one: UPFROST_DEBIAN_ARCHIVE=ADDRESS make trixie"
    rm -rf "$ROOT"
    mkdir -p "$ROOT"
    echo "  Making a chroot of $SUITE in $ROOT"
    debootstrap --variant=minbase --include=ca-certificates,make \
        "$SUITE" "$ROOT" "$main" >"$ROOT.log" 2>&1 || {
        tail -n 20 "$ROOT.log" >&2
        fail "debootstrap failed; all output is in $ROOT.log"
    }
    {
        echo "deb $main $SUITE main"
        echo "deb $main $SUITE-updates main"
        security=$(archive Debian-Security)
        if [[ -n $security ]]; then echo "deb $security $SUITE-security main"; fi
    } >"$ROOT/etc/apt/sources.list"
    apt-config dump | grep -E '^Acquire::https?::' >"$ROOT/etc/apt/apt.conf.d/90host" \
        || true
    # Nothing in it need survive a crash of the machine.
    echo force-unsafe-io >"$ROOT/etc/dpkg/dpkg.cfg.d/unsafe-io"
    touch "$ROOT/.made"
}

# copy_tree: the files of this work tree, environments that were made in the chroot kept.
copy_tree() {
    mkdir -p "$TREE"
    find "$TREE" -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} +
    git ls-files -z --cached --others --exclude-standard \
        | tar -c --null --ignore-failed-read -T - | tar -x --no-same-owner -C "$TREE"
}

# show PATH: the host's file or folder at the same place in the chroot.
show() {
    if [[ -d $1 ]]; then mkdir -p "$ROOT$1"; else
        mkdir -p "$ROOT$(dirname "$1")"
        [[ -e $ROOT$1 ]] || touch "$ROOT$1"
    fi
    mount --bind "$1" "$ROOT$1"
}

# pip's settings as variables, whatever file they are in, and the files that they name.
take_pip_settings() {
    local key value path
    while IFS== read -r key value; do
        value=${value#\'} value=${value%\'}
        case $key in
            global.*)
                key=PIP_${key#global.}
                key=${key^^}
                key=${key//-/_}
                [[ -n ${!key:-} ]] || export "$key=$value"
                ;;
            :env:.*) ;;
            *) continue ;;
        esac
        for path in $value; do
            # A local index links to files beside it.
            if [[ $path == file:///* ]]; then path=$(dirname "${path#file://}"); fi
            if [[ $path == /* && -e $path ]]; then show "$path"; fi
        done
    done < <(python3 -m pip config list)
}

# settings: what a program inside needs of the environment to reach the registries.
settings() {
    local name
    while read -r name; do
        case $name in
            PIP_* | *_proxy | *_PROXY | SSL_CERT_FILE | CI | TERM | OMP_NUM_THREADS)
                echo "$name=${!name}"
                ;;
        esac
    done < <(compgen -e)
}

run_inside() {
    local path environment
    for path in /proc /sys /dev; do mount --rbind "$path" "$ROOT$path"; done
    mount -t tmpfs tmpfs "$ROOT/tmp"
    cp --remove-destination /etc/resolv.conf /etc/hosts "$ROOT/etc/"
    take_pip_settings
    mapfile -t environment < <(settings)
    if [[ -n ${UPFROST_DATA:-} ]]; then
        show "$(realpath "$UPFROST_DATA")"
        environment+=("UPFROST_DATA=$(realpath "$UPFROST_DATA")")
    fi
    exec chroot "$ROOT" env -i "${environment[@]}" HOME=/root LC_ALL=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        bash -euc "$INSIDE" trixie "$@"
}

((EUID == 0)) || fail "a chroot needs root: sudo make trixie"
if [[ ${UPFROST_IN_NAMESPACE:-} != 1 ]]; then
    [[ -e $ROOT/.made ]] || make_chroot
    copy_tree
    exec env UPFROST_IN_NAMESPACE=1 unshare --mount --propagation private \
        "tools/$(basename "$0")" "$@"
fi
if (($# == 0)); then set -- tests/runtime tests/tools; fi
run_inside "$@"

#!/usr/bin/env bash
# Installs the packages of dist/ on bare Debian 12 and 13, uses and removes them, and
# prints what that took.
#
# usage: tools/packages-test.sh [SUITE]...
#   As root, on amd64, after tools/packages.sh. What is printed is kept in
#   dist/packages-test.log. What tools/chroot.sh names is heeded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/chroot.sh

need_root packages-test
compgen -G 'dist/upfrost_*_amd64.deb' >/dev/null \
    || fail "there are no packages in dist/; make packages builds them"
in_namespace "$@"
if (($# == 0)); then set -- bookworm trixie; fi
for suite in "$@"; do
    root=$(cache)/test-$suite
    fresh_chroot "$root" "$suite" amd64
    open_chroot "$root"
    mkdir "$root/srv/upfrost"
    cp -r dist tools/packages-inside.sh examples/bee.png "$root/srv/upfrost/"
    cp tests/runtime/bunny.mp4 "$root/srv/upfrost/clip.mp4"
    echo "  Debian $(cat "$root/etc/debian_version"), $suite"
    inside "$root" /srv/upfrost/packages-inside.sh \
        prepare apt_install commands gstreamer unit
    boot "$root" try-upfrost.service || {
        tail -n 40 "$root/srv/upfrost/log" >&2
        fail "the service does not work"
    }
    cat "$root/srv/upfrost/booted"
    inside "$root" /srv/upfrost/packages-inside.sh purge wheels
    close_chroot "$root"
    rm -rf --one-file-system "$root"
done | tee dist/packages-test.log

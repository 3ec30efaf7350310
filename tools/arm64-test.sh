#!/usr/bin/env bash
# Installs the packages for arm64 on a bare Debian 13 whose programs QEMU runs, and tests
# there what needs no GPU: the runtime's network/, the exporter, the command.
#
# usage: tools/arm64-test.sh [PYTEST-ARGUMENT...]
#   As root, after tools/packages.sh. Without arguments: the tests of the file format and
#   the exporter that need no device. What is printed is kept in dist/arm64-test.log. What
#   tools/chroot.sh names is heeded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/chroot.sh

# Of memory and time, which an emulator takes much of for itself.
readonly BOUNDED=tests/runtime/network/test_modelfile.py::test_all_are_refused_in_bounded_memory
# An emulated lavapipe takes minutes to compile a network.
readonly ON_DEVICE=tests/exporter/test_published.py::test_on_the_device
readonly SUITE=trixie ROOT=$(cache)/test-arm64

need_root arm64-test
compgen -G 'dist/upfrost_*_arm64.deb' >/dev/null \
    || fail "there are no packages in dist/; make packages builds them"
in_namespace "$@"
if (($# == 0)); then
    set -- tests/runtime/network tests/exporter \
        --ignore=tests/exporter/test_{imported,transposed}_on_device.py \
        --deselect="$BOUNDED" --deselect="$ON_DEVICE"
fi
need_emulator
fresh_chroot "$ROOT" "$SUITE" arm64
open_chroot "$ROOT"
lend_programs "$ROOT" "$SUITE" arm64
mkdir "$ROOT/srv/upfrost"
cp -r dist tools/packages-inside.sh examples/bee.png "$ROOT/srv/upfrost/"
copy_tree "$ROOT/srv/upfrost/tree"
{
    echo "  Debian $(cat "$ROOT/etc/debian_version"), $SUITE, arm64"
    inside "$ROOT" TESTS="$*" /srv/upfrost/packages-inside.sh prepare emulated suite
} | tee dist/arm64-test.log
close_chroot "$ROOT"
rm -rf --one-file-system "$ROOT"

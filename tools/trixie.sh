#!/usr/bin/env bash
# Runs the set-up and tests on Debian 13, the system of today's boards, in a chroot.
#
# usage: tools/trixie.sh [PYTEST-ARGUMENT...]
#   As root. Without arguments: the element's and the runtime's tests, but for some of
#   kernels. The chroot and what is set up in it stay for the next run; the work tree is
#   copied anew.
#
# UPFROST_TRIXIE=...   the chroot's folder (default: ~/.cache/upfrost/trixie)
# and what tools/chroot.sh names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/chroot.sh

readonly ROOT=${UPFROST_TRIXIE:-$(cache)/trixie}
readonly INSIDE='cd /upfrost
make gstreamer
make lint
exec .venv/bin/python -m pytest "$@"'

need_root trixie
make_chroot "$ROOT" trixie "" make
in_namespace "$@"
copy_tree "$ROOT/upfrost"
open_chroot "$ROOT"
environment=()
if [[ -n ${UPFROST_DATA:-} ]]; then
    data=$(realpath "$UPFROST_DATA")
    show "$ROOT" "$data"
    environment+=("UPFROST_DATA=$data")
fi
# Without Mali's kernels in half precision: LLVM 19 takes up to a minute for each, most of
# it in what it does to coroutines, as which Mesa's driver for the CPU runs all kernels.
if (($# == 0)); then
    set -- --numprocesses auto --dist worksteal tests/runtime tests/tools \
        -k 'not mali-fp16 and not test_tuning_measures_it'
fi
inside "$ROOT" "${environment[@]}" bash -euc "$INSIDE" trixie "$@"

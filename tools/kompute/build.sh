#!/usr/bin/env bash
# Builds a wheel of kp, Kompute's binding with our patches, against the system's
# packages; by itself it would download Vulkan's headers, fmt and pybind11.
#
# usage: tools/kompute/build.sh SOURCE.tar.gz FOLDER
#
# PYTHON=...          one that has pip, setuptools, wheel and pybind11 (default: python3)
# UPFROST_CROSS=...   the GNU name of the machine to build for, such as
#                     aarch64-linux-gnu, where it is not this one
# CXXFLAGS, LDFLAGS and KOMPUTE_PYTHON_NUM_PARALLEL_THREADS are heeded.
set -euo pipefail

readonly HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly ARCHIVE=$1 FOLDER=$2 MACHINE=${UPFROST_CROSS:-}
readonly PYTHON=$(command -v "${PYTHON:-python3}")

# build_jobs: how many compilers may run at once. Each takes up to 800 MB.
build_jobs() {
    local cores memory
    cores=$(nproc)
    memory=$(awk '/^MemAvailable:/ { print int($2 / 1024 / 800) }' /proc/meminfo)
    echo $((memory < 1 ? 1 : memory < cores ? memory : cores))
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tar -xf "$ARCHIVE" -C "$work" --no-same-owner
source=$work/$(basename "$ARCHIVE" .tar.gz)
for patch in "$HERE"/*.patch; do
    echo "$patch"
    patch --batch --forward --strip=1 --directory="$source" <"$patch"
done
# Parts of pybind11 are in the module, and so its licence in the wheel.
"$PYTHON" -c 'from importlib.metadata import distribution
print(distribution("pybind11").read_text("LICENSE"))' >"$source/LICENSE.pybind11"

# kp's setup.py lacks a comma and so loses PYTHON_EXECUTABLE: CMake would take the
# oldest Python on the path. A toolchain file is the one place it reads besides.
cat >"$work/kp.cmake" <<CMAKE
set(PYTHON_EXECUTABLE "$PYTHON" CACHE FILEPATH "")
set(Python_EXECUTABLE "$PYTHON" CACHE FILEPATH "")
set(pybind11_DIR "$("$PYTHON" -m pybind11 --cmakedir)" CACHE PATH "")
CMAKE
if [[ -n $MACHINE ]]; then
    # What Python tells about itself is told of that machine's Python instead, whose
    # file of settings its headers' package brings.
    export _PYTHON_HOST_PLATFORM=linux-${MACHINE%%-*}
    export _PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__$MACHINE
    cat >>"$work/kp.cmake" <<CMAKE
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${MACHINE%%-*})
set(CMAKE_C_COMPILER $MACHINE-gcc)
set(CMAKE_CXX_COMPILER $MACHINE-g++)
set(CMAKE_LIBRARY_ARCHITECTURE $MACHINE)
set(PYTHON_MODULE_EXTENSION "$("$PYTHON" -c \
        'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')")
CMAKE
fi

# fmt is compiled in, so that a wheel does not depend on a distribution's release of it.
# So is what throws exceptions: GStreamer brings libunwind to a process, and where NumPy has
# loaded libstdc++ before it, an exception would begin in libgcc and go on in libunwind,
# which ends the process.
# The debug layers do not compile with the Vulkan headers of Debian 13.
env CMAKE_TOOLCHAIN_FILE="$work/kp.cmake" \
    CXXFLAGS="${CXXFLAGS:-} -DFMT_HEADER_ONLY" \
    LDFLAGS="${LDFLAGS:-} -Wl,--as-needed -static-libgcc -static-libstdc++ -Wl,--exclude-libs,ALL" \
    KOMPUTE_OPT_USE_BUILT_IN_FMT=OFF \
    KOMPUTE_OPT_USE_BUILT_IN_PYBIND11=OFF \
    KOMPUTE_OPT_USE_BUILT_IN_VULKAN_HEADER=OFF \
    KOMPUTE_OPT_DISABLE_VULKAN_VERSION_CHECK=ON \
    KOMPUTE_OPT_DISABLE_VK_DEBUG_LAYERS=ON \
    KOMPUTE_OPT_INSTALL=OFF \
    KOMPUTE_PYTHON_NUM_PARALLEL_THREADS="${KOMPUTE_PYTHON_NUM_PARALLEL_THREADS:-$(build_jobs)}" \
    "$PYTHON" -m pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation \
    -w "$FOLDER" "$source"

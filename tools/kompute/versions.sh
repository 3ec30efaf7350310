# shellcheck shell=bash
# What kp is built from, for scripts that source this.
readonly KP_RELEASE=0.9.0
# With the patches of this folder, the first of which says so.
readonly KP_VERSION=$KP_RELEASE+upfrost1
# The oldest release that reads arrays of numpy 2 and knows Python 3.13. With an older
# one, such as Debian 12's, kp builds well and every tensor is empty.
readonly PYBIND11_VERSION=2.13.6

#!/usr/bin/env bash
# Sets up the GStreamer element upfrostscale: Debian's packages, and an environment of
# Debian's own python3, which is the Python that GStreamer's plugin loader has in it.
#
# usage: tools/gstreamer.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(gstreamer1.0-python3-plugin-loader python3-gi python3-gst-1.0 python3-venv
    gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good
    gstreamer1.0-tools)
venv=$PWD/.venv-gstreamer
UPFROST_VENV=$venv UPFROST_VENV_OPTIONS=--system-site-packages PYTHON=/usr/bin/python3 \
    UPFROST_MORE_PACKAGES="${packages[*]}" tools/setup.sh run
cat >"$venv/gstreamer.sh" <<SHELL
# . ${venv##*/}/gstreamer.sh: this shell's GStreamer finds upfrostscale.
. "$venv/bin/activate"
export GST_PLUGIN_PATH="$PWD/runtime/gstreamer\${GST_PLUGIN_PATH:+:\$GST_PLUGIN_PATH}"
# A registry of its own: one in which a scan without upfrost failed would stay so.
export GST_REGISTRY="$venv/registry.bin"
SHELL
# Another Python first in PATH, or a scan that once failed, would show here.
rm -f "$venv/registry.bin"
if ! (. "$venv/gstreamer.sh" && gst-inspect-1.0 --exists upfrostscale); then
    echo "  GStreamer does not list upfrostscale; its reason is among the lines of" >&2
    echo "    . .venv-gstreamer/gstreamer.sh && GST_DEBUG=3 gst-inspect-1.0" >&2
    exit 1
fi
cat <<TEXT
  The element is ready in a shell after:
    . .venv-gstreamer/gstreamer.sh
  for example:
    gst-launch-1.0 filesrc location=clip.mp4 ! decodebin ! videoconvert \\
        ! upfrostscale ! videoconvert ! autovideosink
TEXT

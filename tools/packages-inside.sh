#!/usr/bin/env bash
# What tools/packages-test.sh and tools/arm64-test.sh do in a bare chroot of Debian.
#
# usage: packages-inside.sh STEP...
#   The files are in /srv/upfrost: packages and wheels in dist/, a picture and a video.
#   Each step is one of the functions below; its lines go to stdout, all else to
#   /srv/upfrost/log. What does not hold ends it.
set -euo pipefail
cd /srv/upfrost
exec 3>&1 >>log 2>&1

say() {
    echo "    $*" >&3
    echo "== $*"
}

fail() {
    say "FAILED: $*"
    tail -n 30 log >&3
    exit 1
}

now() {
    date +%s%N
}

# took TIME: seconds since then.
took() {
    awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", (b - a) / 1e9 }'
}

# timed TEXT COMMAND...
timed() {
    local text=$1 start
    start=$(now)
    shift
    "$@" || fail "$text: $*"
    say "$text: $(took "$start")"
}

# installed: the packages that are there, with their sizes in KiB.
installed() {
    dpkg-query -W -f='${db:Status-Abbrev} ${Package} ${Installed-Size}\n' | grep '^ii'
}

megabytes() {
    installed | awk '{ sum += $3 } END { printf "%d", sum * 1024 / 1e6 }'
}

# What packages own; Python's caches of what was imported by hand are none of theirs.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /srv \
        -o -path /root -o -path /run -o -path /opt -o -path /var/cache -o -path /var/log \
        -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd \) -prune \
        -o -print | sort
}

# size_of PICTURE [TIMES]: its width and height, or a multiple of them.
size_of() {
    python3 -c 'import sys
from PIL import Image
print(*(side * int(sys.argv[2]) for side in Image.open(sys.argv[1]).size))' "$1" "${2:-1}"
}

# frame_of VIDEO
frame_of() {
    ffprobe -v error -select_streams v -show_entries stream=width,height -of csv=p=0 "$1"
}

package() {
    ls dist/"$1"_*~deb"$(. /etc/os-release && echo "$VERSION_ID")"_"$(dpkg --print-architecture)".deb
}

# No service is started, and none is there to start.
prepare() {
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    timed "apt-get update" apt-get update
    files >before.files
    installed >before.packages
    say "bare Debian: $(wc -l <before.packages) packages, $(megabytes) MB"
}

apt_install() {
    local start deb before
    deb=$(package upfrost)
    before=$(megabytes)
    say "without what it recommends: $(apt-get install --simulate --no-install-recommends "./$deb" \
        | grep -c '^Inst') packages more"
    start=$(now)
    apt-get install --yes "./$deb" || fail "apt install ./$deb"
    say "apt install ./${deb#dist/}: $(took "$start"), $(($(installed | wc -l) \
        - $(wc -l <before.packages))) packages, $(($(megabytes) - before)) MB" \
        "(upfrost itself $(dpkg-query -W -f='${Installed-Size}' upfrost) KiB)"
    upfrost upscale bee.png -o large.png || fail "upfrost upscale"
    say "from apt install to the first picture: $(took "$start")"
    [[ $(size_of large.png) == "$(size_of bee.png 2)" ]] || fail "large.png has another size"
}

commands() {
    timed "the same picture again ($(size_of bee.png) pixels)" \
        upfrost upscale bee.png -o again.png
    cmp large.png again.png || fail "another picture"
    timed "a video, 1 s of 160×90" upfrost video clip.mp4 large.mp4
    [[ $(frame_of clip.mp4) == 160,90 && $(frame_of large.mp4) == 320,180 ]] \
        || fail "large.mp4 has another size"
    timed "upfrost check --quick" upfrost check --quick -o report
    # Any user, no environment, another shell; a Python path that would break it.
    runuser -u nobody -- env -i PYTHONPATH=/nowhere /bin/sh -c \
        'cd /tmp && upfrost models && upfrost info live-x2-m' || fail "as nobody"
    say "any user's shell without an environment: upfrost models, upfrost info"
    upfrost devices | sed -n 1,2p | while read -r line; do say "upfrost devices: $line"; done
    gzip -dc /usr/share/man/man1/upfrost.1.gz | grep -q '^.SS "upfrost video"' \
        || fail "no manual"
    apt-get install --yes --no-install-recommends bash-completion || fail "bash-completion"
    bash -ic '. /usr/share/bash-completion/bash_completion
        . /usr/share/bash-completion/completions/upfrost
        COMP_WORDS=(upfrost upscale -m rea) COMP_CWORD=3 COMP_LINE="upfrost upscale -m rea"
        COMP_POINT=${#COMP_LINE}
        _upfrost && [[ ${COMPREPLY[*]} == "realtime-x2 realtime-x4" ]]' \
        || fail "completion"
    say "manual and completion are there"
}

gstreamer() {
    timed "apt install ./gstreamer1.0-upfrost" apt-get install --yes \
        "./$(package gstreamer1.0-upfrost)"
    timed "gst-inspect-1.0 upfrostscale" gst-inspect-1.0 upfrostscale
    timed "gst-launch-1.0, 5 frames of 64×48" gst-launch-1.0 -q videotestsrc num-buffers=5 \
        ! video/x-raw,format=I420,width=64,height=48 \
        ! upfrostscale model=live-x2-xs-clean ! filesink location=frames.yuv
    (($(stat -c %s frames.yuv) == 5 * 128 * 96 * 3 / 2)) || fail "frames.yuv"
}

# The unit of the server, as it lies there.
unit() {
    apt-get install --yes --no-install-recommends systemd || fail "apt install systemd"
    systemd-analyze verify --man=no upfrost-serve.service || fail "systemd-analyze verify"
    say "systemd-analyze verify: nothing; security: $(systemd-analyze security \
        --offline=true upfrost-serve.service | grep -o 'exposure level.*')"
    cat >/etc/systemd/system/try-upfrost.service <<UNIT
[Unit]
After=multi-user.target
Wants=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=$PWD/packages-inside.sh service
StandardOutput=file:$PWD/booted
UNIT
}

# In the same system, booted.
service() {
    local user folder
    [[ $(systemctl is-enabled upfrost-serve) == disabled ]] || fail "it is enabled"
    systemctl enable --now upfrost-serve || fail "systemctl enable --now upfrost-serve"
    timed "upfrost-serve, started by systemd: the page" python3 - <<'PYTHON'
import time, urllib.request
for _ in range(600):
    try:
        urllib.request.urlopen("http://127.0.0.1:8080/").read()
        break
    except OSError:
        time.sleep(0.1)
else:
    raise SystemExit("it does not answer")
PYTHON
    timed "a picture by it" python3 - <<'PYTHON'
import json, time, urllib.request
from pathlib import Path
here = "http://127.0.0.1:8080/api/jobs"
picture = Path("bee.png").read_bytes()
def ask(path, data=None):
    return urllib.request.urlopen(urllib.request.Request(here + path, data)).read()
job = json.loads(ask("?name=bee.png&model=live-x2-xs-clean", picture))
while job["state"] in ("queued", "running"):
    time.sleep(0.2)
    job = json.loads(ask("/" + job["id"]))
print(job)
Path("served.png").write_bytes(ask("/" + job["id"] + "/result"))
PYTHON
    [[ $(size_of served.png) == "$(size_of bee.png 2)" ]] || fail "served.png's size"
    user=$(stat -c %u "/proc/$(systemctl show --property MainPID --value upfrost-serve)")
    folder=$(stat -c '%u %a' /var/lib/private/upfrost-serve)
    [[ $user != 0 && $folder == "$user 700" ]] || fail "user $user, its folder $folder"
    timed "systemctl restart upfrost-serve" systemctl restart upfrost-serve
    say "it had a user of its own, $user, and its folder was that user's alone"
    systemctl stop upfrost-serve
    journalctl -u upfrost-serve --no-pager
}

purge() {
    rm -f /etc/systemd/system/try-upfrost.service
    timed "apt purge" apt-get purge --yes --autoremove upfrost gstreamer1.0-upfrost \
        bash-completion
    installed >after.packages
    files >after.files
    # apt removes no package that is marked as protected, as systemd is, which something
    # that ffmpeg recommends may have brought.
    if ! diff before.packages after.packages && ! dpkg-query -W systemd-sysv; then
        fail "packages are left, and systemd is not among them"
    fi
    if find / -xdev \( -path /proc -o -path /srv -o -path /root \) -prune -o -iname '*upfrost*' \
        -print | grep .; then fail "files of upfrost are left"; fi
    say "left by upfrost: nothing; packages that apt keeps, systemd and what it needs:" \
        "$(diff before.packages after.packages | grep -c '^>' || true)"
    diff before.files after.files || true
}

# environment [OPTION...]: Debian's Python with the wheels in it, by pip.
environment() {
    python3 -m venv "$@" /opt/environment
    timed "pip install --find-links dist upfrost" /opt/environment/bin/pip install \
        --find-links dist upfrost
    say "pip has installed: $(/opt/environment/bin/pip list --format=freeze \
        | grep -iE '^(upfrost|kp|numpy|pillow|pyvips)==' | tr '\n' ' ')"
}

# without_kp COMMAND...: what each says who has only the wheel of upfrost.
without_kp() {
    local words
    /opt/environment/bin/pip uninstall --yes kp
    for words in "$@"; do
        # shellcheck disable=SC2086  # several words
        /opt/environment/bin/upfrost $words 2>&1 </dev/null | tee said || true
        grep -q "pip install --find-links FOLDER upfrost" said && (($(wc -l <said) == 1)) \
            || fail "upfrost $words without kp"
    done
    say "without kp, upfrost ${*%% *}: $(<said)"
}

wheels() {
    apt-get install --yes --no-install-recommends python3-venv libvulkan1 \
        mesa-vulkan-drivers || fail "apt install"
    environment
    timed "upfrost upscale, by the wheel" /opt/environment/bin/upfrost upscale bee.png \
        -o wheel.png
    if [[ -e large.png ]]; then cmp large.png wheel.png || fail "another picture"; fi
    without_kp "upscale bee.png -o no.png" devices tune
    apt-get purge --yes --autoremove python3-venv libvulkan1 mesa-vulkan-drivers
}

# compile_all yes|no: whether packages of Python modules compile all of them. Python
# compiles what it imports; all that anybody could import takes an emulator longer than
# everything else here.
compile_all() {
    local module=/usr/lib/python3.13/py_compile.py
    if [[ $1 == no ]]; then
        mkdir -p "${module%/*}"
        touch "$module"
        dpkg-divert --no-rename --divert "$module.kept" "$module"
        ln -sf /bin/true /usr/local/bin/py3compile
        echo "DPkg::Path \"$PATH\";" >/etc/apt/apt.conf.d/92path
    else
        mv "$module.kept" "$module"
        dpkg-divert --no-rename --remove "$module"
    fi
}

# What can be asked of a package for a machine that an emulator stands for.
emulated() {
    local status=0 start
    compile_all no
    timed "apt install, without what it recommends" apt-get install --yes \
        --no-install-recommends "./$(package upfrost)" mesa-vulkan-drivers
    say "installed: $(dpkg-query -W -f='${Package} ${Version} ${Architecture}' upfrost)"
    timed "import kp, upfrost" env PYTHONPATH=/usr/lib/upfrost \
        python3 -c 'import kp, upfrost; from upfrost import Upscaler'
    timed "upfrost info live-x2-m" upfrost info live-x2-m
    start=$(now)
    upfrost devices >said 2>&1 || status=$?
    say "upfrost devices: status $status, $(took "$start")"
    while read -r line; do say "  $line"; done <said
    # Mesa's driver for the CPU writes machine code as it runs.
    status=0
    start=$(now)
    python3 -c 'from PIL import Image
Image.open("bee.png").crop((96, 96, 128, 120)).save("small.png")'
    timeout 900 upfrost upscale -m live-x2-xs-clean small.png -o large.png >said 2>&1 \
        || status=$?
    say "upfrost upscale on lavapipe, 32×24 pixels: status $status, $(took "$start")"
    while read -r line; do say "  $line"; done <said
    if ((status == 0)) && [[ $(size_of large.png) != "$(size_of small.png 2)" ]]; then
        fail "large.png has another size"
    fi
}

# The wheels beside Debian's own PyTorch and onnxruntime, and the tests that $TESTS names.
suite() {
    timed "apt install python3-torch and others for tests" apt-get install --yes \
        --no-install-recommends python3-venv python3-numpy python3-pil python3-torch \
        python3-onnxruntime python3-safetensors python3-einops
    compile_all yes
    environment --system-site-packages
    timed "pip install pytest and others for tests" /opt/environment/bin/pip install \
        pytest pytest-xdist hypothesis ncnn
    # Debian's own onnx ends a process that has imported its PyTorch: both bring the same
    # messages to one protobuf. PyPI's onnxruntime crashes beside that PyTorch.
    timed "pip install onnx" /opt/environment/bin/pip install --ignore-installed \
        --no-deps onnx protobuf ml_dtypes
    cd tree
    # The runtime and the exporter are the wheel's.
    rm -r runtime exporter training
    # shellcheck disable=SC2086  # several words
    timed "pytest $TESTS" env UPFROST_SLOWER=30 /opt/environment/bin/python -m pytest \
        -p no:cacheprovider --numprocesses auto --dist worksteal $TESTS
    say "$(grep -E '[0-9]+ passed' ../log | tail -n 1)"
    cd ..
    without_kp devices
}

for step in "$@"; do "$step"; done

# shellcheck shell=bash
# Functions that make and enter chroots of Debian, for scripts that source this.
#
# UPFROST_DEBIAN_ARCHIVE=...   an archive of Debian, where the system's apt has none
#
# Packages come from the archive of the system's own apt, Python's by the system's own
# pip configuration. A script enters a chroot in a namespace of mounts, which
# `in_namespace` makes, so that no mount outlives it.

fail() {
    local name=${0##*/}
    printf "${name%.sh}: %s\n" "$@" >&2
    exit 1
}

# need_root TARGET: end here, unless root runs this.
need_root() {
    ((EUID == 0)) || fail "a chroot needs root: sudo make $1"
}

# in_namespace ARGUMENT...: run this script again, in a namespace of mounts of its own.
in_namespace() {
    if [[ ${UPFROST_IN_NAMESPACE:-} != 1 ]]; then
        exec env UPFROST_IN_NAMESPACE=1 unshare --mount --propagation private \
            "tools/${0##*/}" "$@"
    fi
}

# cache: the folder of everything that is kept for the next run.
cache() {
    echo "${XDG_CACHE_HOME:-$HOME/.cache}/upfrost"
}

# archive LABEL: the address that apt has for Debian's archive with that label.
archive() {
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(SITE)' 'Created-By: Packages' \
        | sed -n "s/^Debian|$1|//p" | sort -u | head -n 1
}

# make_chroot ROOT SUITE [ARCHITECTURE] [PACKAGE,...]: a bare Debian, unless it is there.
# Certificates are in it, since an archive may be reached by https.
make_chroot() {
    local root=$1 suite=$2 architecture=${3:-} packages=${4:-} main security
    local script=${0##*/}
    if [[ -e $root/.made ]]; then return; fi
    # What is half made is begun anew; what is somebody's is not removed.
    if [[ ! -e $root/.making && -n $(shopt -s nullglob dotglob && echo "$root"/*) ]]
    then
        fail "$root holds other things than a chroot; name a folder that is empty"
    fi
    command -v debootstrap >/dev/null \
        || fail "needs debootstrap: apt-get install debootstrap"
    main=${UPFROST_DEBIAN_ARCHIVE:-$(archive Debian)}
    [[ -n $main ]] || fail "apt knows no archive of Debian. If it never read its lists:" \
        "  apt-get update" \
        "or name one: UPFROST_DEBIAN_ARCHIVE=ADDRESS make ${script%.sh}"
    rm -rf --one-file-system "$root"
    mkdir -p "$root"
    touch "$root/.making"
    echo "  Making a chroot of $suite${architecture:+ for $architecture} in $root"
    debootstrap --variant=minbase ${architecture:+--arch="$architecture"} \
        --include="ca-certificates${packages:+,$packages}" \
        "$suite" "$root" "$main" >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        fail "debootstrap failed; all output is in $root.log"
    }
    {
        echo "deb $main $suite main"
        echo "deb $main $suite-updates main"
        security=$(archive Debian-Security)
        if [[ -n $security ]]; then echo "deb $security $suite-security main"; fi
    } >"$root/etc/apt/sources.list"
    apt-config dump | grep -E '^Acquire::https?::' >"$root/etc/apt/apt.conf.d/90host" \
        || true
    # Nothing in it need survive a crash of the machine.
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
    touch "$root/.made"
}

# fresh_chroot ROOT SUITE ARCHITECTURE: a bare Debian in a folder of its own, copied from
# one that is kept.
fresh_chroot() {
    local base
    base=$(cache)/debian/$2-$3
    make_chroot "$base" "$2" "$3"
    rm -rf --one-file-system "$1"
    mkdir -p "$(dirname "$1")"
    cp -a "$base" "$1"
}

# copy_tree FOLDER: the files of this work tree, environments that are there kept.
copy_tree() {
    mkdir -p "$1"
    find "$1" -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} +
    git ls-files -z --cached --others --exclude-standard \
        | tar -c --null --ignore-failed-read -T - | tar -x --no-same-owner -C "$1"
}

# show ROOT PATH [PLACE]: the host's file or folder in a chroot, at the same place there
# or another.
show() {
    local place=$1${3:-$2}
    if [[ -d $2 ]]; then mkdir -p "$place"; else
        mkdir -p "$(dirname "$place")"
        [[ -e $place ]] || touch "$place"
    fi
    mount --bind "$2" "$place"
}

# take_pip_settings ROOT: pip's settings as variables, whatever file they are in, and the
# files that they name.
take_pip_settings() {
    local key value path
    while IFS== read -r key value; do
        value=${value#\'} value=${value%\'}
        case $key in
            global.*)
                key=PIP_${key#global.}
                key=${key^^}
                key=${key//-/_}
                [[ -n ${!key:-} ]] || export "$key=$value"
                ;;
            :env:.*) ;;
            *) continue ;;
        esac
        for path in $value; do
            # A local index links to files beside it.
            if [[ $path == file:///* ]]; then path=$(dirname "${path#file://}"); fi
            if [[ $path == /* && -e $path ]]; then show "$1" "$path"; fi
        done
    done < <(python3 -m pip config list)
}

# settings: what a program inside needs of the environment to reach the registries.
settings() {
    local name
    while read -r name; do
        case $name in
            PIP_* | *_proxy | *_PROXY | SSL_CERT_FILE | CI | TERM | OMP_NUM_THREADS)
                echo "$name=${!name}"
                ;;
        esac
    done < <(compgen -e)
}

# open_chroot ROOT: mount what programs in it expect.
open_chroot() {
    local path
    for path in /proc /sys /dev; do mount --rbind "$path" "$1$path"; done
    mount -t tmpfs tmpfs "$1/tmp"
    cp --remove-destination /etc/resolv.conf /etc/hosts "$1/etc/"
    take_pip_settings "$1"
}

# need_emulator: let the kernel run programs for arm64, on another machine by QEMU.
need_emulator() {
    local place=/proc/sys/fs/binfmt_misc program head='\x7fELF\x02\x01\x01' mask
    if [[ $(dpkg --print-architecture) == arm64 ]]; then return; fi
    [[ -e $place/register ]] || mount -t binfmt_misc binfmt_misc "$place" \
        || fail "this kernel has no binfmt_misc, by which it would call an emulator"
    if grep -qs '^enabled' "$place/qemu-aarch64"; then return; fi
    program=$(command -v qemu-aarch64-static) \
        || fail "needs QEMU: apt-get install qemu-user-static"
    # An ELF file of 64 bits, little-endian, a program or a library, for AArch64 (183).
    # F opens the emulator now, so that it need not be in a chroot.
    head+='\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":qemu-aarch64:M::$head:$mask:$program:F" >"$place/register"
}

# lend_programs ROOT SUITE ARCHITECTURE: in an open chroot for an emulated machine, in the
# place of some of its programs those of the same release for this one. They read and
# write files for any machine; apt alone takes minutes in an emulator to choose packages.
lend_programs() {
    local native place program
    native=$(dpkg --print-architecture)
    if [[ $3 == "$native" ]]; then return; fi
    place=$(cache)/debian/$2-$native
    make_chroot "$place" "$2" "$native"
    # Where their loader is looked for.
    ln -sfn usr/lib64 "$1/lib64"
    for program in lib64 "lib/$(uname -m)-linux-gnu" lib/apt/methods \
        bin/{apt-get,bash,cat,dash,dpkg-deb,dpkg-split,find,grep,gzip,ln,mawk,mkdir} \
        bin/{mv,perl,rm,sed,sort,sqv,tar}; do
        show "$1" "$place/usr/$program" "/usr/$program"
    done
    cat >"$1/etc/apt/apt.conf.d/91lent" <<APT
#clear APT::Architectures;
APT::Architectures { "$3"; };
APT::Architecture "$3";
// Questions before packages are unpacked.
#clear DPkg::Pre-Install-Pkgs;
APT
}

# close_chroot ROOT: take away what was mounted in it.
close_chroot() {
    local place
    while read -r place; do umount --lazy "$place"; done < <(
        awk -v root="$1/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo | tac
    )
}

# inside ROOT [NAME=VALUE...] COMMAND...: run it in an open chroot.
inside() {
    local root=$1 environment
    shift
    mapfile -t environment < <(settings)
    chroot "$root" env -i "${environment[@]}" HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# boot ROOT UNIT: have a chroot's systemd start a unit, as the first process of a machine
# without devices and with no network but its own, and end with that unit's status.
boot() {
    local groups
    groups=$(findmnt --noheadings --output TARGET --types cgroup2 | head -n 1)
    [[ -n $groups ]] || fail "systemd needs cgroup2, which is mounted nowhere here"
    groups+=/upfrost-$$
    mkdir "$groups"
    local status=0
    (
        echo "$BASHPID" >"$groups/cgroup.procs"
        # shellcheck disable=SC2016  # its own variables
        exec timeout --foreground --kill-after 5 900 unshare --cgroup --fork --ipc \
            --mount --net --pid --uts --kill-child --mount-proc="$1/proc" bash -euc '
                # It changes how its root is mounted, for which that has to be a mount.
                mount --rbind "$1" "$1"
                for path in /run /tmp /dev; do mount -t tmpfs tmpfs "$1$path"; done
                mount -t sysfs -o ro sysfs "$1/sys"
                mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
                for path in /dev/{null,zero,full,random,urandom,tty}; do
                    touch "$1$path"
                    mount --bind "$path" "$1$path"
                done
                ln -s /proc/self/fd "$1/dev/fd"
                mkdir "$1/dev/shm"
                exec chroot "$1" env -i container=upfrost LC_ALL=C.UTF-8 \
                    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
                    /lib/systemd/systemd --system --unit="$2"' boot "$1" "$2" \
            </dev/null >/dev/null 2>&1
    ) || status=$?
    find "$groups" -depth -type d -exec rmdir {} +
    return "$status"
}

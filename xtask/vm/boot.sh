#!/bin/sh
# boot.sh CMD...   run CMD (words joined by spaces, as ssh does) under /bin/sh as root in a
# throw-away guest: Debian's cloud kernel, cgroup v2 only, Landlock on, under QEMU's software
# emulation. The guest's root is this machine's / (virtiofs, read-only) below an overlay whose
# writes stay in the guest's memory; /tmp, /run and /dev/shm are its own; /mnt is a 64 MiB ext4
# disk (/dev/vda); there is no network but lo. stdout: the guest's console (ttyS0; the kernel's
# messages are in its dmesg, and on stderr here if it breaks); the last line is
# "vm-exit NONCE CODE"; CODE is returned.
# Returned by boot.sh itself: 124 the time was up, 125 the guest ended without a code or was not
# started, 129/130/143 a signal.
#
# VM_TIMEOUT=600 seconds   VM_SMP=2   VM_MEM=2G   VM_CACHE=/tmp/vm/cache   VM_APPEND='kernel words'
# VM_CPU=Nehalem,+rdrand (`max` boots 1.5 s slower)
# VM_VERBOSE=1: the guest's uptime before and after CMD
# VM_RW=1: no overlay, the guest writes to this machine's files (off by default, with reason)
set -eu
[ $# -gt 0 ] || { echo "usage: boot.sh CMD..." >&2; exit 125; }

CACHE=${VM_CACHE:-/tmp/vm/cache}
LIMIT=${VM_TIMEOUT:-600}
MEM=${VM_MEM:-2G}
export PATH="$PATH:/usr/sbin:/sbin"
export LC_ALL=C

say() { echo "boot.sh: $*" >&2; }
die() { say "$*"; exit 125; }

# ---- (a) what is missing -------------------------------------------------------------------
VIRTIOFSD=/usr/lib/qemu/virtiofsd
updated=
refresh() { [ -n "$updated" ] || apt-get -qq update >&2; updated=1; }
need=
{ [ -x /usr/bin/qemu-system-x86_64 ] && [ -x $VIRTIOFSD ]; } || need="$need qemu-system-x86"
busybox_is_static() { [ "$(dpkg-query -W -f '${db:Status-Status}' busybox-static 2>/dev/null)" = installed ]; }
busybox_is_static || need="$need busybox-static"
command -v cpio >/dev/null || need="$need cpio"
command -v modprobe >/dev/null || need="$need kmod"
command -v mkfs.ext4 >/dev/null || need="$need e2fsprogs"
if [ -n "$need" ]; then
    say "installing:$need"
    refresh || die "apt-get update failed"
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $need >&2 ||
        die "apt-get install failed"
fi

mkdir -p "$CACHE"
CACHE=$(cd "$CACHE" && pwd -P)
if [ ! -d "$CACHE/kernel" ]; then
    # Unpacked beside its place and renamed, so that two first runs cannot see half a kernel.
    tmp=$(mktemp -d "$CACHE/fetch.XXXXXX")
    chmod 755 "$tmp"
    fetch() {
        pkg=$(apt-cache depends linux-image-cloud-amd64 |
            sed -n 's/^ *Depends: *\(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
        [ -n "$pkg" ] && (cd "$tmp" && apt-get -qq -o APT::Sandbox::User=root download "$pkg" >&2)
    }
    fetch || { refresh; fetch; } || { rm -rf "$tmp"; die "no kernel package"; }
    dpkg -x "$tmp"/*.deb "$tmp/kernel" &&
        depmod -b "$tmp/kernel" "$(ls "$tmp/kernel/lib/modules")" ||
        { rm -rf "$tmp"; die "kernel package does not unpack"; }
    mv -T "$tmp/kernel" "$CACHE/kernel" 2>/dev/null || [ -d "$CACHE/kernel" ]
    rm -rf "$tmp"
fi
KVER=$(ls "$CACHE/kernel/lib/modules")

# ---- the end, however it comes -------------------------------------------------------------
RUN=$(mktemp -d "$CACHE/run.XXXXXX")
NONCE=${RUN##*.}
SOCK=$RUN/fs.sock
# virtiofsd keeps a lock file named after its socket's path.
LOCK=/run/virtiofsd/$(echo "$SOCK" | tr / .).pid
qemu='' fsd=''
gone() { # PID: TERM, eight seconds (more than the `timeout` below needs for its own KILL), KILL
    [ -n "$1" ] || return 0
    kill -TERM "$1" 2>/dev/null || { wait "$1" 2>/dev/null || :; return 0; }
    n=0
    while kill -0 "$1" 2>/dev/null && [ $n -lt 80 ]; do sleep 0.1; n=$((n + 1)); done
    kill -KILL "$1" 2>/dev/null || :
    wait "$1" 2>/dev/null || :
}
clean() {
    trap '' HUP INT TERM
    gone "$qemu"
    gone "$fsd"
    rm -rf --one-file-system "$RUN"
    rm -f "$LOCK"
    rmdir /run/virtiofsd 2>/dev/null || :
}
trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- (b) the initramfs ---------------------------------------------------------------------
I=$RUN/initramfs
mkdir -p "$I/bin" "$I/mod" "$I/proc" "$I/sys" "$I/dev" "$I/low" "$I/up" "$I/new"
cp /bin/busybox "$I/bin/busybox"
printf '%s\n' "$*" >"$I/cmd"
for m in virtio_pci virtiofs overlay virtio_blk; do
    modprobe -d "$CACHE/kernel" -S "$KVER" --show-depends "$m"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$RUN/modules"
while read -r ko; do
    cp "$ko" "$I/mod/"
    echo "${ko##*/}"
done <"$RUN/modules" >"$I/modules"

cat >"$I/init" <<'INIT'
#!/bin/busybox sh
bb=/bin/busybox
die() { echo "init: $*"; $bb poweroff -f; }
$bb mount -t proc proc /proc
$bb mount -t devtmpfs dev /dev
for ko in $($bb cat /modules); do $bb insmod /mod/$ko || die "insmod $ko"; done
. /conf
if [ "$rw" = 1 ]; then
    $bb mount -t virtiofs host /new || die "virtiofs"
else
    $bb mount -t virtiofs -o ro host /low || die "virtiofs"
    $bb mount -t tmpfs -o mode=755 up /up
    $bb mkdir /up/upper /up/work
    $bb chmod 755 /up/upper
    $bb mount -t overlay -o lowerdir=/low,upperdir=/up/upper,workdir=/up/work root /new || die "overlay"
    # so that modprobe (and the kernel by itself) finds the modules of this kernel
    $bb mkdir -p /new/lib/modules
    $bb mount -o bind /low$modules /new/lib/modules
fi
$bb mount --move /proc /new/proc
$bb mount -t sysfs -o nosuid,nodev,noexec sys /new/sys
$bb mount --move /dev /new/dev
$bb mount -t tmpfs -o nosuid,nodev,mode=1777 tmp /new/tmp
$bb mount -t tmpfs -o nosuid,nodev,mode=755 run /new/run
$bb mkdir /new/run/vm
$bb cp /bin/busybox /cmd /conf /stage2 /new/run/vm/
exec $bb switch_root /new /bin/sh /run/vm/stage2
die "switch_root"
INIT

# The second half of init: process 1 on the real root, with this machine's own programs.
cat >"$I/stage2" <<'STAGE2'
# ttyS0 is the caller's; the kernel's own messages (/dev/console) go to ttyS1.
exec </dev/null >/dev/ttyS0 2>&1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/root TERM=dumb LANG=C.UTF-8
export PATH HOME TERM LANG
. /run/vm/conf
bb=/run/vm/busybox
stty -opost </dev/ttyS0
mkdir -p /dev/pts /dev/shm
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 shm /dev/shm
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mount -t ext4 /dev/vda /mnt
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin; ln -sf fd/1 /dev/stdout; ln -sf fd/2 /dev/stderr
$bb ip link set lo up
$bb hostname vm
read -r up _ </proc/uptime
[ -z "$verbose" ] || echo "vm: up after $up s"
cd /
$bb setsid /bin/sh /run/vm/cmd
code=$?
[ -z "$verbose" ] || { read -r down _ </proc/uptime; echo "vm: ended at $down s"; }
printf '\nvm-exit %s %s\n' "$nonce" "$code"
sync -f /mnt
stty opost </dev/ttyS0 # waits until the line above has left
$bb poweroff -f
STAGE2
cat >"$I/conf" <<CONF
nonce=$NONCE
rw=${VM_RW:-0}
verbose=${VM_VERBOSE:-}
modules=$CACHE/kernel/lib/modules
CONF
chmod 755 "$I/init"
(cd "$I" && find . | cpio -o -H newc --quiet) >"$RUN/initrd"

truncate -s 64M "$RUN/disk"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$RUN/disk"

# ---- (c) virtiofsd and qemu ----------------------------------------------------------------
# What is shared is a bind of / alone (no /proc, /sys, /dev or other mount of this machine), which the
# kernel keeps read-only whatever root in the guest does; it is in a mount namespace of virtiofsd's own
# and ends with it.
mkdir "$RUN/root"
# shellcheck disable=SC2016
unshare --mount --propagation private sh -ec '
    mount --bind / "$1"
    [ "$2" = 1 ] || mount -o remount,bind,ro "$1"
    exec "$3" --socket-path="$4" -o source="$1" -o cache=auto -o sandbox=chroot -o log_level=err
' sh "$RUN/root" "${VM_RW:-0}" "$VIRTIOFSD" "$SOCK" </dev/null >"$RUN/fsd.log" 2>&1 &
fsd=$!
n=0
while [ ! -S "$SOCK" ]; do
    n=$((n + 1))
    { [ $n -le 100 ] && kill -0 $fsd 2>/dev/null; } || { cat "$RUN/fsd.log" >&2; die "virtiofsd did not start"; }
    sleep 0.05
done

# `timeout` is the process known here; it hands TERM on to qemu, and KILL five seconds later.
timeout -k 5 "$LIMIT" qemu-system-x86_64 \
    -nodefaults -no-user-config -display none -no-reboot \
    -machine q35 -accel tcg,thread=multi,tb-size=512 -cpu "${VM_CPU:-Nehalem,+rdrand}" -smp "${VM_SMP:-2}" -m "$MEM" \
    -object memory-backend-memfd,id=m,size="$MEM",share=on -numa node,memdev=m \
    -kernel "$CACHE/kernel/boot/vmlinuz-$KVER" -initrd "$RUN/initrd" \
    -append "console=ttyS1 loglevel=4 panic=-1 cgroup_no_v1=all lsm=landlock,lockdown,yama,integrity,apparmor,bpf ${VM_APPEND:-}" \
    -chardev stdio,id=con,signal=off,logfile="$RUN/console" -serial chardev:con \
    -serial file:"$RUN/kernel.log" \
    -chardev socket,id=c,path="$SOCK" -device vhost-user-fs-pci,chardev=c,tag=host \
    -drive if=none,id=d,format=raw,cache=unsafe,file="$RUN/disk" -device virtio-blk-pci,drive=d \
    </dev/null &
qemu=$!
rc=0
wait "$qemu" || rc=$?
qemu=''

# ---- (e) the exit code ---------------------------------------------------------------------
code=$(sed -n "s/^vm-exit $NONCE \([0-9][0-9]*\).*/\1/p" "$RUN/console" 2>/dev/null | tail -n 1)
[ -z "$code" ] || exit "$code"
cat "$RUN/kernel.log" "$RUN/fsd.log" >&2 || :
case $rc in
124 | 137) say "the guest was ended after $LIMIT s"; exit 124 ;;
*) die "the guest ended without an exit code (qemu: $rc)" ;;
esac

#!/bin/bash
# The first process of a guest: mounts what the tests need, runs one suite, and switches the machine off.
# The lines that begin with `vm: ` are read by the host.
export PATH=/usr/bin HOME=/root TERM=dumb LANG=C.UTF-8 NO_COLOR=1 LBR_BIN=/lbr/lbr
# Emulation is slow: tests wait longer (tests/src/patience.rs), and run one in 20 of what they do at random.
export LBR_SLOW=8 LBR_PART=20
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mkdir -p /run/netns /run/lock
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
hostname vm
ln -sf /proc/self/fd /dev/fd
up() { cut -d' ' -f1 /proc/uptime; }
modprobe -q virtio_rng
ip link set lo up
sysctl -qw net.core.bpf_jit_enable=1
echo "vm: booted $(uname -r) $(up)"

mapfile -t words </lbr/arguments
cd /lbr || exit
bash "/lbr/suite.sh" "${words[@]}" </dev/null 2>&1
echo "vm: ended $? $(up)"
echo o >/proc/sysrq-trigger
sleep 60

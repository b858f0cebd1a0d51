"""Runs end-to-end tests with real KVM where the machine has none: python3 tests/kvm.py [PATTERN] (make test-kvm T=PATTERN).

QEMU's emulated processor has AMD's virtualisation, nested pages included.  So a Debian 12 in it, whose kernel is Debian's,
has a /dev/kvm that works, and sbx takes it there: the probe, cold boots, memory frozen and cloned, clocks, stops.  All of
that is some ten times slower than on a processor, and no figure of it says anything of one.

The Debian is made once and kept ($XDG_CACHE_HOME/sbx-tests); each run works on an overlay of it.  The base image and the
build come on a second disk.  Nothing of the host can be reached but what QEMU's user network reaches: the mirrors."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))
import guestvm

BUILD = ROOT / "build-kvm"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "sbx-tests"
PACKAGES = """linux-image-cloud-amd64 udev kmod iproute2 procps ca-certificates
 qemu-system-x86 qemu-utils seabios e2fsprogs erofs-utils mmdebstrap uidmap
 libncursesw6 libvterm0 libcurl4 libjansson4 libsodium23 libevent-2.1-7 libevent-pthreads-2.1-7 libseccomp2 libsqlite3-0
 libnghttp2-14 libpsl5 libidn2-0 libssl3 libfuse3-3 libsystemd0 libarchive13
 python3 python3-h2 tmux git openssl curl iputils-ping strace dbus npm""".split()
# Those of a machine, in the order of what a failure of one would mean for the next.
PATTERN = r"^test_sandbox\.(Machine|Failure)|^test_supervisor"
# First it finds its way to what was brought along; the status goes where nothing else writes.
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=xterm XDG_RUNTIME_DIR=/run/user/0 SBX_BUILD=build-kvm
for m in "proc /proc" "sysfs /sys" "devtmpfs /dev" "devpts /dev/pts" "tmpfs /dev/shm" "tmpfs /tmp" "tmpfs /run" "cgroup2 /sys/fs/cgroup"; do
    set -- $m; mkdir -p $2; mountpoint -q $2 || mount -t $1 none $2
done
mkdir -p -m 700 $XDG_RUNTIME_DIR; echo 1 > /proc/sys/kernel/printk
for m in fuse tun virtio_rng virtio_net kvm_amd; do modprobe $m; done
hostname kvm; ip link set lo up; for i in /sys/class/net/e*; do ip link set ${i##*/} up; ip addr add 10.0.2.15/24 dev ${i##*/}; done
ip route add default via 10.0.2.2; echo nameserver 10.0.2.3 > /etc/resolv.conf
mkdir /root/sbx; tar x -C /root/sbx -f /dev/vdb; cd /root/sbx
mkdir -p /root/.local/share/sbx/images; mv image/* /root/.local/share/sbx/images/; cp -r home/. /root/; cp -r etc/. /etc/
ls /dev/kvm && build-kvm/sbx doctor | grep KVM && python3 tests/e2e/run.py "$(cat pattern)"; echo "status $?" > /dev/ttyS1
sync; echo o > /proc/sysrq-trigger; sleep 60
"""


def debian(at):
    """The tree, packed by mmdebstrap into a file system; made beside and renamed."""
    tar, tree, disk = at.with_suffix(".tar"), at.with_suffix(".tree"), at.with_suffix(".new")
    print("making a Debian 12 to run in (some minutes, once)", flush=True)
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=" + ",".join(PACKAGES), "bookworm", tar], check=True)
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    subprocess.run(["tar", "x", "-f", tar, "-C", tree], check=True)
    (tree / "sbin/test-init").write_text(INIT)
    (tree / "sbin/test-init").chmod(0o755)
    for name in ("vmlinuz", "initrd.img"):  # links to those of the one kernel
        shutil.copy(tree / name, at.with_suffix("." + name))
    disk.unlink(missing_ok=True)
    with open(disk, "wb") as f:
        f.truncate(16 << 30)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk], check=True)
    shutil.rmtree(tree)
    tar.unlink()
    disk.rename(at)


def bring(disk, pattern):
    """What the machine gets: the build, the tests, the base image, and how this host reaches its mirrors."""
    with tempfile.TemporaryDirectory() as d:
        d = pathlib.Path(d)
        (d / "pattern").write_text(pattern)
        (d / "home").mkdir()
        (d / "etc").mkdir()
        for name in (".npmrc", ".gitconfig"):
            if (pathlib.Path.home() / name).exists():
                shutil.copy(pathlib.Path.home() / name, d / "home")
        for name in ("hosts", "apt/sources.list", "apt/sources.list.d", "ssl/certs/ca-certificates.crt"):
            if pathlib.Path("/etc", name).exists():
                (d / "etc" / name).parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if pathlib.Path("/etc", name).is_dir() else shutil.copy)(pathlib.Path("/etc", name), d / "etc" / name)
        image = guestvm.image()
        subprocess.run(["tar", "c", "-f", disk, "--exclude=*.o", "--exclude=__pycache__", "-C", ROOT, BUILD.name, "assets", "tests", "-C", d,
                        "pattern", "home", "etc", f"--transform=s,^{image.name},image/{image.name},", "-C", image.parent, image.name], check=True)
    size = disk.stat().st_size
    os.truncate(disk, (size + 511) // 512 * 512)


def main():
    pattern = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else PATTERN
    if not guestvm.image():
        sys.exit("there is no base image: sbx image build")
    CACHE.mkdir(parents=True, exist_ok=True)
    base = CACHE / f"kvm-{hashlib.sha256((INIT + ' '.join(PACKAGES)).encode()).hexdigest()[:12]}.img"  # another one when that changes
    if not base.exists():
        debian(base)
    with tempfile.TemporaryDirectory(prefix="sbx-kvm-") as d:
        disk, brought, status = (pathlib.Path(d) / n for n in ("disk", "brought", "status"))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, disk], check=True)
        bring(brought, pattern)
        append = f"root=/dev/vda rw console=ttyS0 init=/sbin/test-init quiet mitigations=off nokaslr tsc_early_khz={guestvm.tsc_khz()}"
        subprocess.run([guestvm.QEMU, "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "6144", "-nodefaults",
                        "-display", "none", "-no-reboot", "-serial", "stdio", "-serial", f"file:{status}", "-nic", "user,model=virtio-net-pci",
                        "-kernel", base.with_suffix(".vmlinuz"), "-initrd", base.with_suffix(".initrd.img"), "-append", append,
                        "-drive", f"file={disk},if=virtio,cache=unsafe", "-drive", f"file={brought},format=raw,if=virtio,readonly=on",
                        "-device", "virtio-rng-pci"], stdin=subprocess.DEVNULL)
        ended = status.read_text().split() if status.exists() else []
    sys.exit(int(ended[1]) if ended else "the machine ended before its tests did")


if __name__ == "__main__":
    main()

"""A real QEMU with sbx-guest as init, and nothing else of ours: the tests speak ctl frames themselves.

A machine is booted once to its hello and frozen (Template); each test then gets a clone with a disk of its
own, as `sbx start` makes it (machine.md section 3), so that a test costs a fraction of a second."""
import array
import fcntl
import json
import os
import pathlib
import re
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

from harness import BUILD, DATA, PATIENCE, Limit
from sbxclient import CREDIT, CTRL, DATA as BYTES, EOF as END, WINDOW, Link

MEMORY = 1024
QEMU = shutil.which("qemu-system-x86_64")


def image():
    """The newest base image, or None."""
    found = sorted((DATA / "sbx/images").glob("*/manifest.json"))
    return found[-1].parent if found else None


def tsc_khz():
    """What the kernel found at its own start; without it a boot under emulation hangs at random."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    return int(float(re.search(r"bogomips\s*:\s*([\d.]+)", text)[1]) * 500)


def cpio(path, guest, modules):
    """The initramfs as sbx image pack writes it: a console, /init and the modules in their order."""
    with open(path, "wb") as out:
        def put(name, mode, data=b"", dev=(0, 0), ino=[0]):
            ino[0] += 1
            head = [ino[0], mode, 0, 0, 1, 0, len(data), 0, 0, *dev, len(name) + 1, 0]
            record = b"070701" + b"".join(b"%08X" % v for v in head) + name.encode() + b"\0"
            record += b"\0" * (-len(record) % 4)
            out.write(record + data + b"\0" * (-len(data) % 4))
        put("dev", 0o40755)
        put("dev/console", 0o20600, dev=(5, 1))
        put("modules", 0o40755)
        put("init", 0o100755, pathlib.Path(guest).read_bytes())
        for m in sorted(pathlib.Path(modules).iterdir()):
            put("modules/" + m.name, 0o100644, m.read_bytes())
        put("TRAILER!!!", 0)


def make_disk(path, mib=2048):
    with open(path, "wb") as f:
        f.truncate(mib << 20)
    mkfs = shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    subprocess.run([mkfs, "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", path],
                   check=True)


class Qmp:
    def __init__(self, sock):
        self.sock = sock
        self.lines = sock.makefile("r")
        json.loads(self.lines.readline())
        self.do("qmp_capabilities")

    def do(self, command, fd=None, **arguments):
        text = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        self.sock.sendmsg([text], fds)
        while True:
            line = self.lines.readline()
            if not line:
                raise EOFError("QEMU is gone")
            m = json.loads(line)
            if "return" in m:
                return m["return"]
            if "error" in m:
                raise AssertionError(f"{command}: {m['error']['desc']}")


class Machine:
    def __init__(self, dir, disk, ram_fd, initrd, incoming, netdev="hubport,id=net,hubid=0", extra=()):
        img = image()
        self.dir = dir
        pairs = {k: socket.socketpair() for k in ("ctl", "fs", "console", "qmp")}
        cmd = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
               "-accel", "tcg,thread=single", "-M", "microvm,x-option-roms=off,isa-serial=off,ioapic2=off,memory-backend=ram0", "-cpu", "max,erms=off,la57=off",
               "-smp", "1", "-m", str(MEMORY), "-global", "virtio-mmio.force-legacy=off",
               "-global", "migration.store-global-state=off",
               "-object", f"memory-backend-file,id=ram0,size={MEMORY}M,mem-path=/proc/self/fd/{ram_fd},"
                          f"share={'off' if incoming else 'on'}",
               "-kernel", str(img / "vmlinux"), "-initrd", str(initrd),
               "-append", "console=hvc0 quiet reboot=t panic=-1 8250.nr_uarts=0 cryptomgr.notests "
                          f"tsc_early_khz={tsc_khz()} tsc=reliable norandmaps init_on_alloc=0 hardened_usercopy=off "
                          "cgroup.memory=nokmem rcu_nocbs=all rcutree.enable_rcu_lazy=1",
               "-drive", f"if=none,id=base,format=raw,read-only=on,file.locking=off,file={img / 'base.erofs'}",
               "-device", "virtio-blk-device,drive=base",
               "-drive", f"if=none,id=disk,format=raw,discard=unmap,file.locking=off,file={disk}",
               "-device", "virtio-blk-device,drive=disk",
               "-netdev", netdev, "-device", "virtio-net-device,netdev=net,guest_announce=off,host_mtu=65520",
               "-device", "virtio-serial-device,id=ports,max_ports=4"]
        for nr, (name, device) in enumerate((("console", "virtconsole"), ("ctl", "virtserialport,name=sbx.ctl"),
                                             ("fs", "virtserialport,name=sbx.fs"))):
            cmd += ["-chardev", f"socket,id={name},fd={pairs[name][1].fileno()}",
                    "-device", f"{device},nr={nr},bus=ports.0,chardev={name}"]
        cmd += ["-device", "virtio-rng-device", "-device", "pvpanic", "-action", "panic=shutdown",
                "-chardev", f"socket,id=qmp,fd={pairs['qmp'][1].fileno()}", "-mon", "chardev=qmp,mode=control"]
        cmd += extra
        if incoming:
            cmd += ["-incoming", "defer"]
        self.console = b""
        self.born = time.monotonic()
        with open(dir / "qemu.log", "ab") as log:
            self.proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                                         pass_fds=[ram_fd] + [p[1].fileno() for p in pairs.values()])
        for p in pairs.values():
            p[1].close()
        self.fs = pairs["fs"][0]
        threading.Thread(target=self.read_console, args=(pairs["console"][0],), daemon=True).start()
        self.guest = Guest(pairs["ctl"][0])
        self.qmp = Qmp(pairs["qmp"][0])

    def read_console(self, sock):
        with sock:
            while data := sock.recv(4096):
                self.console = (self.console + data)[-65536:]

    def wait_end(self, seconds):
        return self.proc.wait(max(seconds, PATIENCE))

    def close(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()
        self.qmp.lines.close()
        for s in (self.fs, self.guest.sock, self.qmp.sock):
            s.close()


class Template:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sbx-guest-"))
        self.initrd = self.dir / "initrd"
        cpio(self.initrd, BUILD / "sbx-guest", image() / "modules")
        self.blank = self.dir / "blank"
        make_disk(self.blank)
        self.n = 0
        self.ram = os.memfd_create("template", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.ram, MEMORY << 20)
        self.state = os.open(self.dir / "state", os.O_RDWR | os.O_CREAT)
        vm = Machine(self.dir, self.blank, self.ram, self.initrd, False)
        try:
            self.hello = vm.guest.get(180)[3]
            self.boot_ms = (time.monotonic() - vm.born) * 1e3
            vm.qmp.do("stop")
            self.capability(vm)
            vm.qmp.do("getfd", fd=self.state, fdname="state")
            vm.qmp.do("migrate", uri="fd:state")
            while (s := vm.qmp.do("query-migrate")["status"]) != "completed":
                assert s in ("setup", "active", "device"), s
            vm.qmp.do("quit")
            vm.wait_end(10)
        finally:
            vm.close()
        # What a clone could write to would be in every later one.
        fcntl.fcntl(self.ram, 1033, 1 | 2 | 4 | 8)

    @staticmethod
    def capability(vm):
        vm.qmp.do("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def disk(self):
        self.n += 1
        path = self.dir / f"disk{self.n}"
        subprocess.run(["cp", "--sparse=always", self.blank, path], check=True)
        return path

    def clone(self, disk=None):
        vm = Machine(self.dir, disk or self.disk(), self.ram, self.initrd, True)
        self.capability(vm)
        os.lseek(self.state, 0, os.SEEK_SET)
        vm.qmp.do("getfd", fd=self.state, fdname="state")
        vm.qmp.do("migrate-incoming", uri="fd:state")
        while vm.qmp.do("query-status")["status"] == "inmigrate":
            time.sleep(0.001)
        vm.qmp.do("cont")
        return vm

    def close(self):
        os.close(self.ram)
        os.close(self.state)
        shutil.rmtree(self.dir)


class Session:
    def __init__(self, guest, chan):
        self.guest, self.chan = guest, chan
        self.out = [b"", b""]
        self.ended = [False, False]
        self.exit = None
        self.sent = 0
        self.hold = False  # grant nothing, as a client that does not read
        self.owed = [0, 0]

    def send(self, data, eof=False):
        """Never beyond the credit: that would be a protocol error."""
        at = 0
        while at < len(data):
            room = self.guest.credit.get((self.chan, 0), WINDOW) - self.sent
            if room <= 0:
                self.guest.turn(30)
                continue
            part = data[at:at + min(room, 65536)]
            self.guest.send(BYTES, part, self.chan)
            at += len(part)
            self.sent += len(part)
            self.guest.poll()
        if eof:
            self.guest.send(END, b"", self.chan)

    def until(self, check, seconds=PATIENCE):
        limit = Limit(max(seconds, PATIENCE))
        while not check(self):
            if limit.over():
                raise TimeoutError(f"session {self.chan}: {self.out[0][-200:]!r} {self.out[1][-200:]!r}")
            self.guest.turn(1)
        return self

    def wait(self, seconds=PATIENCE):
        self.until(lambda s: s.exit and all(s.ended), seconds)
        self.guest.ctrl(op="close", chan=self.chan)
        del self.guest.sessions[self.chan]
        return self

    def release(self):
        self.hold = False
        for i in range(2):
            if self.owed[i]:
                self.guest.grant_bytes(self.chan, i, self.owed[i])
                self.owed[i] = 0


class Guest(Link):
    """The supervisor's end of ctl. Credits per session, so that a test can be a client that does not read."""

    def __init__(self, sock):
        super().__init__(sock)
        self.grant = False
        self.sessions = {}
        self.notes = []

    def grant_bytes(self, chan, stream, n):
        self.send(CREDIT, struct.pack("<I", n), chan, stream)

    def take(self, frame):
        kind, stream, chan, payload = frame
        s = self.sessions.get(chan if kind != CTRL else payload.get("chan"))
        if kind == CTRL:
            if payload["op"] == "exit" and s:
                s.exit = payload
            else:
                self.notes.append(payload)
        elif s and kind == BYTES:
            s.out[stream] += payload
            if s.hold:
                s.owed[stream] += len(payload)
            else:
                self.grant_bytes(chan, stream, len(payload))
        elif s and kind == END:
            s.ended[stream] = True

    def turn(self, seconds):
        """Waits for something: a frame, or credit."""
        while self.frames:
            self.take(self.frames.pop(0))
            return
        before = sum(self.credit.values())
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.take(self.read(0.02))
                return
            except TimeoutError:
                if sum(self.credit.values()) != before:
                    return

    def poll(self):
        while self.frames or select.select([self.sock], [], [], 0)[0]:
            try:
                self.take(self.frames.pop(0) if self.frames else self.read(0))
            except TimeoutError:
                return

    def ask(self, op, timeout=PATIENCE, **args):
        ident, self.next_id = self.next_id, self.next_id + 1
        self.ctrl(op=op, id=ident, **args)
        limit = Limit(timeout)
        while not limit.over():
            for n in self.notes:
                if n["op"] == "reply" and n["id"] == ident:
                    self.notes.remove(n)
                    return n
            self.turn(1)
        raise TimeoutError(op)

    def note(self, op, seconds=PATIENCE):
        limit = Limit(seconds)
        while not limit.over():
            for n in self.notes:
                if n["op"] == op:
                    self.notes.remove(n)
                    return n
            self.turn(0.2)
        raise TimeoutError(op)

    def configure(self, **more):
        now = time.time()
        args = {"clock": [int(now), int(now % 1 * 1e9)], "seed": os.urandom(32).hex(), "hostname": "box",
                "machine_id": os.urandom(16).hex(), "uid": 1000, "gid": 1000, "env": {}, "files": [], "folders": []}
        args.update(more)
        return self.ask("configure", **args)

    def open(self, *argv, hold=False, **more):
        chan, self.next_chan = self.next_chan, self.next_chan + 1
        s = self.sessions[chan] = Session(self, chan)
        s.hold = hold
        s.reply = self.ask("open", chan=chan, argv=list(argv), tty=more.pop("tty", False), **more)
        if not s.reply["ok"]:
            del self.sessions[chan]
        elif more.get("term"):
            s.ended[1] = True
        return s

    def sh(self, script, seconds=60, stdin=b"", **more):
        """Runs a script to its end: (status, stdout, stderr)."""
        s = self.open("sh", "-c", script, **more)
        assert s.reply["ok"], s.reply
        s.send(stdin, eof=True)
        s.wait(seconds)
        return s.exit.get("status", -s.exit.get("signal", 0)), s.out[0].decode(), s.out[1].decode()

"""Figures of a whole machine, each beside a peer of the same run (make bench; arguments name sections).

The peers: the bare QEMU with the same kernel and an init that prints at once; QEMU's own user network; virtiofsd; the
guest's own disk; a pipe of the host.  The peer machine has the same kernel, base image, memory and processor count, and
sbx-guest as its init (tests/e2e/guestvm.py), so that only what is measured differs.  Medians; a shared machine is noisy,
so read the ratios."""
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import guestvm
from harness import SBX, Home, wait_for

RUNS = int(os.environ.get("RUNS", "7"))
CPUS, MEMORY = "1", str(guestvm.MEMORY)
VIRTIOFSD = next((p for p in ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd") if os.path.exists(p)), None)


def timed(f):
    t = time.monotonic()
    f()
    return time.monotonic() - t


def median(f, n=RUNS):
    return statistics.median(timed(f) for _ in range(n))


def line(what, value, unit, peer=None, of=None, goal=""):
    text = f"{what:<46} {value:9.1f} {unit:<5}"
    if peer:
        text += f" {value / peer:6.2f} x {of} ({peer:.1f})"
    print(text + (f"   goal: {goal}" if goal else ""), flush=True)


# ---- the peer machine ----

class Peer:
    """Booted, configured, with the given devices; sh() as root."""

    def __init__(self, netdev, extra=()):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sbx-peer-"))
        initrd, disk = self.dir / "initrd", self.dir / "disk"
        guestvm.cpio(initrd, guestvm.BUILD / "sbx-guest", guestvm.image() / "modules")
        guestvm.make_disk(disk, 8192)
        ram = os.memfd_create("ram")
        os.ftruncate(ram, guestvm.MEMORY << 20)
        self.vm = guestvm.Machine(self.dir, disk, ram, initrd, False, netdev, extra)
        os.close(ram)
        self.vm.guest.get(60)
        assert self.vm.guest.configure()["ok"]

    def sh(self, script, stdin=b""):
        status, out, error = self.vm.guest.sh(script, 600, stdin, user="root")
        assert status == 0, error
        return out

    def close(self):
        self.vm.close()
        shutil.rmtree(self.dir)


class Ours:
    def __init__(self, home, name):
        self.home, self.name = home, name

    def sh(self, script, stdin=b""):
        r = self.home.run("exec", "-i", self.name, "sh", "-c", script, input=stdin, timeout=600)
        assert r.returncode == 0, r.stderr
        return r.stdout.decode()


# ---- start ----

def bare_boot():
    """From exec of QEMU to the first byte that init prints."""
    d = pathlib.Path(tempfile.mkdtemp(prefix="sbx-bare-"))
    try:
        (d / "init.c").write_text('#include <unistd.h>\nint main(void){write(1,"READY\\n",6);for(;;)pause();}\n')
        subprocess.run(["gcc", "-O2", "-static", "-s", "-Wno-unused-result", "-o", d / "init", d / "init.c"], check=True)
        (d / "none").mkdir()
        guestvm.cpio(d / "initrd", d / "init", d / "none")
        times = []
        for _ in range(RUNS):
            t = time.monotonic()
            q = subprocess.Popen(
                [guestvm.QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M",
                 "microvm,x-option-roms=off", "-accel", "tcg,thread=single", "-cpu", "max,erms=off,la57=off", "-smp", CPUS, "-m", MEMORY, "-kernel",
                 guestvm.image() / "vmlinux", "-initrd", d / "initrd", "-serial", "stdio", "-append",
                 f"console=ttyS0 quiet reboot=t panic=-1 cryptomgr.notests tsc_early_khz={guestvm.tsc_khz()}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            seen = b""
            while b"READY" not in seen:
                seen += os.read(q.stdout.fileno(), 4096) or sys.exit("the bare machine ended")
            times.append(time.monotonic() - t)
            q.kill()
            q.wait()
            q.stdout.close()
        return statistics.median(times) * 1e3
    finally:
        shutil.rmtree(d)


def start(h):
    def start_and_exec(name, before):
        times = []
        for _ in range(RUNS):
            before(name)
            t = time.monotonic()
            h.sbx("start", name)
            h.sbx("exec", name, "true")
            times.append(time.monotonic() - t)
        return statistics.median(times) * 1e3

    def create(name):
        h.run("rm", "-f", name)
        h.sbx("create", "--name", name, "--cpus", CPUS, "--memory", MEMORY, "shell", h.ws)

    bare = bare_boot()
    line("bare machine to the first byte of its init", bare, "ms")
    h.sbx("config", "set", "vm.clone", "false")
    create("a")
    h.sbx("start", "a")
    cold = start_and_exec("a", lambda n: h.sbx("stop", n))
    line("start to first output of exec, cold boot", cold, "ms", bare, "the bare machine", "1.3")
    h.sbx("config", "set", "vm.clone", "true")
    create("b")
    h.sbx("start", "b")  # makes the template, and stays: its pages are shared
    time.sleep(2)
    line("the same of a new sandbox, by a clone", start_and_exec("c", create), "ms", cold, "the cold boot", "0.1")
    h.sbx("stop", "c")
    h.sbx("start", "c")
    line("the same of a stopped one, by a clone", start_and_exec("c", lambda n: h.sbx("stop", n)), "ms", cold,
         "the cold boot", "0.1")


# ---- the cable ----

CLIENT = """
import socket, sys, time
host, what, size = socket.gethostbyname(sys.argv[1]), sys.argv[2], int(sys.argv[4])
def dial():
    return socket.create_connection((host, int(sys.argv[3])))
buf = bytearray(1 << 20)
if what == "connect":
    t = time.monotonic()
    for _ in range(size):
        dial().close()
    print((time.monotonic() - t) / size * 1e6)
elif what == "echo":
    with dial() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(b"E"); s.recv(1)
        t = time.monotonic()
        for _ in range(size):
            s.sendall(b"E"); s.recv(1)
        print((time.monotonic() - t) / size * 1e6)
else:
    with dial() as s:
        s.sendall(what[0].upper().encode())
        t = time.monotonic(); n = 0
        if what == "down":
            while n < size << 20:
                n += s.recv_into(buf)
        else:
            while n < size << 20:
                s.sendall(buf); n += len(buf)
            s.shutdown(socket.SHUT_WR); s.recv(1)
        print(n / (time.monotonic() - t) / 1e6)
"""


def serve(listener):
    def one(c):
        with c:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kind, zeros = c.recv(1), bytes(1 << 20)
            try:
                if kind == b"D":
                    while True:
                        c.sendall(zeros)
                elif kind == b"U":
                    while c.recv(1 << 20):
                        pass
                    c.sendall(b".")
                while kind == b"E":
                    c.sendall(b"E")
                    kind = c.recv(1)
            except OSError:
                pass
    while True:
        try:
            c, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=one, args=(c,), daemon=True).start()


def net(h):
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    port = listener.getsockname()[1]
    h.sbx("policy", "allow", "network", "-g", f"localhost:{port}")
    peer = Peer("user,id=net,net=10.113.0.0/24,host=10.113.0.1")
    try:
        peer.sh("ip neigh flush dev eth0; ip -4 neigh del 10.113.0.1 dev eth0 || true; ip -6 addr flush dev eth0")
        ends = ((Ours(h, "b"), "host.docker.internal"), (peer, "10.113.0.1"))

        def measure(what, size):
            found = []
            for who, host in ends:
                n = [float(who.sh(f"python3 - {host} {what} {port} {size}", CLIENT.encode())) for _ in range(3)]
                found.append(statistics.median(n))
            return found
        user = "QEMU's user network"
        line("stream into the machine", *_with(measure("down", 192), "MB/s", user), goal="2")
        line("stream out of the machine", *_with(measure("up", 192), "MB/s", user), goal="2")
        line("connect", *_with(measure("connect", 100), "us", user))
        line("round trip of a byte", *_with(measure("echo", 500), "us", user))
    finally:
        peer.close()
        listener.close()


def _with(pair, unit, name):
    return pair[0], unit, pair[1], name


# ---- exec and terminals ----

def sessions(h):
    line("exec true, round trip", median(lambda: h.sbx("exec", "b", "true"), 20) * 1e3, "ms")
    size = 128
    pipe = size / median(lambda: subprocess.run(["sh", "-c", f"head -c {size}M /dev/zero | cat > /dev/null"]))
    out = size / median(lambda: h.run("exec", "b", "head", "-c", f"{size}M", "/dev/zero"), 3)
    line("exec stream out of the machine", out, "MB/s", pipe, "a pipe of the host")
    data = bytes(size << 20)
    into = size / median(lambda: h.run("exec", "-i", "b", "sh", "-c", "cat > /dev/null", input=data), 3)
    line("exec stream into the machine", into, "MB/s", pipe, "a pipe of the host")
    text = "yes 'a line of some sixty characters, as a build or a test prints it' | head -c 16M"
    own = 16 / median(lambda: subprocess.run(["script", "-qec", text, "/dev/null"], stdout=subprocess.DEVNULL,
                                             stdin=subprocess.DEVNULL), 3)
    tty = 16 / median(lambda: subprocess.run(["script", "-qec", f"{SBX} exec -t b sh -c \"{text}\"", "/dev/null"],
                                             env=h.env, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL), 3)
    line("terminal stream out of the machine", tty, "MB/s", own, "a terminal of the host")


# ---- the workspace ----

WORK = r"""
set -e; d=$1/bench; rm -rf $d; mkdir -p $d; cd $d
cold() { sync; echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null; }
t() { n=$1; shift; s=$(date +%s%N); "$@" >/dev/null 2>&1; e=$(date +%s%N); echo "$n $(( (e-s)/1000000 ))"; }
# Packed, and copied in: virtiofsd holds a descriptor for each file that it ever showed, and a host may allow 20,000.
if ! [ -d /tmp/repo/.git ]; then mkdir -p /tmp/repo; cd /tmp/repo; python3 - <<'P'
import os, tarfile, io
for i in range(100):
    os.mkdir(f"d{i}")
    for k in range(100):
        open(f"d{i}/f{k}", "w").write(f"file {i} {k}\n" * 8)
with tarfile.open("/tmp/t.tar", "w") as t:
    for i in range(5000):
        m = tarfile.TarInfo(f"u{i % 50}/f{i}"); b = b"x" * 2048; m.size = len(b); t.addfile(m, io.BytesIO(b))
P
git init -q .; git config gc.auto 0; git -c core.fsync=none add -A; git -c user.name=x -c user.email=x@x commit -qm x; git repack -adq; cd $d; fi
t "copy in 10,000 files" cp -r --no-preserve=mode /tmp/repo/. .
git update-index -q --refresh || true
cold; t "git status, cold" git status
t "git status, warm" git status
mkdir ../bench-u; cd ../bench-u; t "untar 5,000 files" tar xf /tmp/t.tar; cd $d; rm -rf ../bench-u
t "write 256 MiB" dd if=/dev/zero of=big bs=1M count=256 conv=fsync
cold; t "read 256 MiB, cold" dd if=big of=/dev/null bs=1M
t "read 256 MiB, warm" dd if=big of=/dev/null bs=1M
cd /; rm -rf $d
"""


def work(who, folder):
    out = who.sh(f"bash -s {folder}", WORK.encode())
    return {m[1]: int(m[2]) for m in re.finditer(r"^(.+) (\d+)$", out, re.M)}


def workspace(h):
    shared = pathlib.Path(tempfile.mkdtemp(prefix="sbx-virtiofs-"))
    sock = shared / "sock"
    (shared / "ws").mkdir()
    daemon = peer = None
    try:
        ours = work(Ours(h, "b"), h.ws)
        own = work(Ours(h, "b"), "/home/agent")
        theirs = {}
        if VIRTIOFSD:
            daemon = subprocess.Popen([VIRTIOFSD, f"--socket-path={sock}", "-o", f"source={shared / 'ws'}", "-o", "cache=auto"],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(sock.exists, 10)
            peer = Peer("hubport,id=net,hubid=0", ["-chardev", f"socket,id=vfs,path={sock}", "-device",
                                                   "vhost-user-fs-device,chardev=vfs,tag=ws"])
            peer.sh("mkdir -p /mnt/ws && mount -t virtiofs ws /mnt/ws")
            theirs = work(peer, "/mnt/ws")
        for what, ms in ours.items():
            if what in theirs:
                line(f"workspace: {what}", ms, "ms", theirs[what] or 1, "virtiofsd",
                     "1" if "git" in what or "untar" in what else "")
            line(f"workspace: {what}", ms, "ms", own[what] or 1, "the machine's own disk")
    finally:
        if peer:
            peer.close()
        if daemon:
            daemon.kill()
            daemon.wait()
        shutil.rmtree(shared, ignore_errors=True)


# ---- memory ----

def pss(pid):
    """KiB."""
    try:
        return int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])
    except (OSError, TypeError):
        return 0


def memory(h):
    names = [f"m{i}" for i in range(1, 7)]
    for name in names:
        h.sbx("create", "--name", name, "--cpus", CPUS, "--memory", MEMORY, "shell", h.ws)
        h.sbx("start", name)
    time.sleep(5)
    members = h.family("m2")
    each = {role: pss(pid) / 1024 for role, pid in members.items()}
    print("   " + "  ".join(f"{role} {mib:.1f}" for role, mib in sorted(each.items())))
    line("our own processes, idle", sum(v for k, v in each.items() if k != "qemu"), "MiB", goal="16")
    line("net and broker, idle", each["net"] + each["broker"], "MiB", goal="8")
    line("a cloned sandbox in all, idle, one of six", sum(each.values()), "MiB", goal="40")


def main():
    h = Home()
    try:
        wanted = sys.argv[1:]
        sections = {"start": start, "net": net, "sessions": sessions, "workspace": workspace, "memory": memory}
        if wanted and "start" not in wanted:
            h.sbx("create", "--name", "b", "--cpus", CPUS, "--memory", MEMORY, "shell", h.ws)
            h.sbx("start", "b")
        for name, f in sections.items():
            if not wanted or name in wanted:
                f(h)
    finally:
        h.close()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The supervisor on a real machine: needs build/sbx and a base image (SBX_TEST_IMAGES, else the user's own).

Every test has state folders of its own below one temporary folder; the base image and the frozen machines are shared."""
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Limit, alive, wait_for  # noqa: E402
from sbxclient import CTRL, DATA, Supervisor  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SBX = os.environ.get("SBX") or os.path.join(ROOT, os.environ.get("SBX_BUILD", "build"), "sbx")
IMAGES = os.environ.get("SBX_TEST_IMAGES") or os.path.join(
    os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "sbx", "images")
top = None


def setUpModule():
    global top
    top = tempfile.TemporaryDirectory(prefix="sbx-e2e-")
    for var, sub in (("XDG_DATA_HOME", "d"), ("XDG_RUNTIME_DIR", "r"), ("XDG_CACHE_HOME", "c"), ("XDG_CONFIG_HOME", "f")):
        os.environ[var] = os.path.join(top.name, sub)
        os.makedirs(os.path.join(os.environ[var], "sbx"), mode=0o700)
    os.symlink(IMAGES, os.path.join(os.environ["XDG_DATA_HOME"], "sbx", "images"))
    settings()


def tearDownModule():
    top.cleanup()


def settings(**values):
    if os.environ.get("SBX_TEST_ACCEL", "tcg") == "tcg":
        values["vm.accel"] = "tcg"
    values["version"] = 1
    with open(os.path.join(os.environ["XDG_CONFIG_HOME"], "sbx", "config.json"), "w") as f:
        json.dump(values, f)


def sandbox_dir(name):
    return os.path.join(os.environ["XDG_DATA_HOME"], "sbx", "sandboxes", name)


def children(pid):
    """All descendants, by /proc: {pid: command}."""
    found, todo = {}, [pid]
    while todo:
        p = todo.pop()
        try:
            for line in open(f"/proc/{p}/task/{p}/children").read().split():
                found[int(line)] = open(f"/proc/{line}/comm").read().strip()
                todo.append(int(line))
        except OSError:
            pass
    return found


class Case(unittest.TestCase):
    folders = []

    def create(self, name, folders=(), **more):
        d = sandbox_dir(name)
        os.makedirs(d, mode=0o700, exist_ok=True)
        record = {"version": 1, "name": name, "agent": "shell", "image": sorted(os.listdir(IMAGES))[-1],
                  "folders": [{"path": p, "read_only": ro} for p, ro in folders], "cpus": 1, "memory_mib": 1024,
                  "disk_mib": 20480, "env": {}, "publish": [], "created": int(time.time())}
        record.update(more)
        with open(os.path.join(d, "sandbox.json"), "w") as f:
            json.dump(record, f)

    def start(self, name):
        s = Supervisor(SBX, name)
        self.addCleanup(s.kill)
        m = s.wait_running()
        self.assertEqual(m["op"], "running", (m, self.log(name)))
        return s

    def log(self, name):
        with open(os.path.join(sandbox_dir(name), "sbx.log"), errors="replace") as f:
            return f.read()[-3000:]

    def last(self, name):
        with open(os.path.join(sandbox_dir(name), "last.json")) as f:
            return json.load(f)

    def stop(self, s):
        s.connect().request("stop", timeout_s=10)
        self.assertEqual(s.proc.wait(120), 0)


class Lifecycle(Case):
    def test_start_exec_stop_and_the_disk_survives(self):
        self.create("life")
        s = self.start("life")
        note, out, _ = s.connect().exec(["sh", "-c", "echo kept > ~/kept; sync; exit 7"])
        self.assertEqual(note["status"], 7)
        self.stop(s)
        self.assertEqual(self.last("life")["state"], "stopped")
        self.assertFalse(os.path.exists(s.socket_path()))
        s = self.start("life")
        _, out, _ = s.connect().exec(["sh", "-c", "cat ~/kept"])
        self.assertEqual(out, b"kept\n")
        self.stop(s)

    def test_qemu_is_nobody_in_a_world_of_its_own(self):
        self.create("jail")
        s = self.start("jail")
        qemu = [p for p, c in children(s.proc.pid).items() if c.startswith("qemu")][0]
        status = dict(line.split(":", 1) for line in open(f"/proc/{qemu}/status"))
        self.assertEqual(status["NoNewPrivs"].strip(), "1")
        self.assertEqual(status["Seccomp"].strip(), "2")
        self.assertEqual(int(status["CapEff"], 16), 0)
        if os.geteuid() == 0:
            self.assertEqual(status["Uid"].split(), ["65534"] * 4)
        for ns in ("net", "ipc", "uts", "user"):
            self.assertNotEqual(os.readlink(f"/proc/{qemu}/ns/{ns}"), os.readlink(f"/proc/self/ns/{ns}"), ns)
        # Nothing of the host by path: what it has open are the sandbox's parts, sockets and memory.
        for fd in os.listdir(f"/proc/{qemu}/fd"):
            target = os.readlink(f"/proc/{qemu}/fd/{fd}")
            self.assertRegex(target, r"^(socket:|anon_inode:|pipe:|/memfd:|/dev/(null|urandom|kvm)|.*/(disk|blank-.*|base.erofs|"
                                     r"vmlinux|.*\.cpio))", target)
        self.stop(s)

    def test_a_second_supervisor_is_refused(self):
        self.create("twice")
        s = self.start("twice")
        other = Supervisor(SBX, "twice")
        m = other.wait_running()
        self.assertEqual((m["op"], m["status"]), ("failed", 2))
        self.assertIn("in use", m["error"])
        other.proc.wait(120)
        self.assertEqual(s.connect().exec(["true"])[0]["status"], 0)
        self.stop(s)

    def test_kill_of_the_supervisor_ends_everything(self):
        self.create("killed")
        s = self.start("killed")
        self.assertTrue(wait_for(lambda: len(children(s.proc.pid)) == 5), children(s.proc.pid))
        pids = children(s.proc.pid)
        s.kill()
        self.assertTrue(wait_for(lambda: not any(alive(p) for p in pids)), pids)
        self.assertEqual(self.last("killed")["state"], "running")  # what a reader takes for "killed"
        self.stop(self.start("killed"))

    def test_kill_of_qemu_is_a_failure_and_the_others_do_not_notice(self):
        self.create("victim")
        self.create("bystander")
        s, t = self.start("victim"), self.start("bystander")
        qemu = [p for p, c in children(s.proc.pid).items() if c.startswith("qemu")]
        os.kill(qemu[0], signal.SIGKILL)
        self.assertEqual(s.proc.wait(120), 1)
        last = self.last("victim")
        self.assertEqual(last["state"], "failed")
        self.assertIn("signal 9", last["reason"])
        self.assertEqual(t.connect().exec(["true"])[0]["status"], 0)
        self.stop(self.start("victim"))
        self.stop(t)

    def test_a_kernel_panic_is_named(self):
        self.create("panic")
        s = self.start("panic")
        c = s.connect()
        c.request("exec", chan=1, argv=["sh", "-c", "echo c > /proc/sysrq-trigger"], user="root", tty=False)
        self.assertEqual(s.proc.wait(120), 1)
        self.assertIn("panicked", self.last("panic")["reason"])
        with open(os.path.join(sandbox_dir("panic"), "console.log"), errors="replace") as f:
            self.assertIn("sysrq", f.read())

    def test_power_off_from_inside_is_a_stop(self):
        self.create("off")
        s = self.start("off")
        c = s.connect()
        c.request("exec", chan=1, argv=["sh", "-c", "echo o > /proc/sysrq-trigger"], user="root", tty=False)
        self.assertEqual(s.proc.wait(120), 0)
        self.assertEqual(self.last("off")["state"], "stopped")
        self.assertIn("inside", self.last("off")["reason"])

    def test_helpers_that_die(self):
        self.create("helpers")
        s = self.start("helpers")
        c = s.connect()
        for role, ends in (("screen", False), ("net", True)):
            pid = [p for p in children(s.proc.pid)
                   if open(f"/proc/{p}/cmdline").read().split("\0")[1:2] == [role]]
            os.kill(pid[0], signal.SIGKILL)
            if not ends:
                time.sleep(0.5)
                self.assertEqual(c.exec(["true"])[0]["status"], 0)
        self.assertEqual(s.proc.wait(120), 1)
        self.assertIn("network process", self.last("helpers")["reason"])

    def test_cold_boot_without_clones(self):
        settings(**{"vm.accel": "tcg", "vm.clone": False})
        self.addCleanup(settings, **{"vm.accel": "tcg"})
        self.create("cold")
        s = self.start("cold")
        self.assertEqual(s.connect().exec(["true"])[0]["status"], 0)
        self.assertIn("booting", [m.get("phase") for m in s.messages])
        self.stop(s)

    def test_clones_differ_where_they_must(self):
        seen = []
        for name in ("one", "two"):
            self.create(name)
            s = self.start(name)
            began = time.time()
            _, out, _ = s.connect().exec(
                ["sh", "-c", "cat /etc/machine-id; hostname; head -c 16 /dev/urandom | od -An -tx1; date +%s; "
                 "cat /etc/hostname; getent ahostsv4 $(hostname) | head -n 1; getent hosts localhost"])
            lines = out.decode().split("\n")
            self.assertRegex(lines[0], "^[0-9a-f]{32}$")
            self.assertEqual((lines[1], lines[4]), (name, name))
            self.assertEqual(lines[5].split()[::2], ["127.0.1.1", name])
            self.assertEqual(lines[6].split()[1], "localhost")
            self.assertTrue(began - 5 < int(lines[3]) < time.time() + 5, (began, lines[3]))
            seen.append(lines[:3])
            self.stop(s)
        for a, b in zip(*seen):
            self.assertNotEqual(a, b)

    def test_the_first_session_of_a_clone_is_like_any_other(self):
        """It was begun before the machine was frozen, and waited for its command (guest/start.h)."""
        look = ("id; pwd; umask; ulimit -n; cat /proc/self/oom_score_adj; ls /proc/self/fd | wc -l; env | grep -v ^_= | sort; "
                "ps -o sid=,pgid= $$ | grep -q \"$$ *$$\" && echo leads; cat; "
                # Of itself: a shell that waits has signals blocked now and then.
                "exec grep -E '^(Sig(Blk|Ign)|Groups|Cap|NoNewPrivs)' /proc/self/status")

        def waiting(c):
            # The program that runs for nobody (guest/start.h) ends when the machine has nothing else to do.
            return int(c.exec(["sh", "-c", "for i in $(seq 200); do n=$(ps -eo args= | grep -cx /init); [ $n -gt 1 ] || break; "
                               "sleep 0.1; done; echo $n"])[1]) - 1
        more = {"env": {"A": "b c"}, "cwd": "/usr"}
        self.create("warm")  # the first of all is frozen, and a clone as well
        self.stop(self.start("warm"))
        for name in ("agent", "missing", "root"):
            self.create(name)
            s = self.start(name)
            c = s.connect()
            if name == "agent":
                first, again = (c.exec(["sh", "-c", look], b"in", **more)[1] for _ in range(2))
                self.assertEqual(first, again)
                self.assertIn(b"uid=1000(agent)", first)
                self.assertIn(b"leads\nin", first)
                self.assertIn(b"SigBlk:\t0000000000000000", first)
            elif name == "missing":
                self.assertEqual(c.exec(["/nonexistent"])[0]["status"], 127)
            else:  # who waited fits no other, and ends
                self.assertIn(b"uid=0", c.exec(["id"], user="root")[1])
            self.assertEqual(waiting(c), 0)
            self.stop(s)

    @unittest.skipUnless(os.geteuid() == 0, "mounts a small file system")
    def test_a_full_disk_of_the_host_is_named_and_left_again(self):
        d = sandbox_dir("full")
        os.makedirs(d, mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", d], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", d])
        settings(**{"limit.keep_free": 0})  # else the machine is paused long before
        self.addCleanup(settings)
        self.create("full")
        s = self.start("full")
        c = s.connect()
        c.request("exec", chan=1, tty=False,
                  argv=["sh", "-c", "dd if=/dev/urandom of=$HOME/big bs=1M count=100; sync"])
        self.assertEqual(s.proc.wait(120), 1)
        self.assertIn("disk of this host is full", self.last("full")["reason"])
        subprocess.run(["mount", "-o", "remount,size=512m", d], check=True)
        s = self.start("full")
        self.assertEqual(s.connect().exec(["true"])[0]["status"], 0)
        self.stop(s)

    def test_a_missing_workspace_folder_is_told(self):
        self.create("nowhere", folders=[("/nonexistent/folder", False)])
        s = Supervisor(SBX, "nowhere")
        m = s.wait_running()
        self.assertEqual(m["op"], "failed")
        self.assertIn("/nonexistent/folder", m["error"])
        s.proc.wait(120)
        self.assertEqual(self.last("nowhere")["state"], "failed")


class Sessions(Case):
    @classmethod
    def setUpClass(cls):
        case = Case()
        case.create("s")
        cls.s = Supervisor(SBX, "s")
        m = cls.s.wait_running()
        assert m["op"] == "running", m

    @classmethod
    def tearDownClass(cls):
        cls.s.kill()

    def test_streams_apart_and_status(self):
        note, out, err = self.s.connect().exec(["sh", "-c", "cat; echo no >&2; exit 3"], b"in\n")
        self.assertEqual((note["status"], out, err), (3, b"in\n", b"no\n"))

    def test_what_cannot_be_run(self):
        c = self.s.connect()
        self.assertEqual(c.exec(["/nonexistent"])[0]["status"], 127)
        self.assertEqual(c.exec(["/etc/passwd"])[0]["status"], 126)

    def test_signal_ends_a_session(self):
        c = self.s.connect()
        r = c.request("exec", chan=5, argv=["sleep", "1000"], tty=False)
        c.request("signal", session=r["session"], signal="TERM")
        while True:
            kind, _, _, payload = c.get()
            if kind == CTRL and payload.get("op") == "exit":
                break
        self.assertEqual(payload["signal"], signal.SIGTERM)

    def rss(self):
        return int(open(f"/proc/{self.s.proc.pid}/statm").read().split()[1]) * 4

    def test_a_long_stream_arrives_whole_in_flat_memory(self):
        size = int(os.environ.get("SBX_TEST_STREAM_MIB", "256")) << 20
        c = self.s.connect()
        before = self.rss()
        c.request("exec", chan=1, argv=["sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x"], tty=False)
        got, peak, n = hashlib.sha256(), before, 0
        t = time.monotonic()
        while True:
            kind, stream, _, payload = c.get(120)
            if kind == DATA:
                got.update(payload)
                n += len(payload)
                if n % (16 << 20) < len(payload):
                    peak = max(peak, self.rss())
            elif kind == CTRL and payload.get("op") == "exit":
                break
        print(f"\n  stream: {n / 1e6 / (time.monotonic() - t):.0f} MB/s, +{peak - before} KiB", file=sys.stderr)
        self.assertEqual(n, size)
        want = hashlib.sha256()
        for _ in range(size >> 20):
            want.update(b"x" * (1 << 20))
        self.assertEqual(got.digest(), want.digest())
        if "build-san" not in SBX:  # ASan keeps freed memory
            self.assertLess(peak - before, 4096)

    def test_who_does_not_read_stalls_nobody_else(self):
        stuck = self.s.connect()
        stuck.grant = False
        r = stuck.request("exec", chan=1, argv=["sh", "-c", "yes"], tty=False)
        time.sleep(1)
        c = self.s.connect()
        self.assertEqual(c.exec(["echo", "hi"])[1], b"hi\n")
        c.request("kill", session=r["session"])

    def test_a_piped_session_ends_with_its_client(self):
        c = self.s.connect()
        c.request("exec", chan=1, argv=["sh", "-c", "trap 'exit 0' HUP; sleep 100 & wait"], tty=False)
        c.sock.close()
        d = self.s.connect()
        self.assertTrue(wait_for(lambda: not d.request("status")["sessions"]))

    def read_until(self, c, want, chan, timeout=120):
        out = b""
        limit = Limit(timeout)
        while want not in out and not limit.over():
            kind, _, ch, payload = c.get(timeout)
            if kind == DATA and ch == chan:
                out += payload
        self.assertIn(want, out)
        return out

    def test_a_terminal_outlives_its_client_and_is_repainted(self):
        c = self.s.connect()
        r = c.request("exec", chan=9, argv=["bash", "--norc"], tty=True, rows=24, cols=80, term="xterm-256color",
                      env={"PS1": "$ "})
        c.send(DATA, b"echo mark-$((40+2))\n", 9)
        self.read_until(c, b"mark-42", 9)
        c.sock.close()
        d = self.s.connect()
        time.sleep(0.2)
        a = d.request("attach", chan=3, session=r["session"], rows=30, cols=100, scrollback=100)
        self.assertTrue(a["ok"], a)
        self.read_until(d, b"mark-42", 3)
        d.send(DATA, b"stty size; exit 5\n", 3)
        self.read_until(d, b"30 100", 3)
        while True:
            kind, _, _, payload = d.get()
            if kind == CTRL and payload.get("op") == "exit":
                break
        self.assertEqual(payload["status"], 5)

    def test_two_viewers_and_one_that_is_slow(self):
        c, slow = self.s.connect(), self.s.connect()
        r = c.request("exec", chan=1, argv=["bash", "--norc"], tty=True, rows=24, cols=80)
        slow.grant = False
        self.assertTrue(slow.request("attach", chan=1, session=r["session"], rows=24, cols=80)["ok"])
        c.send(DATA, b"seq 200000; echo end-$((1+1))\n", 1)
        self.read_until(c, b"end-2", 1)
        # It reads again: what it missed is dropped, and it is painted the screen as it stands.
        slow.grant = True
        self.read_until(slow, b"end-2", 1)
        c.request("kill", session=r["session"])

    def test_detached_keeps_its_status(self):
        c = self.s.connect()
        r = c.request("exec", chan=0, argv=["sh", "-c", "exit 4"], tty=False, detach=True)
        def ended():
            return [x for x in c.request("status")["sessions"] if x["session"] == r["session"] and x.get("status") == 4]
        self.assertTrue(wait_for(ended))

    def test_a_client_that_breaks_the_protocol_is_dropped_alone(self):
        for junk in (b"\xff" * 64, b"\x02\x00\x00\x00\x01\x00\x00\x00{]", b"\x00\x00\x00\x00\x63\x00\x00\x00"):
            c = socket.socket(socket.AF_UNIX)
            c.connect(self.s.socket_path())
            c.sendall(junk)
            self.assertTrue(select.select([c], [], [], 60)[0])
            self.assertEqual(c.recv(10), b"")
        self.assertEqual(self.s.connect().exec(["true"])[0]["status"], 0)

    def test_status_counts(self):
        r = self.s.connect().request("status")
        self.assertEqual(r["state"], "running")
        self.assertGreater(r["mem_kib"], 10000)
        self.assertGreater(r["cpu_us"], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)

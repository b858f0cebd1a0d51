"""Any process of sbx may die at any time: `ls` tells the truth, `start` or `rm` gets out of it, nothing is left behind."""
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import pty
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import SBX, Home, alive, kill, wait_for
from webservers import Web

ROUNDS = int(os.environ.get("SBX_ROUNDS", "8"))
ROLES = ("supervise", "broker", "net", "fs", "screen", "qemu", "command")


class Kills(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        h.sbx("create", "--name", "victim", "--cpus", "1", "--memory", "768", "shell", h.ws)
        h.sbx("exec", "victim", "sh", "-c", "echo kept > /home/agent/kept; sync")
        (h.dir / "big").write_bytes(os.urandom(1 << 20) * 24)

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def begin(self, *words):
        return subprocess.Popen([SBX, *map(str, words)], env=self.h.env, cwd=self.h.ws, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def one(self, rng):
        h = self.h
        what = rng.choice(("start", "start", "stop", "exec", "cp in", "cp out", "save", "rm"))
        role = rng.choice(ROLES)
        said = f"{what}, {role}"
        name = "victim"
        if what == "rm":
            name = "other"
            h.sbx("create", "--name", name, "--cpus", "1", "--memory", "768", "shell", h.ws)
        if what == "start":
            h.sbx("stop", name)
        else:
            h.sbx("start", name)
        command = self.begin(*{"start": ("start", name), "stop": ("stop", name), "exec": ("exec", name, "sh", "-c", "yes | head -c 80000000"),
                               "cp in": ("cp", h.dir / "big", f"{name}:/home/agent/big"), "cp out": ("cp", f"{name}:/usr/lib/git-core", h.dir / "out"),
                               "save": ("template", "save", name, "saved"), "rm": ("rm", "--force", name)}[what])
        time.sleep(rng.random() ** 2 * (0.2 if what == "exec" else 1.2))
        victim = command.pid if role == "command" else h.family(name).get(role)
        if victim and alive(victim):
            kill(victim)
        else:
            said += " (was not there)"
        try:
            out = command.communicate(timeout=240)[0]
        except subprocess.TimeoutExpired:
            command.kill()
            self.fail(f"{said}: the command hangs")
        said += f": {command.returncode} {out[-100:]}"
        subprocess.run(["rm", "-rf", h.dir / "out"])
        self.settled(name, said)
        if what == "rm":
            if name in h.ls():
                h.sbx("rm", "--force", name)
            h.sbx("prune", "--filter", "until=900h")
        else:
            h.sbx("start", name)
            self.assertEqual(h.sbx("exec", name, "cat", "/home/agent/kept"), "kept\n", said)
            if what == "save":
                h.run("template", "save", name, "saved")
                self.assertIn("saved", h.sbx("template", "ls"), said)
                h.sbx("template", "rm", "saved")
                h.sbx("start", name)
        return said

    def settled(self, name, said):
        """It is what it is called."""
        h = self.h

        def truth():
            state = h.ls().get(name, {"state": "gone"})["state"]
            if state == "running":
                return h.run("exec", name, "true").returncode == 0 and {"supervise", "qemu", "net", "fs", "broker"} <= set(h.family(name))
            return state in ("stopped", "failed", "gone") and not h.family(name)
        self.assertTrue(wait_for(truth, 40), (said, h.ls().get(name), h.family(name)))

    def test_any_process_at_any_moment(self):
        seed = int(os.environ.get("SBX_SEED", time.time()))
        rng = random.Random(seed)
        for i in range(ROUNDS):
            try:
                said = self.one(rng)
            except Exception as e:
                raise AssertionError(f"round {i} of SBX_SEED={seed}") from e
            if ROUNDS > 20:
                print(f"{i}: {said}", flush=True)
        self.h.sbx("stop", "victim")
        self.assertTrue(wait_for(lambda: self.h.family("victim") == {}), self.h.family("victim"))
        self.assertEqual([p.name for p in (self.h.dir / "data/sbx/sandboxes").iterdir() if p.is_dir()], ["victim"])
        self.assertEqual([p.name for p in (self.h.dir / "run/sbx").iterdir() if p.suffix != ".told"], [])


class States(unittest.TestCase):
    """What may lie about, or happen at once: told in a sentence, and left again by `start` or `rm`."""

    @classmethod
    def setUpClass(cls):
        cls.h = Home()
        cls.box = cls.h.dir / "data/sbx/sandboxes/box"
        cls.config = cls.h.dir / "config/sbx/config.json"

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def create(self, *more):
        self.h.run("rm", "--force", "box")
        self.h.sbx("create", "--name", "box", "shell", *more)

    def together(self, *commands):
        running = [subprocess.Popen([SBX, *map(str, c)], env=self.h.env, cwd=self.h.ws, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE) for c in commands]
        out = [p.communicate(timeout=240) for p in running]
        return [(p.returncode, *o) for p, o in zip(running, out)]

    def test_damaged_records(self):
        for text, word in (("{", "damaged"), ("", "damaged"), ('{"version": 99}', "newer"), ('{"version": 1, "cpus": "x"}', "damaged"), (None, "missing")):
            self.create()
            record = self.box / "sandbox.json"
            record.unlink() if text is None else record.write_text(text)
            row = self.h.ls()["box"]
            self.assertEqual(row["state"], "damaged")
            self.assertIn(word, row["reason"])
            for command in (("start", "box"), ("run", "--name", "box", "--", "-c", "true"), ("inspect", "box")):
                r = self.h.run(*command)
                self.assertEqual(r.returncode, 1, (text, r.stderr))
                self.assertEqual(r.stderr.count(b"\n"), 1, r.stderr)
            self.h.sbx("rm", "--force", "box")
            self.assertEqual(self.h.ls(), {})

    def test_damaged_settings_and_rules(self):
        self.create()
        good = self.config.read_text()
        try:
            for text, word in (("{", b"config.json"), ('{"version": 99}', b"newer"), ('{"nonsense": 1}', b"unknown setting")):
                self.config.write_text(text)
                r = self.h.run("start", "box")
                self.assertEqual(r.returncode, 1)
                self.assertIn(word, r.stderr)
                self.assertEqual(self.h.ls()["box"]["state"], "failed")
        finally:
            self.config.write_text(good)
        policy = self.config.with_name("policy.json")
        good = policy.read_text()
        self.h.sbx("start", "box")
        try:
            policy.write_text("{")
            self.assertEqual(self.h.run("policy", "check", "pypi.org").returncode, 4)
            self.assertTrue(wait_for(lambda: "policy.json" in self.h.ls()["box"]["machine"]["notice"], 5))
            self.assertEqual(self.h.run("policy", "allow", "network", "-g", "example.com").returncode, 1)
        finally:
            policy.write_text(good)
        self.assertTrue(wait_for(lambda: "policy.json" not in self.h.ls()["box"]["machine"]["notice"], 5))
        # Its last state unreadable, a socket that nobody listens on: it starts.
        self.h.sbx("stop", "box")
        (self.box / "last.json").write_text("nonsense")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(self.h.dir / "run/sbx/box.sock"))
        self.assertEqual(self.h.ls()["box"]["state"], "failed")
        self.h.sbx("exec", "box", "true")

    def test_folders_that_cannot_be_shared(self):
        h = self.h
        gone = h.dir / "gone"
        gone.mkdir()
        (h.dir / "link").symlink_to(gone)
        for folder in ("/", "/etc", h.env["HOME"], h.dir, h.dir / "data", h.dir / "data/sbx/sandboxes", h.dir / "config/sbx", h.dir / "run/sbx", "", "/nonexistent",
                       "/etc/passwd"):
            r = h.run("create", "--name", "bad", "shell", folder)
            self.assertEqual((r.returncode, r.stderr.count(b"\n")), (2, 1), (folder, r.stderr))
        self.create(h.dir / "link")
        self.assertEqual(h.ls()["box"]["folders"][0]["path"], str(gone))
        gone.rmdir()
        r = h.run("start", "box")
        self.assertEqual(r.returncode, 1)
        self.assertIn(str(gone).encode(), r.stderr)
        self.assertIn(str(gone), h.ls()["box"]["reason"])

    def test_several_at_once(self):
        h = self.h
        h.run("rm", "--force", "box")
        out = self.together(*[("run", "shell", h.ws, "--", "-c", "echo here")] * 3)
        self.assertEqual([(o[0], o[1]) for o in out], [(0, b"here\n")] * 3, out)
        self.assertEqual(len(h.ls()), 1)
        h.sbx("rm", "--force", *h.ls())
        out = self.together(*[("create", "--name", "box", "shell")] * 3)
        self.assertEqual(sorted(o[0] for o in out), [0, 2, 2])
        out = self.together(*[("exec", "box", "echo", "here")] * 3)
        self.assertEqual([(o[0], o[1]) for o in out], [(0, b"here\n")] * 3, out)
        # A start meets a stop, a stop a start, a removal both.
        for delay in (0.0, 0.2):
            stop = subprocess.Popen([SBX, "stop", "box"], env=h.env)
            time.sleep(delay)
            h.sbx("start", "box")
            self.assertEqual(stop.wait(240), 0)
            h.sbx("stop", "box")
            start = subprocess.Popen([SBX, "start", "box"], env=h.env, stderr=subprocess.DEVNULL)
            time.sleep(delay)
            h.sbx("stop", "box")
            start.wait(240)
            self.assertTrue(wait_for(lambda: not h.family("box") or h.ls()["box"]["state"] == "running", 20))
            h.sbx("stop", "box")
        start = subprocess.Popen([SBX, "start", "box"], env=h.env, stderr=subprocess.DEVNULL)
        time.sleep(0.1)
        h.sbx("rm", "--force", "box")
        start.wait(240)
        self.assertEqual((h.ls(), h.family("box")), ({}, {}))

    def test_removed_while_somebody_is_attached(self):
        h = self.h
        self.create()
        h.sbx("start", "box")
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(SBX, ["sbx", "run", "--name", "box"], h.env)
        seen = b""
        while b"agent@box" not in seen:
            seen += os.read(fd, 4096)
        h.sbx("rm", "--force", "box")
        try:
            while os.read(fd, 4096):
                pass
        except OSError:
            pass
        self.assertNotEqual(os.waitpid(pid, 0)[1], 0)
        os.close(fd)
        self.assertEqual((h.ls(), h.family("box")), ({}, {}))

    def test_a_computer_that_sleeps_takes_nothing_away(self):
        """All stops at once, and each waiting call ends early, as when a laptop is shut: what is under way goes on."""
        h = self.h
        self.create(h.ws)
        server = Web()
        self.addCleanup(server.shutdown)
        h.sbx("config", "set", "net.map", f"asleep.test:80=127.0.0.1:{server.port}")
        h.sbx("policy", "allow", "network", "-g", "asleep.test")
        h.sbx("start", "box")
        family = h.family("box")
        data = os.urandom(1 << 20) * 8
        want = hashlib.sha256(data).hexdigest().encode()
        begin = lambda script: subprocess.Popen([SBX, "exec", "-i", "box", "sh", "-ec", script], env=h.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        work = {begin("sha256sum | head -c 64"): (data, want), begin("cat"): (data, data),
                begin(f"cd {h.ws}; cat > a; for i in $(seq 30); do mkdir d$i; cp a d$i/b; mv d$i e$i; cmp a e$i/b; rm -r e$i; done; sync; cat a"): (data[:99999], data[:99999]),
                begin("curl -sS http://asleep.test/big?8388608 | wc -c"): (b"", b"8388608\n"),
                begin("for i in $(seq 20); do curl -sS http://asleep.test/; done"): (b"", b"hello\n" * 20)}
        over = threading.Event()

        def sleep():
            while not over.wait(0.02):
                pids = [*family.values(), *(p.pid for p in work if p.returncode is None)]
                for number in (signal.SIGSTOP, signal.SIGCONT):
                    for pid in pids:
                        with contextlib.suppress(ProcessLookupError):  # a client that is done
                            os.kill(pid, number)
                    time.sleep(0.005)
        sleeper = threading.Thread(target=sleep)
        sleeper.start()
        try:
            with concurrent.futures.ThreadPoolExecutor() as several:
                got = list(several.map(lambda p: p.communicate(work[p][0], timeout=240)[0], work))
        finally:
            over.set()
            sleeper.join()
        self.assertEqual([p.returncode for p in work], [0] * len(work))
        self.assertEqual([g == w for g, (_, w) in zip(got, work.values())], [True] * len(work), [g[-100:] for g in got])
        self.assertEqual((h.ls()["box"]["state"], h.family("box")), ("running", family))
        h.sbx("policy", "log", "--verify", "box")

    def test_a_supervisor_that_hangs_holds_nobody_up(self):
        h = self.h
        self.create()
        h.sbx("start", "box")
        supervisor = h.family("box")["supervise"]
        os.kill(supervisor, signal.SIGSTOP)
        # More than its queue takes.
        queue = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(200)]
        for s in queue:
            try:
                s.connect(str(h.dir / "run/sbx/box.sock"))
            except OSError:
                break
        self.assertTrue(wait_for(lambda: "does not answer" in h.ls()["box"]["reason"], 15), h.ls()["box"])
        for s in queue:
            s.close()
        h.sbx("stop", "box", "--timeout", "1")  # it is ended for it
        self.assertFalse(alive(supervisor))
        self.assertEqual(h.ls()["box"]["state"], "failed")
        h.sbx("exec", "box", "true")

    def test_two_hundred_sandboxes(self):
        h = self.h
        for i in range(200):
            d = h.dir / f"data/sbx/sandboxes/many-{i}"
            d.mkdir()
            (d / "sandbox.json").write_text(json.dumps({"version": 1, "agent": "shell", "cpus": 1, "memory_mib": 768, "disk_mib": 2048, "created": i}))
        self.assertEqual(len([n for n in h.ls() if n.startswith("many-")]), 200)
        self.assertEqual(h.sbx("ls", "-q").count("many-"), 200)
        h.sbx("prune", "--force")
        self.assertEqual([n for n in h.ls() if n.startswith("many-")], [])

    @unittest.skipUnless(os.geteuid() == 0, "mounts a small file system")
    def test_no_room_and_nothing_to_write(self):
        h = self.h
        self.create()
        # Read-only, then full: a sentence, and the truth.
        subprocess.run(["mount", "--bind", self.box, self.box], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", self.box], check=True)
            r = h.run("start", "box")
            self.assertEqual((r.returncode, r.stderr.count(b"\n")), (1, 1), r.stderr)
            self.assertIn(b"Read-only", r.stderr)
            self.assertEqual(h.ls()["box"]["state"], "stopped")
        finally:
            subprocess.run(["umount", "-l", self.box])
        h.sbx("exec", "box", "true")

    def test_that_machines_are_emulated_is_said_once(self):
        h = self.h
        self.create()
        first = h.run("start", "box").stderr
        h.sbx("stop", "box")
        self.assertNotIn(b"emulation", h.run("start", "box").stderr)
        if h.ls()["box"]["machine"]["accel"] == "tcg":
            self.assertIn("(emulated)", h.sbx("ls"))
            (h.dir / "run/sbx/emulation.told").unlink()
            h.sbx("stop", "box")
            first = h.run("start", "box").stderr
            self.assertIn(b"emulation", first)

    def test_interrupted_builds_leave_nothing(self):
        h = self.h
        env = dict(h.env, XDG_DATA_HOME=str(h.dir / "elsewhere"))
        images = h.dir / "elsewhere/sbx/images"
        for sig in (signal.SIGINT, signal.SIGKILL):
            build = subprocess.Popen([SBX, "image", "build"], env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for line in build.stderr:
                if b"fetching" in line:
                    break
            else:
                self.skipTest("nothing can be fetched here")
            work = [f.read_text() for f in images.glob(".making-*/work")]
            build.send_signal(sig)
            build.wait(240)
            build.stderr.close()

            def gone():
                at_work = [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if any(w.encode() in p.read_bytes() for w in [*work, str(images)])]
                return not at_work and not list(images.glob(".making-*")) and not any(map(os.path.exists, work))

            def check():
                try:
                    return gone()
                except OSError:  # a process that ends while we look
                    return False
            self.assertTrue(wait_for(check, 25), (work, list(images.iterdir())))


if __name__ == "__main__":
    unittest.main(verbosity=2)

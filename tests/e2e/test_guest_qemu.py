"""sbx-guest in a real machine, spoken to directly: what it owes the supervisor, whoever that is."""
import hashlib
import os
import statistics
import subprocess
import time
import unittest

import guestvm
from guestvm import BYTES, Session
from harness import BUILD, wait_for

template = None


def setUpModule():
    global template
    if not guestvm.QEMU or not guestvm.image() or not (BUILD / "sbx-guest").exists():
        raise unittest.SkipTest("needs QEMU, a base image and a build")
    template = guestvm.Template()


def tearDownModule():
    if template:
        template.close()


def tty(guest, *argv, rows=24, cols=80, **more):
    s = guest.open(*argv, tty=True, rows=rows, cols=cols, term="xterm-256color", **more)
    assert s.reply["ok"], s.reply
    return s


class Case(unittest.TestCase):
    def start(self, disk=None, **settings):
        vm = template.clone(disk)
        self.addCleanup(vm.close)
        reply = vm.guest.configure(**settings)
        self.assertTrue(reply["ok"], reply)
        return vm


class Shared(Case):
    """Tests that leave the machine as they found it share one."""

    @classmethod
    def setUpClass(cls):
        cls.vm = template.clone()
        cls.addClassCleanup(cls.vm.close)
        cls.g = cls.vm.guest
        reply = cls.g.configure(env={"COLOUR": "blue", "KEPT": "yes"})
        assert reply["ok"], reply


class Streams(Shared):
    def test_streams_are_apart_and_the_status_is_the_programs(self):
        self.assertEqual(self.g.sh("cat; echo bad >&2; exit 7", stdin=b"good"), (7, "good", "bad\n"))
        self.assertEqual(self.g.sh("kill -KILL $$")[0], -9)
        self.assertEqual(self.g.sh("exit 255")[0], 255)

    def test_what_cannot_run_says_why(self):
        for argv, status in ((["/nowhere/x"], 127), (["nothing-of-this-name"], 127), (["/etc"], 126),
                             (["/etc/passwd"], 126)):
            s = self.g.open(*argv)
            self.assertFalse(s.reply["ok"])
            self.assertEqual(s.reply["status"], status, s.reply)
            self.assertIn(argv[0], s.reply["error"])
        self.assertIn("nobody-here", self.g.open("true", user="nobody-here").reply["error"])
        self.assertFalse(self.g.open().reply["ok"])
        self.assertIn("/nowhere", self.g.open("true", cwd="/nowhere").reply["error"])

    def test_a_hundred_megabytes_both_ways(self):
        block = os.urandom(1 << 20)
        s = self.g.open("cat")
        sent, got, n = hashlib.sha256(), hashlib.sha256(), 0

        def drain():
            nonlocal n
            got.update(s.out[0])
            n += len(s.out[0])
            s.out[0] = b""
        t = time.monotonic()
        for i in range(100):
            part = block[i:] + block[:i]
            sent.update(part)
            s.send(part, eof=i == 99)
            drain()
        s.wait(120)
        drain()
        print(f"[{2 * n / (time.monotonic() - t) / 1e6:.0f} MB/s through cat, both ways together] ", end="")
        self.assertEqual((n, got.digest()), (100 << 20, sent.digest()))

    def test_a_flood_does_not_delay_keystrokes(self):
        flood = self.g.open("sh", "-c", "while :; do cat /dev/zero; done")
        shell = tty(self.g, "cat")
        flood.until(lambda s: len(s.out[0]) > 1 << 20)
        flood.out[0] = b""
        took, flooded = [], []
        for i in range(30):
            mark = b"k%dz" % i
            t = time.monotonic()
            shell.send(mark)
            shell.until(lambda s: mark in s.out[0])
            took.append((time.monotonic() - t) * 1e3)
            flooded.append(len(flood.out[0]))
            flood.out[0] = b""
            time.sleep(0.01)
        self.assertGreater(sum(flooded), 1 << 20)
        self.g.ask("kill", chan=flood.chan)
        flood.wait()
        shell.send(b"\n\x04")
        shell.wait()
        print(f"[echo beside a flood: {statistics.median(took):.1f} ms, {statistics.median(flooded)} bytes] ", end="")
        self.assertLess(statistics.median(flooded), 1 << 20)  # that much of it came before

    def test_a_reader_that_stops_costs_nothing_and_loses_nothing(self):
        # More than the window, less than window and pipe: the program ends, the rest waits in the pipe.
        s = self.g.open("head", "-c", "400000", "/dev/zero", hold=True)
        s.until(lambda s: len(s.out[0]) >= 256 * 1024)
        time.sleep(0.5)
        before = self.g.ask("stats")["cpu_us"]
        time.sleep(2)
        busy = self.g.ask("stats")["cpu_us"] - before
        self.assertLess(busy, 1e6, "the init spins on a pipe that it may not read")
        self.assertEqual(len(s.out[0]), 256 * 1024)
        s.release()
        s.wait()
        self.assertEqual((len(s.out[0]), s.exit["status"]), (400000, 0))

    def test_a_background_child_that_holds_the_pipe_does_not_hold_the_session(self):
        self.assertEqual(self.g.sh("sleep 301 & echo done")[1], "done\n")
        s = self.g.open("sh", "-c", "sleep 301 & head -c 400000 /dev/zero", hold=True)
        time.sleep(1)
        s.release()
        s.wait()
        self.assertEqual(len(s.out[0]), 400000)
        self.g.sh("pkill -x sleep")

    def test_two_hundred_sessions_and_not_one_more(self):
        many = [self.g.open("sleep", "600") for _ in range(200)]
        self.assertTrue(all(s.reply["ok"] for s in many))
        self.assertIn("200", self.g.open("true").reply["error"])
        for s in many:
            self.g.ctrl(op="signal", chan=s.chan, signal="TERM")
        for s in many:
            self.assertEqual(s.wait().exit["signal"], 15)
        self.assertEqual(self.g.sh("echo still here")[1], "still here\n")


class Terminals(Shared):
    def test_size_type_and_ownership(self):
        s = tty(self.g, "sh", "-c", "stty size; tty; stat -c %U $(tty); echo $TERM $COLORTERM; [ -t 2 ] && echo err",
                rows=33, cols=101)
        out = s.wait().out[0].decode().split()
        self.assertEqual(out[:2], ["33", "101"])
        self.assertTrue(out[2].startswith("/dev/pts/"))
        self.assertEqual(out[3:], ["agent", "xterm-256color", "truecolor", "err"])

    def test_a_new_size_is_told(self):
        s = tty(self.g, "bash", "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done")
        s.until(lambda s: b"ready" in s.out[0])
        self.assertTrue(self.g.ask("resize", chan=s.chan, rows=50, cols=132)["ok"])
        s.wait()
        self.assertIn(b"50 132", s.out[0])

    def test_the_interrupt_key_and_signals_reach_the_foreground(self):
        s = tty(self.g, "bash", "--norc", "-i")
        s.until(lambda s: b"$" in s.out[0])
        for stop in (lambda: s.send(b"\x03"), lambda: self.g.ask("signal", chan=s.chan, signal="INT")):
            s.out[0] = b""
            s.send(b"echo go; sleep 60\n")
            s.until(lambda s: b"go\r\n" in s.out[0])
            time.sleep(0.3)
            stop()
            s.send(b"echo st=$?\n")
            s.until(lambda s: b"st=130" in s.out[0])
        s.send(b"exit 3\n")
        self.assertEqual(s.wait().exit["status"], 3)

    def test_a_login_shell_has_job_control_and_a_dash(self):
        s = tty(self.g, "bash", login=True)
        s.send(b"echo $0; shopt -q login_shell && echo log''in; exit\n")
        s.wait()
        self.assertIn(b"-bash", s.out[0])
        self.assertIn(b"login", s.out[0])


class Accounts(Shared):
    def test_the_agent_and_its_environment(self):
        _, out, _ = self.g.sh("id -un; id -Gn; echo $HOME $USER $SHELL; echo $PATH; echo $LANG; umask; pwd; hostname")
        user, groups, home, path, lang, umask, cwd, host = out.splitlines()
        self.assertEqual((user, home, lang, umask), ("agent", "/home/agent agent /bin/bash", "C.UTF-8", "0022"))
        self.assertIn("docker", groups.split())
        self.assertTrue(path.startswith("/home/agent/.local/bin:"))
        self.assertEqual((cwd, host), ("/home/agent", "box"))

    def test_environment_of_the_session_wins(self):
        _, out, _ = self.g.sh("echo $COLOUR $KEPT; cat /proc/self/environ | tr '\\0' '\\n' | grep -c ^COLOUR=",
                              env={"COLOUR": "red"})
        self.assertEqual(out, "red yes\n1\n")

    def test_root_and_sudo(self):
        self.assertEqual(self.g.sh("id -u; echo $HOME", user="root")[1], "0\n/root\n")
        self.assertEqual(self.g.sh("sudo -n id -u")[1], "0\n")
        self.assertEqual(self.g.sh("id -u; id -g", user="1234")[1], "1234\n1234\n")

    def test_the_tools_are_there(self):
        for tool in ("git", "node", "npm", "python3 -m pip", "rg", "jq", "gcc", "docker"):
            status, out, err = self.g.sh(f"{tool} --version")
            self.assertEqual(status, 0, (tool, err))

    def test_what_programs_expect_of_a_system(self):
        _, out, _ = self.g.sh("stat -c '%a %n' /tmp /dev/shm /run/lock; ls -d /dev/mqueue /dev/pts/ptmx /dev/fd/0;"
                              "cat /proc/sys/fs/inotify/max_user_watches; cat /etc/resolv.conf; ulimit -n")
        self.assertIn("1777 /tmp\n1777 /dev/shm\n1777 /run/lock\n/dev/fd/0\n/dev/mqueue\n/dev/pts/ptmx\n1048576\n", out)
        self.assertIn("nameserver 10.113.0.1", out)
        # A lock in shared memory, as Python's multiprocessing makes it.
        self.assertEqual(self.g.sh("python3 -c 'import multiprocessing as m; m.Lock(); print(1)'")[1], "1\n")

    def test_nothing_of_ours_reaches_a_session(self):
        _, out, _ = self.g.sh("ls /proc/self/fd; cat /proc/self/oom_score_adj; grep -E 'SigBlk|SigIgn' /proc/self/status",
                              stdin=b"")
        lines = out.split()
        self.assertEqual(lines[:5], ["0", "1", "2", "3", "0"])
        self.assertEqual([x for x in lines if len(x) == 16], ["0" * 16] * 2)


class Ends(Shared):
    def count(self, what):
        return self.g.sh(f"pgrep -fc -- '[s]leep {what}' || true")[1].strip()

    def becomes(self, what, want):
        self.assertTrue(wait_for(lambda: self.count(what) == want), (what, self.count(what)))

    def test_kill_ends_all_of_a_session(self):
        s = self.g.open("sh", "-c", "trap '' HUP; setsid sleep 7001 & nohup sleep 7001 & sleep 7001")
        self.becomes(7001, "4")  # the shell bears the words as well
        self.g.ask("kill", chan=s.chan)
        s.wait()
        self.becomes(7001, "0")

    def test_a_killed_session_leaves_no_one_behind_who_ignored_the_hang_up(self):
        s = self.g.open("sh", "-c", "setsid sh -c 'trap \"\" HUP TERM; sleep 7002' & exec sleep 7002")
        time.sleep(0.5)
        self.g.ask("kill", chan=s.chan)
        s.wait()
        self.becomes(7002, "0")

    def test_close_ends_what_runs(self):
        s = self.g.open("sh", "-c", "sleep 7003 & sleep 7003")
        self.g.ctrl(op="close", chan=s.chan)
        del self.g.sessions[s.chan]
        time.sleep(0.5)
        self.becomes(7003, "0")

    def test_orphans_are_reaped(self):
        self.g.sh("for i in 1 2 3 4 5; do (sleep 0.1 &); done")
        self.assertTrue(wait_for(lambda: self.g.sh("ps -eo args= | grep -c '[s]leep 0.1' || true")[1] == "0\n"))
        self.assertTrue(wait_for(lambda: self.g.sh("ps -eo stat= | grep -c Z || true")[1] == "0\n"))

    def test_memory_that_ran_out_is_told_and_init_lives(self):
        eater = self.g.open("python3", "-c", "x = []\nwhile 1: x.append(bytearray(1 << 24))")
        note = self.g.note("oom", 180)
        self.assertIn("python", note["victim"])
        self.assertEqual(eater.wait().exit["signal"], 9)
        self.assertEqual(self.g.sh("echo up")[1], "up\n")


class Ports(Shared):
    server = ("import socket,sys\ns=socket.create_server((sys.argv[1],8123),family=int(sys.argv[2]))\n"
              "print('up',flush=True)\nc=s.accept()[0]\nd=b''\n"
              "while (x:=c.recv(65536)): d+=x\nc.sendall(b'%d'%len(d))\nc.close()\n")

    def connect(self, port):
        chan, self.g.next_chan = self.g.next_chan, self.g.next_chan + 1
        s = self.g.sessions[chan] = Session(self.g, chan)
        s.reply = self.g.ask("connect", chan=chan, host="127.0.0.1", port=port)
        s.ended[1] = True
        return s

    def test_a_server_on_either_loopback_is_reached_with_half_close(self):
        for address, family in (("127.0.0.1", 2), ("::1", 10)):
            server = self.g.open("python3", "-c", self.server, address, str(family))
            server.until(lambda s: b"up" in s.out[0])
            c = self.connect(8123)
            self.assertTrue(c.reply["ok"], (address, c.reply))
            c.send(b"x" * 1000000, eof=True)
            c.wait()
            self.assertEqual(c.out[0], b"1000000")
            server.wait()

    def test_a_closed_port_is_refused(self):
        self.assertIn("refused", self.connect(8999).reply["error"].lower())


class Configure(Case):
    def test_clones_differ_where_they_must(self):
        said = []
        for name in ("one", "two"):
            asked = time.time()
            vm = self.start(hostname=name, machine_id=name.encode().hex().zfill(32))
            _, out, _ = vm.guest.sh("head -c 32 /dev/urandom | sha256sum; hostname; cat /etc/machine-id; date +%s.%N")
            random, host, ident, clock = out.splitlines()
            self.assertEqual((host, ident), (name, name.encode().hex().zfill(32)))
            self.assertTrue(asked - 2 < float(clock) < time.time() + 2, (asked, clock))
            said.append(random)
            vm.close()
        self.assertNotEqual(*said)

    def test_files_are_written_as_told(self):
        vm = self.start(files=[{"path": "/home/agent/.a/b/c", "mode": "0600", "owner": "agent", "content": "text"},
                               {"path": "/etc/sbx-test", "mode": "0644", "owner": "root", "base64": "AAH/Cg=="}])
        _, out, _ = vm.guest.sh("stat -c '%a %U' ~/.a/b/c ~/.a/b; cat ~/.a/b/c; echo; od -An -tx1 /etc/sbx-test")
        self.assertEqual(out, "600 agent\n755 agent\ntext\n 00 01 ff 0a\n")

    def test_a_folder_that_would_hide_the_machine_is_refused(self):
        for path in ("/", "/proc", "/proc/x", "/sys/kernel", "/dev/shm", "/run/sbx", "/usr", "//proc", "/a/../proc",
                     "/a/..", "/./dev", "relative", "/etc", "/var/lib/docker", "/home/agent"):
            with self.subTest(path=path):
                vm = template.clone()
                try:
                    reply = vm.guest.configure(folders=[{"index": 0, "path": path, "ro": False}])
                    self.assertFalse(reply["ok"])
                    self.assertIn("cannot be mounted", reply["error"])
                finally:
                    vm.close()

    def test_the_disk_survives_an_orderly_stop(self):
        disk = template.disk()
        vm = self.start(disk)
        g = vm.guest
        g.sh("echo kept > ~/file; sudo sh -c 'echo too > /etc/kept'")
        # Whoever listens to SIGTERM has the time to tidy up, also outside of a session.
        g.sh("(trap 'echo bye > ~/farewell; exit' TERM; touch ~/listens; while :; do sleep 0.1; done) >/dev/null 2>&1 & "
             "while [ ! -e ~/listens ]; do sleep 0.1; done")
        t = time.monotonic()
        g.ctrl(op="poweroff")
        self.assertEqual(vm.wait_end(10), 0)
        print(f"[power-off {(time.monotonic() - t) * 1e3:.0f} ms] ", end="")
        # (a journal to replay is an error to this check, as is anything else it would mend)
        fsck = subprocess.run(["/sbin/e2fsck", "-fn", disk], capture_output=True, text=True)
        self.assertEqual(fsck.returncode, 0, fsck.stdout)
        vm = self.start(disk)
        self.assertEqual(vm.guest.sh("cat ~/file /etc/kept ~/farewell")[1], "kept\ntoo\nbye\n")

    def test_who_ignores_sigterm_does_not_hold_the_stop(self):
        vm = self.start()
        vm.guest.open("sh", "-c", "trap '' TERM HUP; while :; do sleep 1; done")
        vm.guest.ctrl(op="poweroff")
        vm.wait_end(10)

    def test_a_broken_frame_resets_the_link_and_nothing_else(self):
        vm = self.start()
        g = vm.guest
        s = g.open("sh", "-c", "trap '' HUP; sleep 7004")
        self.assertTrue(s.reply["ok"])
        g.sock.sendall(b"\xff" * 64)
        self.assertEqual(g.note("hello")["op"], "hello")
        g.sessions.clear()
        g.credit.clear()
        self.assertTrue(wait_for(lambda: g.ask("stats")["sessions"] == 0))
        self.assertTrue(wait_for(lambda: g.sh("pgrep -fc '[s]leep 7004' || true")[1] == "0\n"))
        # ... and what was sent before it is not read as part of what comes after.
        g.send(BYTES, b"late", chan=999)
        self.assertEqual(g.sh("echo fine")[1], "fine\n")


class Docker(Case):
    def test_the_engine_starts_with_its_first_client(self):
        g = self.start().guest
        self.assertEqual(g.sh("pgrep -c dockerd || true")[1], "0\n")
        t = time.monotonic()
        status, out, err = g.sh("docker version --format '{{.Server.Version}}' && docker info --format "
                                "'{{.Driver}} {{.CgroupVersion}}'", seconds=120)
        print(f"[first docker command {time.monotonic() - t:.1f} s] ", end="")
        self.assertEqual(status, 0, err + g.sh("sudo tail -20 /var/log/dockerd.log")[1])
        self.assertEqual(out.splitlines()[1], "overlay2 2")
        self.assertEqual(g.note("docker")["state"], "starting")
        # A container of the shell and what it is linked with, on the default bridge and with a limit.
        script = ("set -e; mkdir -p /tmp/r/bin; cp /bin/sh /bin/cat /bin/ls /tmp/r/bin; for f in $(ldd /bin/sh /bin/ls"
                  " | grep -o '/[^ ]*\\.so[^ ]*' | sort -u); do cp --parents -L $f /tmp/r; done;"
                  "tar -C /tmp/r -c . | docker import - tiny >/dev/null;"
                  "printf 'FROM tiny\\nRUN echo built > /x\\n' | docker build -q -t tiny2 - >/dev/null;"
                  "docker run --rm --memory 64m tiny2 sh -c 'cat /x; cat /sys/fs/cgroup/memory.max; ls /sys/class/net'")
        status, out, err = g.sh(script, seconds=240)
        self.assertEqual(status, 0, err)
        self.assertEqual(out.split()[:2], ["built", "67108864"])
        self.assertIn("eth0", out)


class Speed(Case):
    def test_from_start_to_first_output(self):
        rows = []
        for _ in range(7):
            vm = template.clone()
            up = time.monotonic()
            reply = vm.guest.configure()
            ready = time.monotonic()
            s = vm.guest.open("echo", "hi")
            s.until(lambda s: s.out[0])
            first = time.monotonic()
            rows.append([up - vm.born, ready - up, reply["ms"] / 1e3, first - ready, first - vm.born])
            again = []
            for _ in range(5):
                t = time.monotonic()
                vm.guest.open("echo", "hi").until(lambda s: s.out[0])
                again.append(time.monotonic() - t)
            rows[-1].append(statistics.median(again))
            vm.close()
        m = [statistics.median(c) * 1e3 for c in zip(*rows)]
        print(f"[cold: hello {template.boot_ms:.0f} ms; clone: running {m[0]:.0f}, configure {m[1]:.0f} (guest "
              f"{m[2]:.1f}), first output {m[3]:.0f}, in all {m[4]:.0f}; later exec {m[5]:.1f} ms] ", end="")


if __name__ == "__main__":
    unittest.main(verbosity=2)

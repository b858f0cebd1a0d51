"""The main job, command by command, on a real machine (issue 2)."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import Home, SBX, alive, finish, kill, run, wait_for
from netns import TestCA


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = Home()

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def test_one_sentence_status_2_and_nothing_changed(self):
        table = [
            (["lss"], "did you mean ls"), (["run"], "which agent"), (["run", "nosuch"], "there is no agent"),
            (["run", "shell", "/nonexistent"], "does not exist"), (["run", "shell", "/etc/passwd"], "not a folder"),
            (["run", "shell", "/"], "cannot be shared"), (["create", "shell", "--name", "../x"], "sandbox name"),
            (["create", "shell", "--cpus", "0"], "--cpus"), (["create", "shell", "--memory", "lots"], "--memory"),
            (["create", "shell", "--disk", "1"], "--disk"), (["create", "shell", "--nosuch"], "no option"),
            (["create", "shell", "-e", "A-B=c"], "variable"),
            (["create", "shell", "--env-file", "/nonexistent"], "cannot be read"),
            (["policy", "allow", "network", "-g", "*.com"], "public suffix"),
            (["policy", "allow", "network", "-g", "http://x/"], "not a URL"),
            (["policy", "set-default", "nosuch"], "posture"), (["config", "set", "vm.cpus", "many"], "vm.cpus"),
            (["config", "get", "nosuch"], "no setting"), (["cp", "a", "b"], "exactly one"),
        ]
        before = sorted(p.name for p in (self.h.dir / "data/sbx").rglob("*") if "images" not in str(p))
        for args, words in table:
            r = self.h.run(*args)
            text = r.stderr.decode()
            self.assertEqual(r.returncode, 2, (args, text))
            self.assertIn(words, text, args)
            self.assertEqual(text.count("\n"), 1, (args, text))
        self.assertEqual(sorted(p.name for p in (self.h.dir / "data/sbx").rglob("*") if "images" not in str(p)), before)

    def test_names_that_do_not_exist(self):
        for args in (["start", "nosuch"], ["stop", "nosuch"], ["rm", "-f", "nosuch"], ["exec", "nosuch", "true"], ["inspect", "nosuch"],
                     ["logs", "nosuch"], ["attach", "nosuch"], ["run", "--name", "nosuch"]):
            r = self.h.run(*args)
            self.assertEqual(r.returncode, 3, (args, r.stderr))
            self.assertIn(b"nosuch", r.stderr)

    def test_help_completion_and_man_come_from_the_table(self):
        self.assertIn("policy", self.h.sbx("help"))
        self.assertIn("--memory", self.h.sbx("help", "run"))
        self.assertIn("complete", self.h.sbx("completion", "bash"))
        self.assertIn(".Sh COMMANDS", self.h.sbx("man"))

    def test_doctor(self):
        checks = {c["check"]: c for c in json.loads(self.h.run("doctor", "--json").stdout)}
        self.assertEqual(checks["qemu-system-x86_64"]["result"], "ok")
        self.assertTrue(all(c["remedy"] for c in checks.values() if c["result"] == "broken"))


class Machine(unittest.TestCase):
    """One sandbox with a workspace and a read-only folder, for many looks at it."""

    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        cls.ro = h.dir / "libs"
        cls.ro.mkdir()
        (cls.ro / "readme").write_text("read me\n")
        (h.ws / "hello.txt").write_text("from the host\n")
        os.symlink("/etc/hostname", h.ws / "outside")
        os.symlink("../libs/readme", h.ws / "up")
        # Root's projects lie below /root, which is closed to others in a machine.
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="sbx-test-", dir="/root" if os.geteuid() == 0 else None))
        cls.addClassCleanup(shutil.rmtree, cls.home)
        (cls.home / "closed/inner").mkdir(parents=True)
        (cls.home / "closed").chmod(0o700)
        # As many authorities as an old company has, more than a message to a machine takes; two of them of one name.
        authorities = [TestCA(h.dir / f"ca{n}", f"Authority {max(n, 1)}") for n in range(40)]
        cls.authority = authorities[0]
        (h.dir / "company.pem").write_bytes(b"".join(a.cert.read_bytes() for a in reversed(authorities)))
        h.env["NODE_EXTRA_CA_CERTS"] = str(h.dir / "company.pem")
        h.sbx("create", "--name", "box", "--cpus", "1", "--memory", "1024", "-e", "COLOUR=green", "-e", "GIVEN=" + "x" * 100000, "shell", str(h.ws), f"{cls.ro}:ro",
              str(cls.home), str(cls.home / "closed/inner"))
        h.sbx("start", "box")

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def test_all_authorities_of_the_host_are_known(self):
        leaf, _ = self.authority.leaf("leaf", "leaf.test")
        self.assertEqual(self.h.run("exec", "-i", "box", "openssl", "verify", "-CApath", "/etc/ssl/certs", input=pathlib.Path(leaf).read_bytes()).returncode, 0)
        bundle = self.h.sbx("exec", "box", "cat", "/etc/ssl/certs/ca-certificates.crt")
        self.assertIn(self.authority.cert.read_text(), bundle)

    def test_a_folder_below_one_that_is_closed_can_be_worked_in(self):
        r = self.h.run("exec", "-w", str(self.home), "box", "sh", "-c", "pwd && echo made > file && echo made > closed/inner/file")
        self.assertEqual((r.returncode, r.stdout.decode().strip()), (0, str(self.home)), r.stderr)
        self.assertEqual((self.home / "closed/inner/file").read_text(), "made\n")
        self.assertEqual((self.home / "closed").stat().st_mode & 0o777, 0o700)

    def test_streams_and_status(self):
        r = self.h.sh("box", "echo out; echo err >&2; cat; exit 7", input=b"in\n")
        self.assertEqual((r.returncode, r.stdout, r.stderr), (7, b"out\nin\n", b"err\n"))
        self.assertEqual(self.h.run("exec", "box", "nosuch-program").returncode, 127)
        self.assertEqual(self.h.run("exec", "box", "/etc/passwd").returncode, 126)
        self.assertEqual(self.h.sh("box", "kill -9 $$").returncode, 137)

    def test_arguments_and_variables_as_long_as_a_kernel_takes_them(self):
        long = "long \n\"words\" " * 8000  # a prompt
        r = self.h.run("exec", "-e", f"LONG={long}", "box", "sh", "-c", 'printf %s "$LONG$1$2"; printf %s "$GIVEN" | wc -c', "sh", long, long)
        self.assertEqual((r.returncode, r.stdout.decode()), (0, long * 3 + "100000\n"), r.stderr)
        r = self.h.run("exec", "box", "true", *["x" * 100000] * 15, "\1" * 100000, "\1" * 100000, "\1" * 100000)  # each \1 takes six bytes on the way
        self.assertEqual((r.returncode, r.stderr), (2, b"sbx: the command with its arguments and variables is longer than a sandbox takes (3 MiB)\n"))

    def test_account_and_environment(self):
        self.assertEqual(self.h.sbx("exec", "box", "id", "-un").strip(), "agent")
        self.assertEqual(self.h.sbx("exec", "-u", "root", "box", "id", "-u").strip(), "0")
        self.assertEqual(self.h.sbx("exec", "box", "sudo", "id", "-u").strip(), "0")
        self.assertEqual(self.h.sbx("exec", "-e", "A=b", "-w", "/tmp", "box", "sh", "-c", "echo $A $PWD $COLOUR").strip(), "b /tmp green")
        self.assertEqual(self.h.sbx("exec", "box", "pwd").strip(), str(self.h.ws))
        versions = self.h.sh("box", "node --version && npm --version && python3 --version && git --version && gcc --version && rg --version")
        self.assertEqual(versions.returncode, 0, versions.stderr)

    def test_its_clock_is_the_processors_counter(self):
        # The other one that an emulated machine has goes in steps of 4 ms, and wakes it 250 times a second.
        at = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        self.assertIn(self.h.sbx("exec", "box", "cat", at).strip(), ("tsc", "kvm-clock"))

    def test_a_large_stream_arrives_whole(self):
        data = os.urandom(1 << 20) * 32
        r = self.h.run("exec", "-i", "box", "cat", input=data)
        self.assertEqual(r.returncode, 0)
        self.assertTrue(r.stdout == data)

    def test_workspace_is_live_in_both_directions(self):
        h = self.h
        self.assertEqual(h.sbx("exec", "box", "cat", "hello.txt"), "from the host\n")
        h.sh("box", "mkdir -p made && echo inside > made/file && chmod 755 made/file")
        self.assertEqual((h.ws / "made/file").read_text(), "inside\n")
        self.assertEqual((h.ws / "made/file").stat().st_uid, os.geteuid())
        self.assertTrue((h.ws / "made/file").stat().st_mode & 0o111)
        (h.ws / "hello.txt").write_text("changed on the host\n")
        seen = wait_for(lambda: h.sbx("exec", "box", "cat", "hello.txt") == "changed on the host\n", 5)
        self.assertTrue(seen)
        (h.ws / "hello.txt").write_text("from the host\n")
        wait_for(lambda: h.sbx("exec", "box", "cat", "hello.txt") == "from the host\n", 5)

    def test_names_looked_up_one_by_one_are_read_ahead(self):
        # git and make look at every file by name: that must not be a message each, and must stay true.
        h = self.h
        tree = h.ws / "many"
        tree.mkdir()
        for i in range(600):
            (tree / f"f{i}").write_text("x" * i)
        fs = h.family("box")["fs"]

        def messages():
            return int(re.search(r"^syscr: (\d+)", pathlib.Path(f"/proc/{fs}/io").read_text(), re.M)[1])

        def look():
            return h.sh("box", "python3 - <<'P'\nimport os\nfor i in range(600):\n try: print(os.lstat(f'many/f{i}').st_size)\n"
                               " except OSError as e: print(e.errno)\nP").stdout.decode().split()
        before = messages()
        self.assertEqual(look(), [str(i) for i in range(600)])
        self.assertLess(messages() - before, 300)
        (tree / "f7").unlink()
        (tree / "f500").write_text("now longer than it was" * 100)
        expected = [str(i) for i in range(600)]
        expected[7], expected[500] = "2", "2200"
        self.assertTrue(wait_for(lambda: look() == expected, 5))
        (tree / "f7").write_text("again")
        expected[7] = "5"
        self.assertTrue(wait_for(lambda: look() == expected and "f7" in h.sbx("exec", "box", "ls", "many").split(), 5))

    def test_nothing_else_of_the_host(self):
        h = self.h
        self.assertNotEqual(h.sbx("exec", "box", "cat", "/etc/hostname").strip(), pathlib.Path("/etc/hostname").read_text().strip())
        self.assertIn("box", h.sh("box", "cat outside").stdout.decode())  # the machine's own, not the host's
        self.assertEqual(h.sh("box", f"ls -A {h.dir}").stdout.split(), [b"libs", b"ws"])
        self.assertEqual(h.sbx("exec", "box", "cat", f"{self.ro}/readme"), "read me\n")
        # What is above the folders is there for their sake alone, and left on no disk.
        self.assertEqual(h.sh("box", f"sudo ls /run/sbx/disk/upper{h.dir}").stdout, b"")
        r = h.sh("box", f"echo x > {self.ro}/new; sudo sh -c 'mount -o remount,rw {self.ro}; echo y > {self.ro}/new2'; ls {self.ro}")
        self.assertEqual(r.stdout.split(), [b"readme"])

    def test_what_a_build_expects(self):
        r = self.h.sh("box", """set -e; mkdir -p t; cd t
            echo 1 > a; ln a b; echo 2 >> b; test "$(cat a)" = "$(printf '1\\n2')"
            ln -s a c; test "$(readlink c)" = a
            exec 3< a; mv b a2; rm a; echo new > a; test "$(head -1 <&3)" = 1
            touch -d '2001-02-03 04:05:06 UTC' a; test "$(stat -c %Y a)" = 981173106
            long=$(printf 'n%.0s' $(seq 255)); touch "$long"; test -e "$long"
            ( flock -n 9 || exit 1; flock -n a2 true ) 9> lock
            python3 - <<'P'
import mmap, os
with open("m", "w+b") as f:
    f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[0:5] = b"hello"; m.flush()
assert open("m", "rb").read(5) == b"hello"
P
            sudo chown root a; test "$(stat -c %U a)" = agent
            cd ..; rm -rf t""")
        self.assertEqual(r.returncode, 0, r.stderr.decode())

    def test_a_real_c_project_and_a_real_npm_project(self):
        h = self.h
        c = h.ws / "cproj"
        c.mkdir(exist_ok=True)
        (c / "Makefile").write_text("all: prog\nprog: main.o util.o\n\tcc -o $@ $^\ntest: prog\n\t./prog | grep -q 42\nclean:\n\trm -f *.o prog\n")
        (c / "main.c").write_text('#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d\\n", answer()); }\n')
        (c / "util.c").write_text("int answer(void) { return 42; }\n")
        r = h.sh("box", "cd cproj && make -s clean all test")
        self.assertEqual(r.returncode, 0, r.stderr.decode())
        n = h.ws / "nproj"
        n.mkdir(exist_ok=True)
        (n / "package.json").write_text('{"name":"p","version":"1.0.0","scripts":{"test":"node --test"},"dependencies":{"is-number":"7.0.0"}}')
        (n / "a.test.js").write_text("const t=require('node:test');const a=require('assert');t('n',()=>a(require('is-number')(5)));")
        r = h.sh("box", "cd nproj && npm install --no-audit --no-fund && npm test", timeout=480)
        self.assertEqual(r.returncode, 0, (r.stdout + r.stderr).decode())
        self.assertTrue((n / "node_modules/is-number/package.json").exists())

    def test_network_by_rule_and_log(self):
        h = self.h
        r = h.sh("box", "curl -sS -m 20 http://blocked.example/")
        self.assertIn(b"denied by posture balanced", r.stdout)
        self.assertIn(b"sbx policy allow network box blocked.example", r.stdout)
        r = h.sh("box", "ping -c 1 -W 5 192.0.2.1; ping -c1 -W5 2001:db8::1; echo x | nc -u -w1 192.0.2.1 9; curl -sS -m 5 http://169.254.169.254/")
        rows = {(x["proto"], x["host"], x["port"]): x for x in json.loads(h.sbx("policy", "log", "box", "--json"))}
        self.assertEqual(rows["tcp", "blocked.example", 80]["verdict"], "deny")
        self.assertEqual(rows["icmp", "192.0.2.1", 0]["verdict"], "deny")
        self.assertEqual(rows["tcp", "169.254.169.254", 80]["verdict"], "deny")
        self.assertIn("unbroken", h.sbx("policy", "log", "box", "--verify"))

    def test_a_service_of_the_host_needs_its_own_rule(self):
        h = self.h
        server = subprocess.Popen([sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"], cwd=self.ro,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            port = int(server.stdout.readline().split()[5])
            get = f"curl -sS -m 10 http://host.docker.internal:{port}/readme"
            self.assertNotEqual(h.sh("box", get).stdout, b"read me\n")
            h.sbx("policy", "allow", "network", "-g", f"localhost:{port}")
            self.assertTrue(wait_for(lambda: h.sh("box", get).stdout == b"read me\n", 10))
            h.sbx("policy", "rm", "-g", f"localhost:{port}")
            self.assertTrue(wait_for(lambda: h.sh("box", get).stdout != b"read me\n", 10))
        finally:
            server.kill()
            server.communicate()

    def test_copy_both_ways_and_nowhere_else(self):
        h = self.h
        (h.dir / "in.txt").write_text("copied\n")
        h.sbx("cp", h.dir / "in.txt", "box:/home/agent/deep/er/")
        self.assertEqual(h.sbx("exec", "box", "cat", "/home/agent/deep/er/in.txt"), "copied\n")
        odd = h.dir / "a[b]|c.txt"  # under another name, and nothing of it is a pattern; what was there is replaced
        odd.write_text("odd\n")
        for _ in range(2):
            h.sbx("cp", odd, "box:/home/agent/new/name&[x].txt")
        h.sbx("cp", ".", "box:/home/agent/whole", cwd=h.dir / "config")
        self.assertEqual(h.sh("box", "cd /home/agent; cat 'new/name&[x].txt'; ls -A new; ls whole").stdout, b"odd\nname&[x].txt\nsbx\n")
        h.sbx("cp", "box:/home/agent/deep", h.dir / "out")
        self.assertEqual((h.dir / "out/er/in.txt").read_text(), "copied\n")
        # What trees hold besides files: holes stay holes, a file of two names is there twice, what is none is left out and named.
        tree = h.dir / "tree"
        tree.mkdir()
        os.mkfifo(tree / "fifo")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(tree / "sock"))
        with open(tree / "sparse", "wb") as f:
            f.seek(3 << 30)
            f.write(b"end")
        (tree / "odd\nname").write_text("odd")
        (tree / ("n" * 255)).write_text("long")
        os.symlink("/nonexistent", tree / "dangling")
        os.link(tree / "odd\nname", tree / "second")
        r = h.run("cp", tree, "box:/home/agent/tree")
        self.assertEqual((r.returncode, r.stderr.count(b"left out")), (0, 2), r)
        h.sh("box", "cd /home/agent/tree && ln second third && mkfifo pipe")
        h.sbx("cp", "box:/home/agent/tree", h.dir / "tree2")
        self.assertEqual(sorted(os.listdir(h.dir / "tree2")), sorted(["sparse", "odd\nname", "n" * 255, "dangling", "second", "third"]))
        for name in ("odd\nname", "second", "third"):
            self.assertEqual((h.dir / "tree2" / name).read_text(), "odd", name)
        st = os.stat(h.dir / "tree2/sparse")
        self.assertEqual(st.st_size, (3 << 30) + 3)
        self.assertLess(st.st_blocks * 512, 1 << 20)
        # A place that is no file is not replaced by one.
        os.mkfifo(h.dir / "place")
        r = h.run("cp", "box:/etc/os-release", h.dir / "place")
        self.assertEqual((r.returncode, (h.dir / "place").is_fifo()), (2, True), r)
        for words in (["cp", tree / "second", b"box:/tmp/\xff"], ["cp", b"box:/tmp/\xff", h.dir / "x"]):
            r = run([SBX, *words], 120, cwd=h.ws, env=h.env)
            self.assertEqual((r.returncode, b"UTF-8" in r.stderr), (2, True), r)
        # What is not there is told from what failed.
        for name in ("/home/agent/none", "/none/at/all"):
            r = h.run("cp", f"box:{name}", h.dir / "x")
            self.assertEqual((r.returncode, r.stderr.count(b"\n")), (3, 1), r)
        # Interrupted in the middle of a file: what was there before is there still, and nothing else.
        (h.dir / "keep").mkdir()
        (h.dir / "keep/file").write_text("before\n")
        h.sh("box", """printf '#!/usr/bin/python3\nimport sys, tarfile, time\ni = tarfile.TarInfo("file"); i.size = 1 << 20\nsys.stdout.buffer.write(i.tobuf() + bytes(300000))\nsys.stdout.flush()\ntime.sleep(600)\n' | sudo tee /usr/local/bin/tar >/dev/null
            sudo chmod +x /usr/local/bin/tar""")
        for sig in (signal.SIGINT, signal.SIGTERM):
            p = subprocess.Popen([SBX, "cp", "box:/home/agent/file", str(h.dir / "keep")], env=h.env, cwd=h.ws, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            self.assertTrue(wait_for(lambda: any(f.stat().st_size > 100000 for f in (h.dir / "keep").iterdir() if f.name != "file")))
            p.send_signal(sig)
            _, error = finish(p)
            self.assertIn(p.returncode, (-sig, 128 + sig), error)
            self.assertEqual([f.name for f in (h.dir / "keep").iterdir()], ["file"])
            self.assertEqual((h.dir / "keep/file").read_text(), "before\n")
        h.sh("box", "sudo rm /usr/local/bin/tar")
        h.sbx("cp", "box:/usr/lib/os-release", h.dir / "keep/file")
        self.assertIn("Debian", (h.dir / "keep/file").read_text())
        # A hostile tar in the guest: absolute names, "..", a link that leads out and a file through it.
        h.sh("box", """sudo tee /usr/local/bin/tar >/dev/null <<'P'
#!/usr/bin/python3
import io, sys, tarfile
t = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")
def add(name, data=b"evil", **kw):
    i = tarfile.TarInfo(name)
    for k, v in kw.items(): setattr(i, k, v)
    i.size = 0 if kw.get("type") else len(data)
    t.addfile(i, io.BytesIO(data))
add("x/ok", b"fine"); add("/tmp/sbx-evil-abs"); add("x/../../sbx-evil-up")
add("x/link", type=tarfile.SYMTYPE, linkname="/tmp"); add("x/link/sbx-evil-through")
add("x/hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"); add("x/dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
t.close()
P
            sudo chmod +x /usr/local/bin/tar""")
        h.run("cp", "box:/home/agent/x", h.dir / "evil")
        h.sh("box", "sudo rm /usr/local/bin/tar")
        for p in ("/tmp/sbx-evil-abs", "/tmp/sbx-evil-through", str(h.dir / "sbx-evil-up"), str(h.dir.parent / "sbx-evil-up")):
            self.assertFalse(os.path.lexists(p), p)
        if (h.dir / "evil/hard").exists():
            self.assertNotIn("root", (h.dir / "evil/hard").read_text())
        self.assertFalse(os.path.lexists(h.dir / "evil/dev"))

    def test_the_log_of_the_console_is_shown_escaped(self):
        self.h.sh("box", "printf '\\033]0;evil\\007\\033[31mred\\n' | sudo tee /dev/hvc0")
        text = wait_for(lambda: next((t for t in [self.h.run("logs", "box").stdout] if b"evil" in t), None), 5)
        self.assertIsNotNone(text)
        self.assertNotIn(b"\x1b", text)


class Terminal(unittest.TestCase):
    """attach and run in a real terminal: tmux."""

    @classmethod
    def setUpClass(cls):
        cls.h = Home()
        cls.sock = str(cls.h.dir / "tmux")

    @classmethod
    def tearDownClass(cls):
        subprocess.run(["tmux", "-S", cls.sock, "kill-server"], capture_output=True)
        cls.h.close()

    def tmux(self, *args):
        return run(["tmux", "-S", self.sock, "-f", "/dev/null", *args], 60, env=self.h.env).stdout.decode()

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", "t")

    def see(self, text, seconds=30):
        ok = wait_for(lambda: text in self.screen(), seconds)
        self.assertTrue(ok, f"{text!r} is not on the screen:\n{self.screen()}")

    def test_run_type_detach_attach(self):
        h = self.h
        h.sbx("create", "--name", "term", "--cpus", "1", "--memory", "1024", "shell", str(h.ws))
        self.tmux("new-session", "-d", "-s", "t", "-x", "90", "-y", "30", "-c", str(h.ws), "sh")
        self.tmux("send-keys", "-t", "t", f"echo before; {SBX} run --name term", "Enter")
        self.see("agent@term", 60)
        self.tmux("send-keys", "-t", "t", "stty size; echo mar''ker-1", "Enter")
        self.see("marker-1")
        self.see("30 90")
        self.tmux("send-keys", "-t", "t", "C-]", "d")
        self.see("detached from term")
        self.see("before")  # the user's own screen is back
        self.tmux("send-keys", "-t", "t", f"clear; {SBX} attach term", "Enter")
        self.see("marker-1")
        self.tmux("resize-window", "-t", "t", "-x", "100", "-y", "25")
        self.tmux("send-keys", "-t", "t", "while [ \"$(stty size)\" != '25 100' ]; do sleep 0.2; done; stty size", "Enter")
        self.see("25 100")
        self.tmux("send-keys", "-t", "t", "exit 3", "Enter")
        self.see("$", 10)
        self.tmux("send-keys", "-t", "t", "clear; echo status=$?; stty -a | grep -o ' echo '", "Enter")
        self.see("echo")
        # Begun without a terminal it is one agent, however often; and one that ended is none to attach to.
        def agents():
            listed = json.loads(h.sbx("inspect", "term"))["machine"]["sessions"]
            return [s["session"] for s in listed if s["agent"] and not {"status", "signal"} & set(s)]
        self.assertTrue(wait_for(lambda: agents() == [], 10))
        h.sbx("run", "--detach", "--name", "term")
        first, = agents()
        again = h.run("run", "--detach", "--name", "term")
        self.assertEqual((again.returncode, again.stdout), (0, b"term\n"))
        self.assertIn(b"runs already", again.stderr)
        self.assertEqual(agents(), [first])
        h.sbx("session", "end", "term", str(first))
        self.assertTrue(wait_for(lambda: agents() == [], 10))
        self.tmux("send-keys", "-t", "t", f"clear; {SBX} run --name term", "Enter")
        self.see("agent@term", 60)
        self.assertEqual(len(agents()), 1)


class Failure(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = Home()
        for n in ("one", "two", "three"):
            cls.h.sbx("create", "--name", n, "--cpus", "1", "--memory", "768", "shell")
            cls.h.sbx("start", n)

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def test_a_killed_machine_is_named_and_comes_back_with_its_disk(self):
        h = self.h
        h.sbx("exec", "two", "sh", "-c", "echo kept > /home/agent/kept; sync")
        kill(h.family("two")["qemu"])
        self.assertTrue(wait_for(lambda: h.ls()["two"]["state"] == "failed", 20))
        self.assertIn("ended", h.ls()["two"]["reason"])
        for n in ("one", "three"):
            self.assertEqual(h.ls()[n]["state"], "running")
            self.assertEqual(h.sbx("exec", n, "echo", "still here"), "still here\n")
        h.sbx("start", "two")
        self.assertEqual(h.sbx("exec", "two", "cat", "/home/agent/kept"), "kept\n")

    def test_a_killed_supervisor_leaves_nothing_and_starts_again(self):
        h = self.h
        family = h.family("three")
        self.assertLessEqual({"supervise", "broker", "net", "qemu"}, set(family))
        kill(family.pop("supervise"))
        self.assertTrue(wait_for(lambda: not any(alive(p) for p in family.values()), 10), family)
        self.assertEqual(h.ls()["three"]["state"], "failed")
        h.sbx("start", "three")
        self.assertEqual(h.sbx("exec", "three", "echo", "back"), "back\n")

    def test_stop_keeps_and_rm_deletes_but_never_the_workspace(self):
        h = self.h
        (h.ws / "mine").write_text("mine\n")
        h.sbx("create", "--name", "gone", "--cpus", "1", "--memory", "768", "shell", str(h.ws))
        h.sbx("exec", "gone", "sh", "-c", f"echo kept > /home/agent/kept; echo beside | sudo tee {h.dir}/beside")
        h.sbx("stop", "gone")
        self.assertEqual(h.ls()["gone"]["state"], "stopped")
        self.assertEqual(h.sbx("exec", "gone", "cat", "/home/agent/kept"), "kept\n")
        self.assertEqual(h.sbx("exec", "gone", "cat", f"{h.dir}/beside", "mine"), "beside\nmine\n")
        self.assertEqual(h.run("rm", "gone").returncode, 1)  # it runs, and nobody said --force
        h.sbx("rm", "--force", "gone")
        self.assertNotIn("gone", h.ls())
        self.assertEqual((h.ws / "mine").read_text(), "mine\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)

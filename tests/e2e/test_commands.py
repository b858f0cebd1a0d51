"""Commands of the guide's second table: ports, branches, clones, rename, prune."""
import hashlib
import json
import pathlib
import socket
import subprocess
import sys
import threading
import unittest
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import Home, wait_for

SERVER = "python3 -m http.server 3000 --directory /tmp/www"


def get(port, path="/", timeout=20):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as r:
        return r.read()


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
        h.sbx("create", "--branch", "my-feature", "--name", "b1", "shell", ".", cwd=repo)
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

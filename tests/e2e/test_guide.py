"""The command lines of the user's guide, word for word (but for `-- ARGUMENTS`, which make an agent end)."""
import json
import os
import pathlib
import pty
import select
import socket
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import SBX, Home, Limit, run


class Guide(unittest.TestCase):
    """What does not depend on the agent is tried with the agent `shell`."""

    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        cls.user = h.dir / "home"
        for name in ("my-project", "project-a", "shared-libs", "docs", "src"):
            (cls.user / name).mkdir()
        (cls.user / "my-project/readme").write_text("mine\n")

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def do(self, line, cwd=None, status=0, env=None):
        """One line as a shell of the user's has it."""
        e = dict(self.h.env, PATH=f"{pathlib.Path(SBX).parent}:{self.h.env['PATH']}", **(env or {}))
        r = run(["bash", "-c", line], 400, cwd=cwd or self.user / "my-project", env=e)
        self.assertEqual(r.returncode, status, (line, r.stdout[-2000:], r.stderr[-2000:]))
        return r.stdout.decode() + r.stderr.decode()

    def test_one_machine(self):
        # Started in its folder, found again from anywhere; two on one folder.
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        self.do(f"sbx run --publish {port}:3000 --name my-sandbox shell -- -c true")
        self.assertIn(str(self.user / "my-project"), self.do("sbx run --name my-sandbox -- -c pwd", cwd="/"))
        listed = self.do("sbx ls")
        for word in ("NAME", "AGENT", "STATUS", "PORTS", "WORKSPACE", "my-sandbox", "running", f"{port}->3000", str(self.user / "my-project")):
            self.assertIn(word, listed)
        self.do("sbx create --name spike shell ~/my-project")
        self.assertEqual(len({s["folders"][0]["path"] for s in self.h.ls().values() if s["name"] in ("spike", "my-sandbox")}), 1)
        # What users are told: the workspace and nothing else, sudo, an own kernel; UDP and ICMP go nowhere, at once.
        inside = "sbx exec my-sandbox sh -c "
        self.assertEqual(self.do(inside + "'pwd; find . -maxdepth 2 -type f'").split(), [str(self.user / "my-project"), "./readme"])
        self.assertIn("0", self.do(inside + "'sudo id -u'"))
        self.assertNotEqual(self.h.sh("my-sandbox", "python3 -c 'import socket; s = socket.socket(2, 2); s.connect((\"9.9.9.9\", 443)); s.send(b\"x\"); s.recv(1)'").returncode, 0)
        self.assertIn("9.9.9.9", self.do("sbx policy log my-sandbox"))
        # Variables: given, the host's, a file's.
        (self.user / "my-project/.env.sandbox").write_text("# comment\nexport FROM_FILE=file\n")
        out = self.do("sbx run -e LOG_LEVEL=debug -e API_URL --env-file .env.sandbox --name my-sandbox -- -c 'echo $LOG_LEVEL $API_URL $FROM_FILE'",
                      env={"API_URL": "http://host.example"})
        self.assertIn("debug http://host.example file", out)
        self.assertIn("API_URL", self.do("sbx run -e API_URL --name my-sandbox -- -c true", status=2))
        # Files in and out.
        (self.user / "src/config.json").write_text("{}\n")
        self.do("sbx cp ./config.json my-sandbox:/home/agent/workspace/", cwd=self.user / "src")
        self.do(inside + "'cp /home/agent/workspace/config.json /home/agent/workspace/output.log'")
        self.do("sbx cp my-sandbox:/home/agent/workspace/output.log ./", cwd=self.user / "src")
        self.assertEqual((self.user / "src/output.log").read_text(), "{}\n")
        # A shell on a terminal.
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(SBX, ["sbx", "exec", "-it", "my-sandbox", "bash"], self.h.env)
        os.write(fd, b"echo it-$((40+2)); exit 5\n")
        seen, limit = b"", Limit(180)
        while not limit.over():
            if not select.select([fd], [], [], 1)[0]:
                continue
            try:
                seen += os.read(fd, 4096)
            except OSError:
                break
        self.assertIn(b"it-42", seen)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 5)
        os.close(fd)
        # A template of it, by both names; what is in use stays.
        self.do(inside + "'echo kept > /home/agent/kept'")
        self.do("sbx template save my-sandbox my-template:v1")
        self.assertIn("my-template:v1", self.do("sbx template ls"))
        self.assertIn("kept\n", self.do("sbx run -t my-template:v1 --name copied shell -- -c 'cat /home/agent/kept'"))
        self.do("sbx template rm my-template:v1", status=2)
        self.do("sbx stop copied")
        self.assertIn("would remove copied", self.do("sbx prune --dry-run"))
        self.do("sbx prune --filter until=168h")
        self.assertIn("copied", self.h.ls())
        self.do("sbx rm --force copied")
        self.do("sbx template rm my-template:v1")
        # Stopped, everything is kept; removed, the workspace is.
        self.do("sbx stop my-sandbox")
        self.assertEqual(self.h.sbx("exec", "my-sandbox", "cat", "/home/agent/kept"), "kept\n")
        self.do("sbx rm --force my-sandbox spike")
        self.assertEqual((self.user / "my-project/readme").read_text(), "mine\n")

    def test_folders(self):
        self.do("sbx run --name three shell ~/project-a ~/shared-libs:ro ~/docs:ro -- -c true")
        r = self.h.sh("three", f"touch {self.user}/project-a/x; touch {self.user}/shared-libs/x; touch {self.user}/docs/x")
        self.assertEqual(r.stderr.count(b"Read-only"), 2, r.stderr)
        self.assertTrue((self.user / "project-a/x").exists())
        self.do("sbx rm --force three")
        self.do("sbx create --name scratch shell")
        self.assertIn("/home/agent", self.do("sbx run --name scratch -- -c pwd"))
        self.do("sbx rm --force scratch")

    def test_rules(self):
        self.do("sbx policy allow network -g api.anthropic.com")
        self.do('sbx policy allow network -g "api.openai.com,*.npmjs.org,*.pypi.org,files.pythonhosted.org,github.com"')
        self.do("sbx policy allow network -g localhost:1234")
        self.do("sbx policy deny network -g ads.example.com")
        self.do('sbx policy allow network -g "10.1.2.3:22"')
        listed = self.do("sbx policy ls")
        for rule in ("api.anthropic.com", "*.pypi.org", "localhost:1234", "ads.example.com", "10.1.2.3:22"):
            self.assertIn(rule, listed)
        self.assertIn("allow", self.do("sbx policy check api.anthropic.com"))
        # `*.x` is not `x`.
        verdict = lambda host: json.loads(self.h.run("policy", "check", "--json", host).stdout)["verdict"]
        self.assertEqual([verdict(x) for x in ("registry.npmjs.org", "ads.example.com", "api.example.com")], ["allow", "deny", "deny"])
        for posture, open_ in (("allow-all", True), ("deny-all", False), ("balanced", False)):
            self.do(f"sbx policy set-default {posture}")
            self.assertEqual(verdict("api.example.com"), "allow" if open_ else "deny")
        self.do("sbx policy reset --force")
        self.assertNotIn("ads.example.com", self.do("sbx policy ls"))
        self.do("sbx policy log")

    def test_without_a_machine(self):
        self.assertIn("no account", self.do("sbx login"))
        self.do('echo "$KEY" | sbx secret set -g openai --password-stdin', env={"KEY": "sk-proj-0123456789abcdefghijklmnop"})
        self.do("sbx secret set -g anthropic", status=2)  # nobody to ask without a terminal
        (self.h.dir / "bin").mkdir()
        gh = self.h.dir / "bin/gh"
        gh.write_text("#!/bin/sh\necho ghp_0123456789abcdefghijklmnopqrstuvwxyzAB\n")
        gh.chmod(0o755)
        self.do(f'PATH={gh.parent}:$PATH; sbx secret set -g github -t "$(gh auth token)"')
        listed = self.do("sbx secret ls")
        self.assertTrue("openai" in listed and "github" in listed and "ghp_" not in listed)
        self.do("sbx create --name scratch claude --posture nonsense", status=2)


class Agents(unittest.TestCase):
    """Lines that name an agent, where the agents are installed."""

    def test_codex_and_claude(self):
        h = Home(shared_templates=True)
        self.addCleanup(h.close)
        project = h.dir / "home/my-project"
        project.mkdir()
        have = json.loads(h.sbx("template", "ls", "--json"))
        for agent in ("codex", "claude"):
            if not any(t["name"].startswith(f"agent-{agent}-") for t in have):
                self.skipTest(f"{agent} is not installed here")
            self.assertRegex(h.sbx("run", agent, "--", "--version", cwd=project), r"\d+\.\d+\.\d+")
            self.assertRegex(h.sbx("run", agent, project, "--", "--version", cwd="/"), r"\d+\.\d+\.\d+")
            self.assertEqual([s["agent"] for s in h.ls().values()].count(agent), 1)  # the same one, again
        h.sbx("create", "--name", "codex-lms", "codex", ".", cwd=project)
        for name in ("feature", "spike"):
            h.sbx("run", "claude", "--name", name, project, "--", "--version")
        self.assertEqual(set(h.ls()), {"codex-my-project", "claude-my-project", "codex-lms", "feature", "spike"})


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Real agents from npm, in real machines, against a provider of ours (issue 2, "What it must show", 2 and 3)."""
import json
import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import Home
from mock_provider import Provider, make_ca


class Agents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home(shared_templates=True)
        ca, cls.certificate = make_ca(h.dir / "ca", "api.anthropic.com", "api.openai.com", "chatgpt.com")
        h.env["NODE_EXTRA_CA_CERTS"] = str(ca)
        h.sbx("config", "set", "net.ca", ca)

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def work(self, agent, host, args, env, key_header):
        h = self.h
        folder = h.dir / f"project-{agent}"
        folder.mkdir()
        target, text = folder / "made-by-the-agent.txt", f"hello from {agent}"
        provider = Provider(self.certificate, target, text)
        self.addCleanup(provider.close)
        h.sbx("config", "set", "net.map", f"{host}:443=127.0.0.1:{provider.port}")
        # A path of the host, a variable with a key, a prompt: as a user types it.
        r = h.run("run", agent, "--name", f"w-{agent}", folder, *[x for k, v in env.items() for x in ("-e", f"{k}={v}")], "--", *args,
                  timeout=1500)
        log = h.sbx("policy", "log", f"w-{agent}") if f"w-{agent}" in h.ls() else ""
        self.assertTrue(target.exists(), (r.stdout[-3000:] + r.stderr[-3000:]).decode(errors="replace") + log + repr([s[:2] for s in provider.seen]))
        self.assertEqual(target.read_text().strip(), text.strip())
        self.assertEqual(target.stat().st_uid, os.geteuid())
        self.assertEqual(r.returncode, 0, r.stderr[-2000:])
        self.assertTrue(any("sk-test" in headers.get(key_header, headers.get(key_header.lower(), "")) for _, _, headers in provider.seen),
                        [s[:2] for s in provider.seen])
        # The rule gone: the same run fails, and the log says what was denied.
        target.unlink()
        h.sbx("policy", "deny", "network", "-g", host)
        self.addCleanup(h.run, "policy", "rm", "-g", host)
        again = ["run", "--name", f"w-{agent}", *[x for k, v in env.items() for x in ("-e", f"{k}={v}")], "--", *args]
        try:
            r = h.run(*again, timeout=60)
            self.assertNotEqual(r.returncode, 0, r.stdout[-1000:])
        except subprocess.TimeoutExpired:
            pass  # Codex goes on trying for many minutes by itself
        self.assertFalse(target.exists())
        rows = json.loads(h.sbx("policy", "log", f"w-{agent}", "--json", "--verdict", "deny"))
        mine = [x for x in rows if x["host"] == host]
        self.assertTrue(mine and mine[0]["count"] >= 1, rows)
        h.sbx("stop", f"w-{agent}")

    def work_with_secret(self, agent, service, host, args, key, key_header, extra_env=()):
        """The key stays on the host: the provider sees it, the guest a sentinel (issue 4)."""
        h = self.h
        folder = h.dir / f"secret-{agent}"
        folder.mkdir()
        target, text = folder / "made-by-the-agent.txt", f"hello from {agent}"
        provider = Provider(self.certificate, target, text)
        self.addCleanup(provider.close)
        h.sbx("config", "set", "net.map", f"{host}:443=127.0.0.1:{provider.port}")
        r = h.run("run", agent, "--name", f"n-{agent}", "--detach", folder, timeout=600)
        self.assertIn(f"sbx secret set -g {service}".encode(), r.stderr)
        h.sbx("rm", "--force", f"n-{agent}")
        h.sbx("secret", "set", "-g", service, "--password-stdin", input=key.encode())
        self.addCleanup(h.run, "secret", "rm", "-g", service)
        r = h.run("run", agent, "--name", f"s-{agent}", folder, *[x for e in extra_env for x in ("-e", e)], "--", *args, timeout=600)
        self.assertTrue(target.exists(), (r.stdout[-3000:] + r.stderr[-3000:]).decode(errors="replace") + repr([s[:2] for s in provider.seen]))
        self.assertEqual(target.read_text().strip(), text)
        sent = [headers.get(key_header, headers.get(key_header.lower(), "")) for _, _, headers in provider.seen]
        self.assertTrue(sent and all(key in v for v in sent if v), sent)
        self.assertNotIn(key.encode(), r.stdout + r.stderr)
        found = h.sbx("exec", "-u", "root", f"s-{agent}", "sh", "-c", f"grep -rl -e '{key[:12]}[{key[12]}]{key[13:]}' /home /etc /tmp /var /root /run /workspace /proc/[0-9]*/environ 2>/dev/null || true")
        self.assertEqual(found, "")
        h.sbx("stop", f"s-{agent}")

    def test_claude_with_a_secret(self):
        self.work_with_secret("claude", "anthropic", "api.anthropic.com", ["-p", "write the file"], "sk-ant-api03-secretSECRET0123456789-abcdefghijklmnop",
                              "X-Api-Key", ["CLAUDE_CODE_MAX_RETRIES=1"])

    def test_codex_with_a_secret(self):
        self.work_with_secret("codex", "openai", "api.openai.com", ["exec", "--skip-git-repo-check", "write the file"],
                              "sk-proj-secretSECRET0123456789abcdefghijklmnop", "Authorization")

    def test_claude(self):
        self.work("claude", "api.anthropic.com", ["-p", "write the file"],
                  {"ANTHROPIC_API_KEY": "sk-test-anthropic-0123456789", "CLAUDE_CODE_MAX_RETRIES": "1"}, "X-Api-Key")

    def test_codex(self):
        self.work("codex", "api.openai.com", ["exec", "--skip-git-repo-check", "write the file"],
                  {"OPENAI_API_KEY": "sk-test-openai-0123456789", "CODEX_API_KEY": "sk-test-openai-0123456789"}, "Authorization")


if __name__ == "__main__":
    unittest.main(verbosity=2)

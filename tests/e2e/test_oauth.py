"""Sign-ins against an authorization server of ours: in the browser, by a device code, refreshed, and from inside a sandbox."""
import base64
import hashlib
import json
import pathlib
import re
import secrets
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import echo_server
from echo_server import EchoServer
from harness import SBX, Home, wait_for
from mock_provider import make_ca

NAMES = ["auth.acme.example", "api.acme.example", "auth.duo.example", "api.duo.example"]


def service(name):
    return {"version": 1, "name": name, "title": name.title(),
            "forms": {"key": {"env": [f"{name.upper()}_API_KEY"], "write": [{"host": f"api.{name}.example", "header": "x-api-key", "format": "{}"}]},
                      "oauth": {"env": [f"{name.upper()}_TOKEN"], "write": [{"host": f"api.{name}.example", "strip": "x-api-key,cookie"}]}},
            "test": {"url": f"https://api.{name}.example/me"},
            "oauth": {"authorize": f"https://auth.{name}.example/authorize", "token": f"https://auth.{name}.example/oauth/token",
                      "device": f"https://auth.{name}.example/device", "client_id": "sbx-test", "scope": "all",
                      "redirect": "http://localhost:{port}/callback", "format": "form"}}


DEVICE_CODE = "dc-" + 500 * "x"  # some are long


class Authority:
    """Knows which tokens are good: the newest alone."""

    def __init__(self):
        self.codes, self.refresh, self.access = {}, None, None
        self.life, self.polls, self.asked, self.flaky = 3600, 0, [], False
        self.answers, self.waits = threading.Event(), threading.Event()  # of refreshing: may it answer; does somebody wait
        self.answers.set()

    def tokens(self):
        # No look of a key at all, and characters that JSON may escape.
        self.access = "at/" + secrets.token_hex(20)
        self.refresh = "rt-" + secrets.token_hex(20)
        id_token = "eyJhbGciOiJub25lIn0.eyJlbWFpbCI6ImFAYiJ9." + secrets.token_urlsafe(30)
        self.given = [self.access, self.refresh, id_token]
        return 200, json.dumps({"access_token": self.access, "refresh_token": self.refresh, "id_token": id_token, "token_type": "Bearer",
                                "expires_in": self.life}).replace("/", "\\/").encode()

    def __call__(self, path, headers, body):
        form = dict(urllib.parse.parse_qsl(body.decode()))
        if path.rstrip("/") == "/oauth/token":
            self.asked.append(form)
            grant = form.get("grant_type")
            if grant == "refresh_token" and not self.answers.is_set():
                self.waits.set()
                self.answers.wait(150)
            if grant == "authorization_code":
                challenge, redirect = self.codes.pop(form.get("code"), (None, None))
                proof = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).decode().rstrip("=")
                if challenge is None or proof != challenge or form.get("redirect_uri") != redirect:
                    return 400, b'{"error":"invalid_grant"}'
            elif grant == "refresh_token" and form.get("refresh_token") != self.refresh:
                return 400, b'{"error":"invalid_grant","error_description":"this token was used"}'
            elif grant and grant.endswith("device_code"):
                self.polls += 1
                if form.get("device_code") != DEVICE_CODE:
                    return 400, b'{"error":"invalid_grant"}'
                if self.polls < 2:
                    return 400, b'{"error":"authorization_pending"}'
                if self.flaky:
                    self.flaky = False
                    return 502, b"<html>try again</html>"
            return self.tokens()
        if path == "/device":
            return 200, json.dumps({"device_code": DEVICE_CODE, "user_code": "ABCD-1234", "verification_uri": "https://acme.example/go",
                                    "interval": 1, "expires_in": 60}).encode()
        if path == "/me":
            return (200 if headers.get("authorization") == f"Bearer {self.access}" else 401), b"{}"
        return None


def start(h, count=1, alpn=("http/1.1",)):
    ca, certificate = make_ca(h.dir / "ca", *NAMES)
    authority = Authority()
    server = EchoServer(certificate, alpn, authority)
    h.sbx("config", "set", "net.ca", ca)
    h.sbx("config", "set", "net.map", ",".join(f"{n}:443=127.0.0.1:{server.port}" for n in NAMES))
    (h.dir / "config/sbx/services").mkdir(mode=0o700, exist_ok=True)
    for name in ("acme", "duo"):
        (h.dir / f"config/sbx/services/{name}.json").write_text(json.dumps(service(name)))
    return authority, server


class SignIn(unittest.TestCase):
    """Without a machine."""

    def setUp(self):
        self.h = h = Home()
        self.addCleanup(h.close)
        self.authority, server = start(h)
        self.addCleanup(server.close)

    def nothing_leaks(self, *outputs):
        a = self.authority
        for text in outputs:
            for token in (a.access, a.refresh):
                self.assertNotIn(token.encode(), text)
        for path in (self.h.dir / "data").rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.assertNotIn(a.access.encode(), path.read_bytes(), path)

    def browser(self, answer):
        """Runs the sign-in; answer(redirect_uri, parameters) plays the browser. Returns (status, stderr)."""
        opener, seen = self.h.dir / "browser", self.h.dir / "url"
        opener.write_text(f'#!/bin/sh\nprintf %s "$1" > "{seen}.new"; mv "{seen}.new" "{seen}"\n')
        opener.chmod(0o755)
        p = subprocess.Popen([SBX, "secret", "set", "-g", "acme", "--oauth"], env={**self.h.env, "BROWSER": str(opener)}, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            self.assertTrue(wait_for(seen.exists))
            url = urllib.parse.urlsplit(seen.read_text())
            parameters = dict(urllib.parse.parse_qsl(url.query))
            self.assertEqual((url.scheme, url.netloc, parameters["code_challenge_method"]), ("https", "auth.acme.example", "S256"))
            self.assertGreaterEqual(len(parameters["state"]), 32)
            answer(parameters["redirect_uri"], parameters)
            out, err = p.communicate(timeout=120)
            return p.returncode, out + err
        finally:
            if p.poll() is None:
                p.kill()

    def get(self, url):
        try:
            with urllib.request.urlopen(url.replace("localhost", "127.0.0.1"), timeout=60) as r:
                return r.status
        except urllib.error.HTTPError as e:
            return e.code

    def test_threat_77_browser_sign_in(self):
        def play(redirect, p):
            self.authority.codes["the-code"] = (p["code_challenge"], redirect)
            port = int(re.search(r":(\d+)/", redirect)[1])
            listening = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True).stdout
            if listening:
                self.assertIn(f"127.0.0.1:{port}", listening)
                self.assertNotIn(f"0.0.0.0:{port}", listening)
            # Others on this host, and pages in the browser, do not know the state.
            self.assertEqual(self.get(f"{redirect}?code=evil&state=guess"), 400)
            self.assertEqual(self.get(f"{redirect}?code=evil"), 400)
            self.assertEqual(self.get(redirect.replace("/callback", "/other") + "?code=evil&state=" + p["state"]), 404)
            self.assertEqual(self.get(f"{redirect}?code=the-code&state={p['state']}"), 200)
            with self.assertRaises(OSError):  # once, and nobody listens any more
                for _ in range(600):
                    self.get(f"{redirect}?code=the-code&state={p['state']}")
                    time.sleep(0.1)
        status, text = self.browser(play)
        self.assertEqual(status, 0, text)
        self.nothing_leaks(text)
        row = json.loads(self.h.sbx("secret", "ls", "--json"))[0]
        self.assertEqual((row["service"], row["form"], row["renewable"]), ("acme", "oauth", True))
        self.assertIn("accepts", self.h.sbx("secret", "test", "acme"))

    def test_a_refusal_is_told(self):
        status, text = self.browser(lambda redirect, p: self.get(f"{redirect}?error=access_denied%1b%5B2J&state={p['state']}"))
        self.assertEqual(status, 1)
        self.assertIn(b"access_denied", text)
        self.assertNotIn(b"\x1b", text)
        self.assertEqual(json.loads(self.h.sbx("secret", "ls", "--json")), [])

    def test_device_code(self):
        self.authority.flaky = True  # one poll fails: the sign-in goes on
        r = self.h.run("secret", "set", "-g", "acme", "--oauth", "--device")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn(b"ABCD-1234", r.stderr)
        self.nothing_leaks(r.stdout, r.stderr)
        self.assertIn("accepts", self.h.sbx("secret", "test", "acme"))

    def test_refresh(self):
        h, a = self.h, self.authority
        refreshed = lambda: sum(f.get("grant_type") == "refresh_token" for f in a.asked)
        a.life = 1
        h.sbx("secret", "set", "-g", "acme", "--device")
        first = a.access
        time.sleep(1.1)
        a.life = 3600
        # Two at once, as the supervisors of two sandboxes: a refresh token is good once, and is used once.
        a.answers.clear()
        both = [subprocess.Popen([SBX, "secret", "renew"], env=h.env, stdin=subprocess.DEVNULL) for _ in range(2)]
        # While the provider lets them wait nobody else does.
        self.assertTrue(a.waits.wait(60))
        h.sbx("secret", "set", "-g", "duo", "--form", "key", "-t", "duo-0123456789abcdef", timeout=60)
        self.assertEqual({r["service"] for r in json.loads(h.sbx("secret", "ls", "--json", timeout=60))}, {"acme", "duo"})
        self.assertEqual([p.poll() for p in both], [None, None])
        a.answers.set()
        self.assertEqual([p.wait(180) for p in both], [0, 0])
        self.assertNotEqual(a.access, first)
        self.assertIn("accepts", h.sbx("secret", "test", "acme"))
        h.sbx("secret", "renew")  # not due
        self.assertEqual(refreshed(), 1)
        # What ran out while no sandbox ran is renewed before it is tested.
        a.life = 1
        h.sbx("secret", "set", "-g", "acme", "--device")
        time.sleep(1.1)
        self.assertIn("accepts", h.sbx("secret", "test", "acme"))
        self.assertEqual(refreshed(), 2)
        # A provider that takes no refresh any more: told, and what there is stays.
        time.sleep(1.1)
        a.refresh = "another"
        r = h.run("secret", "renew")
        self.assertEqual(r.returncode, 1)
        self.assertIn(b"this token was used", r.stderr)
        self.assertIn("accepts", h.sbx("secret", "test", "acme"))
        # What the user removed meanwhile does not come back.
        a.refresh = a.given[1]
        a.answers.clear()
        a.waits.clear()
        p = subprocess.Popen([SBX, "secret", "renew"], env=h.env, stdin=subprocess.DEVNULL)
        self.assertTrue(a.waits.wait(60))
        h.sbx("secret", "rm", "-g", "acme", timeout=60)
        a.answers.set()
        self.assertEqual((p.wait(180), [r["service"] for r in json.loads(h.sbx("secret", "ls", "--json"))]), (0, ["duo"]))


class Inside(unittest.TestCase):
    """An agent signs in from inside of its sandbox."""

    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        cls.authority, cls.server = start(h, alpn=("h2", "http/1.1") if echo_server.h2 else ("http/1.1",))
        h.sbx("policy", "allow", "network", "-g", ",".join(NAMES))
        h.sbx("create", "--name", "s", "shell", h.ws)
        h.sbx("start", "s")

    @classmethod
    def tearDownClass(cls):
        cls.server.close()
        cls.h.close()

    def sh(self, script):
        r = self.h.sh("s", script)
        self.assertEqual(r.returncode, 0, r.stdout[-2000:] + r.stderr[-2000:])
        return r.stdout.decode(errors="replace")

    def sign_in(self, name, *more):
        out = self.sh(f"curl -sSi {' '.join(more)} https://auth.{name}.example/oauth/token -d grant_type=password")
        head, body = out.replace("\r", "").split("\n\n", 1)
        return head, body

    def check(self, name, *more):
        h, a = self.h, self.authority
        head, body = self.sign_in(name, *more)
        self.assertIn(" 200", head.split("\n")[0], body)
        real, tokens = list(a.given), json.loads(body)
        for token in real:
            self.assertNotIn(token, body)
            self.assertNotIn(token.replace("/", "\\/"), body)
        access = tokens["access_token"]
        self.assertEqual(len(access), len(real[0]))
        self.assertTrue(tokens["id_token"].startswith("eyJhbGciOiJub25lIn0.eyJlbWFpbCI6ImFAYiJ9."))  # clients read it
        # At once, whatever the guest sends: the real one.
        self.sh(f"curl -sS {' '.join(more)} https://api.{name}.example/x -H 'Authorization: Bearer {access}' -o /dev/null")
        self.assertEqual(self.server.seen[-1][2]["authorization"], f"Bearer {real[0]}")
        # Kept in the store, for this sandbox alone; from then on new sessions have it, too.
        rows = lambda: [r for r in json.loads(h.sbx("secret", "ls", "--json")) if r["service"] == name and r["sandbox"] == "s"]
        self.assertTrue(wait_for(rows))
        self.assertEqual((rows()[0]["sandbox"], rows()[0]["form"], rows()[0]["renewable"]), ("s", "oauth", True))
        self.assertTrue(wait_for(lambda: self.sh(f"printf %s ${name.upper()}_TOKEN") == access))
        self.sh(f"curl -sS {' '.join(more)} https://api.{name}.example/x -H 'Authorization: Bearer other' -o /dev/null")
        self.assertEqual(self.server.seen[-1][2]["authorization"], f"Bearer {real[0]}")
        # Its refresh, and a sign-in to another account, never reach the provider.
        n = len(a.asked)
        head, body = self.sign_in(name, *more)
        self.assertIn("signed-in", head.lower())
        self.assertEqual(json.loads(body)["access_token"], access)
        self.assertEqual(len(a.asked), n)
        found = self.sh("grep -rl -e 'at/[0-9a-f]\\{40\\}' -e 'rt-[0-9a-f]\\{40\\}' /tmp /root /home /var /run 2>/dev/null || true")
        self.assertNotIn(real[1], found)
        for path in h.dir.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 28 and "ca" not in path.parts:
                data = path.read_bytes()
                self.assertFalse(real[0].encode() in data or real[1].encode() in data, path)

    def test_threat_68_tokens_stay_on_the_host(self):
        self.check("acme", "--http1.1")

    def test_threat_68_over_http2(self):
        if not echo_server.h2:
            self.skipTest("python3-h2 is not installed")
        self.check("duo", "--http2")

    def test_a_key_on_the_host_cannot_be_traded_for_an_account(self):
        h = self.h
        h.sbx("create", "--name", "t", "shell", h.ws)
        h.sbx("secret", "set", "t", "acme", "--form", "key", "-t", "acme-key-0123456789")
        h.sbx("start", "t")
        n = len(self.authority.asked)
        r = h.sh("t", "curl -sSi https://auth.acme.example/oauth/token -d grant_type=password; curl -sSi https://auth.acme.example//oauth/token -d a=b")
        self.assertEqual(r.stdout.count(b" 403"), 2, r.stdout)
        self.assertEqual(len(self.authority.asked), n)
        h.sbx("rm", "--force", "t")
        # The next sandbox of that name inherits nothing.
        self.assertFalse([r for r in json.loads(h.sbx("secret", "ls", "--json")) if r["sandbox"] == "t"])


if __name__ == "__main__":
    unittest.main(verbosity=2)

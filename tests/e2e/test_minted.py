"""Short-lived tokens that a secret buys: a registry's and Copilot's (threat 68); and what answers tell of a secret
(threat 67).  Without a machine: the real net and broker, curl in a namespace, servers on the host's loopback."""
import base64
import json
import pathlib
import secrets
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import echo_server
from echo_server import EchoServer
from harness import wait_for
from netns import Lab, TestCA, needs_lab

DOCKER = "hubuser:dckr_pat_realREAL0123456789abcdef"
TOKEN = "ghp_realTOKEN0123456789abcdefABCDEF0123"
OPENAI = "sk-proj-Zq8+real/KEY_0123456789abcdefXYZ"
HOSTS = ["auth.docker.io", "registry-1.docker.io", "api.github.com", "api.githubcopilot.com", "proxy.individual.githubcopilot.com",
         "api.openai.com", "other.example"]


def b64(raw):
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Issuer:
    """auth.docker.io and api.github.com: a new token for whoever has the real credential."""

    def __init__(self):
        self.given = []

    def __call__(self, path, headers, body):
        if path.startswith("/token"):
            if headers.get("authorization") != "Basic " + base64.b64encode(DOCKER.encode()).decode():
                return 401, b'{"details":"incorrect username or password"}'
            token = ".".join([b64(b'{"alg":"RS256"}'), b64(path.encode()), b64(secrets.token_bytes(64))])
            self.given.append(token)
            return 200, json.dumps({"token": token, "access_token": token, "expires_in": 300, "reflected": DOCKER, "its": {"half": DOCKER.split(":")[1]}}).encode()
        if path.startswith("/copilot_internal/"):
            if headers.get("authorization") != f"Bearer {TOKEN}":
                return 401, b"{}"
            token = f"tid={secrets.token_hex(16)};exp=1999999999;proxy-ep=proxy.individual.githubcopilot.com:{secrets.token_hex(32)}"
            self.given.append(token)
            return 200, json.dumps({"token": token, "expires_at": 1999999999, "refresh_in": 1500}).encode()
        return None


@needs_lab
class Minted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import tempfile
        cls.tmp = tempfile.TemporaryDirectory()
        ca = TestCA(pathlib.Path(cls.tmp.name) / "ca")
        crt, key = ca.leaf("all", *HOSTS)
        both = pathlib.Path(cls.tmp.name) / "both.pem"
        both.write_text(pathlib.Path(crt).read_text() + pathlib.Path(key).read_text())
        cls.issuer = Issuer()
        cls.server = EchoServer(both, ("h2", "http/1.1") if echo_server.h2 else ("http/1.1",), cls.issuer)
        cls.lab = Lab(map=[f"{n}:443=127.0.0.1:{cls.server.port}" for n in HOSTS], ca=[str(ca.cert)])
        cls.lab.allow(*[h for h in HOSTS if h != "other.example"], "GET other.example/")
        for service, value in (("docker", DOCKER), ("github", TOKEN), ("openai", OPENAI)):
            cls.lab.h.sbx("secret", "set", "-g", service, "--password-stdin", input=value.encode())
        cls.addClassCleanup(cls.tmp.cleanup)
        cls.addClassCleanup(cls.lab.close)
        wait_for(lambda: cls.get("https://api.openai.com/x") and cls.sent().get("authorization") == f"Bearer {OPENAI}", 5)

    @classmethod
    def get(cls, url, *more):
        status, code, body = cls.lab.curl(url, *more)
        return code, body.decode(errors="replace")

    @classmethod
    def sent(cls):
        return cls.server.seen[-1][2] if cls.server.seen else {}

    def buy(self, url, *more):
        n = len(self.issuer.given)
        code, body = self.get(url, *more)
        self.assertEqual((code, len(self.issuer.given)), (200, n + 1), body)
        real, o = self.issuer.given[-1], json.loads(body)
        self.assertNotIn(real, body)
        self.assertNotIn(real.rpartition("." if "." in real and "tid" not in real else ":")[2], body)
        self.assertEqual(len(o["token"]), len(real))
        return real, o["token"], body

    def check_registry(self, *how):
        one, held_one, body = self.buy("https://auth.docker.io/token?service=registry.docker.io&scope=repository:a/b:pull&offline_token=true", *how)
        self.assertNotIn(DOCKER.split(":")[1], body)  # the same answer reflects what bought it
        self.assertNotIn("offline_token", self.server.seen[-1][1])
        self.assertEqual(json.loads(body)["access_token"], held_one)
        two, held_two, _ = self.buy("https://auth.docker.io/TOKEN/../token?scope=repository:c/d:pull".replace("/TOKEN/..", ""), *how)
        url = "https://registry-1.docker.io/v2/a/b/manifests/latest"
        for real, held in ((one, held_one), (two, held_two), (one, held_one)):
            code, body = self.get(url, *how, "-H", f"Authorization: Bearer {held}")
            self.assertEqual((code, self.sent()["authorization"]), (200, f"Bearer {real}"))
            self.assertNotIn(real, body)  # which echoes what it was sent
            self.assertIn(held, body)
        # Another account's token, one of before, or none: nothing goes along, and the registry sends to its issuer.
        for other in ("Bearer attackers-own-token-0123456789", f"Bearer {held_one[:-1]}", f"Basic {base64.b64encode(b'evil:password').decode()}"):
            code, _ = self.get(url, *how, "-H", f"Authorization: {other}", "-H", "Cookie: evil=1")
            self.assertEqual(code, 200)
            self.assertNotIn("authorization", self.sent())
            self.assertNotIn("cookie", self.sent())
        # Where it does not belong it does not go.
        n = len(self.server.seen)
        for where in ("https://other.example/", "https://api.openai.com/v1"):
            code, _ = self.get(where, *how, "-H", f"X-Any: {held_one}")
            self.assertEqual((code, len(self.server.seen)), (403, n))
        alerts = [r for r in self.lab.rows(kind="alert") if r["host"] == "other.example"]
        self.assertIn("docker", alerts[-1]["reason"])

    def test_threat_68_a_registrys_tokens_stay_on_the_host(self):
        self.check_registry("--http1.1")

    def test_threat_68_a_registrys_tokens_over_http2(self):
        if not echo_server.h2:
            self.skipTest("python3-h2 is not installed")
        self.check_registry("--http2")

    def test_threat_68_copilots_exchange(self):
        real, held, body = self.buy("https://api.github.com/copilot_internal/v2/token", "--http1.1", "-H", "Authorization: token something")
        self.assertIn("exp=1999999999;proxy-ep=proxy.individual.githubcopilot.com:", held)  # clients read it
        for host in ("api.githubcopilot.com", "proxy.individual.githubcopilot.com"):
            code, body = self.get(f"https://{host}/chat", "--http1.1", "-H", f"Authorization: Bearer {held}")
            self.assertEqual(code, 200, body)
            self.assertEqual(self.sent()["authorization"], f"Bearer {real}")
        # Without it: the secret itself where it belongs, nothing elsewhere.
        self.get("https://api.githubcopilot.com/chat", "--http1.1", "-H", "Authorization: Bearer evil")
        self.assertEqual(self.sent()["authorization"], f"Bearer {TOKEN}")
        code, body = self.get("https://proxy.individual.githubcopilot.com/chat", "--http1.1", "-H", "Authorization: Bearer evil")
        self.assertEqual(code, 200, body)
        self.assertNotIn("authorization", self.sent())
        # The rest of that host is as ever.
        code, body = self.get("https://api.github.com/user", "--http1.1")
        self.assertEqual((code, self.sent()["authorization"]), (200, f"Bearer {TOKEN}"))

    def test_threat_68_a_lent_token_goes_with_its_secret(self):
        real, held, _ = self.buy("https://auth.docker.io/token?scope=x", "--http1.1")
        url, bearer = "https://registry-1.docker.io/v2/", ("--http1.1", "-H", f"Authorization: Bearer {held}")
        self.get(url, *bearer)
        self.assertEqual(self.sent()["authorization"], f"Bearer {real}")
        try:
            self.lab.h.sbx("secret", "rotate", "-g", "docker", "--password-stdin", input=b"hubuser:dckr_pat_anotherONE0123456789abcd")
            self.assertTrue(wait_for(lambda: self.get(url, *bearer) and "authorization" not in self.sent(), 5))
        finally:
            self.lab.h.sbx("secret", "rotate", "-g", "docker", "--password-stdin", input=DOCKER.encode())
        self.assertTrue(wait_for(lambda: self.get("https://auth.docker.io/token", "--http1.1")[0] == 200, 5))

    def test_threat_67_neither_lengths_nor_guesses_tell_a_secret(self):
        """What replaces a secret has its length, in every spelling; a guess that is nearly right comes back as it was sent."""
        code, body = self.get("https://api.openai.com/echo", "--http1.1")
        self.assertEqual(len(body), len(echo_server.spellings(OPENAI)))
        for n in range(8, len(OPENAI)):
            guess = OPENAI[:n] + ("a" if OPENAI[n] != "a" else "b")
            self.assertNotIn(guess, body)
        real = self.issuer
        self.server.app = lambda path, headers, body: (200, b'{"you said":"' + path.encode() + b'"}') if path.startswith("/say/") else real(path, headers, body)
        try:
            for n in (9, 20, len(OPENAI) - 1):
                guess = OPENAI[:n].replace("/", "-") if "/" in OPENAI[:n] else OPENAI[:n]
                code, body = self.get(f"https://api.openai.com/say/{guess}", "--http1.1")
                self.assertEqual((code, body), (200, '{"you said":"/say/' + guess + '"}'))
        finally:
            self.server.app = real


if __name__ == "__main__":
    unittest.main(verbosity=2)

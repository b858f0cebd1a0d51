"""Short-lived tokens that a secret buys: a registry's and Copilot's (threat 68); what answers tell of a secret (threat 67);
content that must be known before its request is signed (threat 83).  Without a machine: the real net and broker, curl in a namespace, servers on the host's loopback."""
import base64
import hashlib
import hmac
import json
import pathlib
import re
import secrets
import sys
import unittest
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import echo_server
from echo_server import EchoServer
from harness import SANITIZED, authority_key, in_memory, spellings_of_key, wait_for
from netns import Lab, TestCA, needs_lab

DOCKER = "hubuser:dckr_pat_realREAL0123456789abcdef"
TOKEN = "ghp_realTOKEN0123456789abcdefABCDEF0123"
GUESSED = "guess-0123456789-of-the-guest"  # what the guest sends of its own: no value of a header or a query is kept
GITLAB, HELD = "glpat-realREAL0123456789", "held-realREAL/0123456789abcdef"
OPENAI = "sk-proj-Zq8+real/KEY_0123456789abcdefXYZ"
HOSTS = ["auth.docker.io", "registry-1.docker.io", "github.com", "api.github.com", "api.githubcopilot.com", "proxy.individual.githubcopilot.com",
         "api.openai.com", "other.example", "gitlab.com", "held.example", "bedrock-runtime.us-east-1.amazonaws.com"]
AWS_ID, AWS_KEY = "AKIDREAL0123456789AB", "wJalrREAL/KEY+0123456789abcdefREALKEY0123"


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
        for service, value in (("docker", DOCKER), ("github", TOKEN), ("openai", OPENAI), ("aws", f"{AWS_ID}:{AWS_KEY}")):
            cls.lab.h.sbx("secret", "set", "-g", service, "--password-stdin", input=value.encode())
        cls.lab.h.sbx("secret", "set", "-g", "gitlab", "--password-stdin", input=GITLAB.encode())
        cls.lab.h.sbx("secret", "set", "-g", "held", "--host", "held.example", "--header", "Cookie", "--placeholder", "--password-stdin", input=HELD.encode())
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

    def test_threat_73_credentials_in_queries_and_contents(self):
        """GitLab reads a token of the query before that of the header; Docker's authority reads an account of the content."""
        for how in ("--http1.1", "--http2") if echo_server.h2 else ("--http1.1",):
            code, _ = self.get("https://gitlab.com/api/v4/user?private_token=glpat-attacker&a=1&Access_Token=evil&job%5Ftoken=evil", how, "-H", "Job-Token: evil")
            self.assertEqual((code, self.server.seen[-1][1], self.sent()["private-token"]), (200, "/api/v4/user?a=1", GITLAB))
            self.assertNotIn("job-token", self.sent())
            n, given = len(self.server.seen), len(self.issuer.given)
            code, body = self.get("https://auth.docker.io/token", how, "-d", "grant_type=password&username=evil&password=evil-0123456789")
            self.assertEqual((code, len(self.server.seen), len(self.issuer.given)), (403, n, given), body)
            self.assertIn("another account", body)

    def test_a_placeholder_is_replaced_where_it_may_stand(self):
        """In the one header of its service; in the query, the content and other headers it stays what the guest sent."""
        self.assertTrue(wait_for(lambda: "HELD_API_KEY" in self.lab.env, 5))
        sentinel = self.lab.env["HELD_API_KEY"]
        self.assertEqual((len(sentinel), sentinel == HELD), (len(HELD), False))
        for how in ("--http1.1", "--http2") if echo_server.h2 else ("--http1.1",):
            code, body = self.get(f"https://held.example/x?k={sentinel}", how, "-H", f"Cookie: a=1; key={sentinel}; b=2", "-H", f"Authorization: Bearer {sentinel}",
                                  "-X", "POST", "-F", f"part={sentinel}")
            self.assertEqual((code, self.sent()["cookie"], self.server.seen[-1][1]), (200, f"a=1; key={HELD}; b=2", f"/x?k={sentinel}"))
            self.assertEqual(self.sent()["authorization"], f"Bearer {sentinel}")
            if how == "--http1.1":
                self.assertIn(sentinel.encode(), self.server.bodies[-1])
                self.assertNotIn(HELD.encode(), self.server.bodies[-1])
            # Another account's is let through: that is what this mode is for.
            self.get("https://held.example/x", how, "-H", "Cookie: key=of-somebody-else")
            self.assertEqual(self.sent()["cookie"], "key=of-somebody-else")
            code, body = self.get("https://other.example/", how, "-H", f"Cookie: {sentinel}")
            self.assertEqual(code, 403)
        # What comes back is searched all the same.
        self.server.app, real = (lambda path, headers, body: (200, json.dumps(headers).encode()) if path == "/all" else real(path, headers, body)), self.server.app
        try:
            code, body = self.get("https://held.example/all", "--http1.1", "-H", f"Cookie: {sentinel}")
        finally:
            self.server.app = real
        self.assertEqual((code, HELD in body, sentinel in body), (200, False, True))

    def test_threat_65_heads_without_a_body(self):
        """Hints, redirects, cookies: the guest sees the sentinel; and what has no body to be searched may be called compressed."""
        for how in ("--http1.1", "--http2") if echo_server.h2 else ("--http1.1",):
            r = self.lab.run("curl", "-sSi", how, "https://api.openai.com/hints")
            shown = r.stdout.decode()
            self.assertEqual([line.split()[1] for line in shown.split("\n") if line.startswith("HTTP/")], ["103", "302"], shown)
            self.assertNotIn(OPENAI, shown)
            self.assertNotIn(urllib.parse.quote(OPENAI, safe=""), shown)
            held = re.search(r"(?i)^set-cookie: k=(\S+)", shown, re.M)[1]
            self.assertEqual((len(held), shown.count(held)), (len(OPENAI), 3))
            self.assertEqual(self.get("https://api.openai.com/not-modified", how)[0], 304)

    def check_stale(self, how, *content):
        n = len(self.server.seen)
        r = self.lab.run("curl", "-sS", how, *content, "-o", "/dev/null", "-o", "/dev/null", "-w", "%{http_code} ",
                         "https://api.openai.com/gone", "https://api.openai.com/gone")
        return r.stdout.decode().split(), len(self.server.seen) - n

    def test_a_server_that_closes_an_old_connection(self):
        """While a request is on its way: its client hears what it would without us, and repeats it (RFC 9112 9.3.1)."""
        for content in ((), ("-d", "x")):
            self.assertEqual(self.check_stale("--http1.1", *content), (["200", "200"], 3))
        # Of the first on a connection nobody else would say what happened.
        code, body = self.get("https://api.openai.com/gone-at-once", "--http1.1")
        self.assertEqual(code, 502)
        self.assertIn("without an answer", body)
        if not echo_server.h2:
            return
        refused, answered = echo_server.h2.events.StreamReset, echo_server.h2.events.ResponseReceived
        self.assertEqual([type(e) for e in self.h2_first_events("/gone", "/gone")], [answered, refused])
        self.assertEqual(self.check_stale("--http2", "-X", "POST"), (["200", "502"], 2))  # that may have had an effect: its client is told
        self.assertEqual(self.get("https://api.openai.com/gone-at-once", "--http2")[0], 502)

    def h2_first_events(self, *paths):
        """Of each request, one after the other on a connection: its answer's beginning, or that it was refused unseen."""
        import h2.errors
        c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        c.initiate_connection()
        found = []
        with self.lab.tls("api.openai.com", alpn=("h2",)) as s:
            for path in paths:
                stream, first, over = c.get_next_available_stream_id(), None, False
                c.send_headers(stream, [(":method", "GET"), (":scheme", "https"), (":authority", "api.openai.com"), (":path", path)], end_stream=True)
                while not over:
                    s.sendall(c.data_to_send())
                    for e in c.receive_data(s.recv(65536) or self.fail("closed")):
                        if getattr(e, "stream_id", None) == stream and isinstance(e, (h2.events.ResponseReceived, h2.events.StreamReset)):
                            first = first or e
                        over |= isinstance(e, (h2.events.StreamEnded, h2.events.StreamReset)) and e.stream_id == stream
                if isinstance(first, h2.events.StreamReset):
                    self.assertEqual(first.error_code, h2.errors.ErrorCodes.REFUSED_STREAM)
                found.append(first)
        return found

    def check_halves(self, got, times=1):
        """What comes back says the sentinel in every spelling, as if each had come in one piece."""
        whole = self.get("https://api.openai.com/echo", "--http1.1")[1].split("\n")[:-1]
        for line, real, held in zip(whole, echo_server.spellings(OPENAI).split("\n"), echo_server.spellings(whole[0]).split("\n")):
            # In Base64 a character at either edge is a neighbour's as well: it stays as it was.
            self.assertLessEqual(sum(a != b for a, b in zip(line, held)), 2, (line, held))
            self.assertGreaterEqual(sum(a != b for a, b in zip(line, real)), 20, (line, real))
        wanted = [f"<{line}>" for line in whole for _ in range((len(line) - 1) * times)]
        self.assertGreater(len(wanted), 800)
        self.assertEqual(len(got), len(wanted))
        for a, b in zip(got, wanted):
            self.assertEqual(a, b)

    def test_threat_65_every_spelling_cut_at_every_byte(self):
        for how in ("--http1.1", "--http2") if echo_server.h2 else ("--http1.1",):
            code, body = self.get("https://api.openai.com/halves", how)
            self.assertEqual(code, 200)
            self.check_halves(body.strip().split("\n"))

    def test_threat_65_every_spelling_cut_at_every_byte_of_events(self):
        code, body = self.get("https://api.openai.com/halves-of-events", "--http1.1", "-N")
        self.assertEqual(code, 200)
        events = body.strip().split("\n\n")
        self.assertEqual({e[:6] for e in events}, {"data: "})
        self.check_halves([e[6:] for e in events])

    def test_threat_38_every_spelling_cut_at_every_byte_of_a_websocket(self):
        head = (b"GET /ws-halves HTTP/1.1\r\nHost: api.openai.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        data = self.lab.say(head, "api.openai.com", timeout=60)
        start, _, data = data.partition(b"\r\n\r\n")
        self.assertIn(b"101", start.split(b"\r\n")[0])
        messages, part = [], b""
        while data:
            first, n, skip = data[0], data[1], 2
            if n == 126:
                n, skip = int.from_bytes(data[2:4], "big"), 4
            part += data[skip:skip + n]
            if first & 0x80:
                messages.append(part.decode().rstrip("\n"))
                part = b""
            data = data[skip + n:]
        self.assertEqual(messages.pop(), "")  # the close
        self.check_halves(messages, 2)

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

    def test_threat_74_between_requests_net_holds_no_secret(self):
        """Nor a half of one, in any form that it wrote or read: over both versions, echoed in pieces, in Basic, signed, minted."""
        versions = ["--http1.1"] + (["--http2"] if echo_server.h2 else [])
        for how in versions:
            for url in ("https://api.openai.com/echo", "https://api.openai.com/halves", "https://api.github.com/user", "https://github.com/a.git/info/refs",
                        "https://auth.docker.io/token?scope=x"):
                self.assertEqual(self.get(url, how)[0], 200, url)
            self.assertEqual(self.lab.run(*self.aws(200 << 10, how)).stdout, b"200")
        for url in ("https://api.openai.com/events", "https://api.openai.com/halves-of-events", "https://api.openai.com/garbage", "https://api.openai.com/cut"):
            self.get(url, "--http1.1")
        self.test_threat_38_every_spelling_cut_at_every_byte_of_a_websocket()
        secrets_of = [OPENAI, TOKEN, DOCKER.split(":")[1], AWS_KEY, *self.issuer.given[-2:]]
        needles = set()
        for value in secrets_of:
            for form in [value] + [base64.b64encode(b"x" * n + value.encode()).decode() for n in range(3)]:
                needles.add(form[len(form) // 2 - 8:][:16].encode())  # what a reused block leaves is the middle
        needles |= {f[len(f) // 2 - 12:][:24].encode() for f in echo_server.spellings(OPENAI).split("\n")[5:10]}
        left = lambda: [n for n in needles if in_memory(self.lab.net.pid, n)]
        self.assertTrue(wait_for(lambda: not left(), 3), left())
        # The search finds what is there: the sentinel.
        held = self.get("https://api.openai.com/echo", "--http1.1")[1].split("\n")[0].encode()
        self.assertTrue(in_memory(self.lab.net.pid, held))
        self.assertTrue(in_memory(self.lab.broker.pid, OPENAI.encode()))

    @unittest.skipIf(SANITIZED, "under the sanitizers nothing is locked, and what is freed stays")
    def test_threat_74_what_the_broker_holds_is_locked(self):
        """In no swap and in no core: the secrets, and the key of the certificate authority, in each form that it is kept in."""
        self.get("https://api.openai.com/echo", "--http1.1")  # which needs a certificate
        key = authority_key(self.lab.h)
        found = {}
        for needle in (OPENAI.encode(), TOKEN.encode(), AWS_KEY.encode(), DOCKER.encode(), *spellings_of_key(key)):
            for flags in mappings_with(self.lab.broker.pid, needle):
                found.setdefault(needle, []).append(flags)
                self.assertTrue({"lo", "dd"} <= flags, (needle[:8], flags))
        self.assertIn(OPENAI.encode(), found)
        self.assertTrue(key in found or key[::-1] in found)  # the search finds it where it is
        for needle in spellings_of_key(key):
            self.assertEqual(list(mappings_with(self.lab.net.pid, needle)), [])

    def test_threat_69_errors_reflect_no_secret(self):
        """What goes wrong between guest and server is told in fixed sentences, and logged without values and queries."""
        lab, spelled, shown = self.lab, [f for f in echo_server.spellings(OPENAI).split("\n")[:-1]], ""
        urls = [f"https://api.openai.com/{p}" for p in ("garbage", "cut", "switch", "gzip", "split", "events")]
        urls += [f"https://api.openai.com/q?key={GUESSED}&access_token={GUESSED}", f"https://api.openai.com/{'x' * 9000}?t={GUESSED}",
                 f"https://other.example/?key={GUESSED}", "https://denied.example/"]
        for url in urls:
            for more in ((), ("-X", "PUT", "-d", "x"), ("-H", "Transfer-Encoding: chunked", "-H", "Content-Length: 5", "-d", "hello"),
                         ("-H", "Host: evil.example"), ("-H", f"Authorization: Bearer {GUESSED}")):
                r = lab.run("curl", "-sSiv", "--http1.1", "--max-time", "5", *more, url, timeout=60)
                shown += r.stdout.decode(errors="replace") + "\n".join(x for x in r.stderr.decode(errors="replace").split("\n") if not x.startswith(">"))
        self.assertIn("HTTP/1.1 502", shown)
        self.assertIn("HTTP/1.1 403", shown)
        for form in spelled:
            self.assertNotIn(form, shown)
        lab.rows()
        for path in lab.h.dir.rglob("*"):  # decisions, our processes' standard error, settings, a core
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                for form in (*spelled, GUESSED):
                    self.assertNotIn(form.encode(), data, path)

    AWS = "https://bedrock-runtime.us-east-1.amazonaws.com/model/a%3Ab/invoke"

    def aws(self, size, version):
        """argv of curl, which signs with sentinels and says of the content only that it is signed."""
        content = pathlib.Path(self.tmp.name) / f"content-{size}"
        if not content.exists():
            content.write_bytes(secrets.token_bytes(1 << 20) * (size >> 20) + b"x" * (size & 0xFFFFF))
        return ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", version, "--aws-sigv4", "aws:amz:us-east-1:bedrock",
                "--user", "AKIDSENTINEL01234567:sentinel", "--data-binary", f"@{content}", self.AWS]

    def check_signature(self, method, path, sent, body):
        auth = dict(p.split("=", 1) for p in sent["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", "))
        names = auth["SignedHeaders"].split(";")
        fields = dict(sent, host=sent.get("host") or sent.get(":authority"))
        hashed = sent.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
        canonical = "\n".join([method, urllib.parse.quote(path, safe="/-._~"), "", *(f"{k}:{fields[k]}" for k in names), "", ";".join(names), hashed])
        scope = auth["Credential"].split("/", 1)[1]
        key = b"AWS4" + AWS_KEY.encode()
        for part in [*scope.split("/"), "\n".join(["AWS4-HMAC-SHA256", sent["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])]:
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        self.assertEqual((auth["Credential"].split("/")[0], auth["Signature"]), (AWS_ID, key.hex()))

    def check_spool(self, version, *sizes):
        for size in sizes:
            r = self.lab.run(*self.aws(size, version))
            self.assertEqual(r.stdout, b"200", r.stderr)
            self.assertTrue(wait_for(lambda: self.server.bodies and len(self.server.bodies[-1]) == size, 5), size)
            self.check_signature(*self.server.seen[-1], self.server.bodies[-1])

    def test_threat_83_content_is_gathered_up_to_its_bounds(self):
        versions = ["--http1.1"] + (["--http2"] if echo_server.h2 else [])
        for version in versions:
            self.check_spool(version, 200 << 10, 1 << 20, 6 << 20)
            n = len(self.server.seen)
            r = self.lab.run(*self.aws((64 << 20) + 1, version))
            self.assertEqual((r.stdout, len(self.server.seen)), (b"413", n), r.stderr)
            r = self.lab.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", version, self.AWS)
            self.assertEqual((r.stdout, len(self.server.seen)), (b"403", n), r.stderr)
        # The rules allowed them, so that they did not go out has rows of its own.
        def rows(text):
            found = self.lab.rows(kind="mismatch", verdict="deny", host="bedrock-runtime.us-east-1.amazonaws.com")
            return sum(r["count"] for r in found if r["reason"].startswith("a request was not passed on: " + text))
        for text in ("its content, which its AWS", "it bears no AWS Signature"):
            self.assertTrue(wait_for(lambda: rows(text) >= len(versions)), text)
            self.assertEqual(rows(text), len(versions), text)
        # All of a sandbox together: two that stay half sent hold all the room, others are told, and it comes back.
        head = (b"POST /model/a/invoke HTTP/1.1\r\nHost: bedrock-runtime.us-east-1.amazonaws.com\r\nX-Amz-Date: 20260101T000000Z\r\n"
                b"Authorization: AWS4-HMAC-SHA256 Credential=AKIDSENTINEL01234567/20260101/us-east-1/bedrock/aws4_request, "
                b"SignedHeaders=host;x-amz-date, Signature=" + b"0" * 64 + b"\r\nContent-Length: %d\r\n\r\n" % (60 << 20))
        held = [self.lab.tls("bedrock-runtime.us-east-1.amazonaws.com", timeout=30) for _ in range(2)]
        for s in held:
            self.addCleanup(s.close)
            s.sendall(head + b"x" * (40 << 20))
        for version in versions:
            r = self.lab.run(*self.aws(1 << 20, version))
            self.assertEqual(r.stdout, b"413", r.stderr)
        if not SANITIZED:
            self.assertLess(self.lab.rss(), 200 << 20)
        for s in held:
            s.close()
        self.assertTrue(wait_for(lambda: self.lab.run(*self.aws(1 << 20, "--http1.1")).stdout == b"200", 5))
        for version in versions:
            self.check_spool(version, 3 << 20)


def mappings_with(pid, needle):
    """The flags of each piece of a process's memory in which the bytes stand."""
    with open(f"/proc/{pid}/smaps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        data = b""
        for line in maps:
            span = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line)
            if span:
                data = b""
                if span[3][0] == "r" and "[v" not in line:
                    try:
                        mem.seek(int(span[1], 16))
                        data = mem.read(int(span[2], 16) - int(span[1], 16))
                    except (OSError, ValueError):
                        pass
            elif line.startswith("VmFlags:") and needle in data:
                yield set(line.split()[1:])


if __name__ == "__main__":
    unittest.main(verbosity=2)

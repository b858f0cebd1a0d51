"""A sentinel in what a request says behind its head: to a host that it does not belong to nothing goes further (threats 63 and
64), over HTTP/1.1, HTTP/2 and WebSocket, in every spelling, wherever it is cut; its own host gets it.  Without a machine:
the real net and broker, and a server that writes down what came."""
import base64
import hashlib
import json
import os
import pathlib
import socket
import struct
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from echo_server import Server, h2, spellings
from harness import wait_for
from netns import Lab, TestCA, needs_lab

KEYS = {"openai": "sk-proj-Zq8+real/KEY_0123456789abcdefXYZ", "github": "ghp_realTOKEN0123456789abcdefABCDEF0123",
        "aws": "AKIDREAL0123456789AB:wJalrREAL/KEY+0123456789abcdefREALKEY0123"}
HOSTS = ["api.openai.com", "other.example", "bedrock-runtime.us-east-1.amazonaws.com"]
END = b"it.ended"


class Recorder(Server):
    """Takes requests and answers the whole ones; everything that came of a body, a trailer or a WebSocket is kept."""

    def __init__(self, cert=None):
        self.came, self.whole, self.resets = bytearray(), 0, 0
        super().__init__(cert, ["h2", "http/1.1"] if h2 else ["http/1.1"])

    def serve(self, s):
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().serve(s)

    def take(self, f, n):
        while n:
            data = f.read1(n)
            if not data:
                raise OSError("cut")
            self.came += data
            n -= len(data)

    def serve_h1(self, s):
        f = s.makefile("rb")
        while (line := f.readline()):
            path, headers = line.split()[1], {}
            while (h := f.readline().rstrip(b"\r\n")):
                k, v = h.split(b":", 1)
                headers[k.lower()] = v.strip()
            if b"sec-websocket-key" in headers:
                self.extensions = headers.get(b"sec-websocket-extensions")
                accept = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
                self.websocket(s, f)
                return
            if path == b"/early":  # the answer begins before the request is whole
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nso far")
            if path == b"/first":  # it is whole by then, and the connection lives on
                s.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nno\n")
            if path == b"/cut":  # and nothing of the content is read
                s.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbig\n")
                return
            if headers.get(b"transfer-encoding") == b"chunked":
                while (n := int(f.readline(), 16)):
                    self.take(f, n)
                    f.readline()
                f.readline()
            else:
                self.take(f, int(headers.get(b"content-length", 0)))
            self.whole += 1
            if path != b"/first":
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def websocket(self, s, f):
        """Each message comes back as its length."""
        while len(head := f.read(2)) == 2:
            n = head[1] & 127
            n = int.from_bytes(f.read(2), "big") if n == 126 else n
            mask = f.read(4)
            for i in range(n):
                byte = f.read(1)
                if not byte:
                    return
                self.came += bytes([byte[0] ^ mask[i % 4]])
            if head[0] & 0x80:
                s.sendall(b"\x81\x02ok")

    def serve_h2(self, s):
        c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        c.initiate_connection()
        s.sendall(c.data_to_send())
        paths = {}
        while (data := s.recv(65536)):
            for e in c.receive_data(data):
                if isinstance(e, h2.events.RequestReceived):
                    paths[e.stream_id] = next(v if isinstance(v, str) else v.decode() for k, v in e.headers if k in (":path", b":path"))
                    if paths[e.stream_id] == "/early":
                        c.send_headers(e.stream_id, [(":status", "200")])
                        c.send_data(e.stream_id, b"so far")
                elif isinstance(e, h2.events.DataReceived):
                    self.came += e.data
                    c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
                elif isinstance(e, h2.events.TrailersReceived):
                    for k, v in e.headers:
                        self.came += v if isinstance(v, bytes) else v.encode()
                elif isinstance(e, h2.events.StreamReset):
                    self.resets += 1
                elif isinstance(e, h2.events.StreamEnded):
                    self.whole += 1
                    if paths[e.stream_id] != "/early":
                        c.send_headers(e.stream_id, [(":status", "200")])
                    c.send_data(e.stream_id, b"ok", end_stream=True)
            s.sendall(c.data_to_send())


def masked(op, data):
    mask = os.urandom(4)
    size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + struct.pack(">H", len(data))
    return bytes([op]) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))


@needs_lab
class Content(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import tempfile
        cls.tmp = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.tmp.cleanup)
        ca = TestCA(pathlib.Path(cls.tmp.name) / "ca")
        cert = ca.leaf("all", *HOSTS)
        cls.server, cls.plain = Recorder(cert), Recorder()
        cls.lab = Lab(map=[*(f"{n}:443=127.0.0.1:{cls.server.port}" for n in HOSTS), f"other.example:80=127.0.0.1:{cls.plain.port}"], ca=[str(ca.cert)])
        cls.addClassCleanup(cls.lab.close)
        for service, value in KEYS.items():
            cls.lab.h.sbx("secret", "set", "-g", service, "--password-stdin", input=value.encode())
        cls.lab.allow(HOSTS[0], HOSTS[2], *(f"{m} other.example/" for m in ("GET", "POST")), "other.example:80")
        wait_for(lambda: {"OPENAI_API_KEY", "GH_TOKEN", "AWS_SECRET_ACCESS_KEY"} <= cls.lab.env.keys())
        cls.openai, cls.github, cls.aws = (cls.lab.env[v] for v in ("OPENAI_API_KEY", "GH_TOKEN", "AWS_SECRET_ACCESS_KEY"))
        cls.versions = ["--http1.1"] + (["--http2"] if h2 else [])

    def setUp(self):
        self.server.came.clear()
        self.plain.came.clear()
        self.whole = self.server.whole

    def post(self, url, body, *how):
        return self.lab.run("curl", "-sS", "-w", "\n%{http_code}", "-H", "Expect:", "-H", "Content-Type: application/octet-stream",
                            "--data-binary", "@-", *how, url, input=body).stdout.decode(errors="replace").rpartition("\n")

    def check_kept(self, *forms):
        """Nothing of these came whole, and no request that the server may take for one."""
        for form in forms:
            self.assertNotIn(form.encode(), self.server.came)
        self.assertEqual(self.server.whole, self.whole)

    def alerts(self, host):
        return [r for r in self.lab.rows(kind="alert") if r["host"] == host]

    def test_threat_63_64_every_spelling_in_a_body(self):
        """Which says what it is, whose and what to do; so does the log."""
        n = len(self.alerts("api.openai.com"))
        forms = spellings(self.github).split("\n")[:-1]
        for how in self.versions:
            for form in forms:
                for more in ((), ("-H", "Transfer-Encoding: chunked")) if how == "--http1.1" else ((),):
                    text, _, code = self.post("https://api.openai.com/v1/responses", b"{\"input\": \"" + b"x" * 9000 + form.encode() + b"\"}", how, *more)
                    self.assertEqual(code, "403", (how, form, text))
                    self.assertIn("github (GH_TOKEN, GITHUB_TOKEN", text)
                    self.assertIn("take it out", text)
        self.check_kept(*forms)
        want = len(forms) * (len(self.versions) + 1)  # the same again within a second is a count
        self.assertTrue(wait_for(lambda: sum(r["count"] for r in self.alerts("api.openai.com")[n:]) == want))
        rows = self.alerts("api.openai.com")[n:]
        self.assertTrue(all("github (GH_TOKEN" in r["reason"] and r["verdict"] == "deny" and r["path"] == "/v1/responses" for r in rows), rows)

    def test_threat_63_what_agents_send_and_read(self):
        """A conversation that quotes the variables of two providers, with an answer in the form that its client reads; one
        that quotes the provider's own alone goes to it."""
        for how in self.versions:
            text, _, code = self.post("https://api.openai.com/v1/responses", f"OPENAI_API_KEY={self.openai}\nAWS_SECRET_ACCESS_KEY={self.aws}\n".encode(), how,
                                      "-H", "Accept: application/json")
            self.assertEqual(code, "403", text)
            self.assertIn("aws", json.loads(text)["error"]["message"])
            own = "\n".join(spellings(self.openai).split("\n")[:-1])
            text, _, code = self.post("https://api.openai.com/v1/responses", f"{own}\n{how}".encode(), how)
            self.assertEqual(code, "200", text)
            self.assertIn(f"{own}\n{how}".encode(), self.server.came)

    def test_threat_63_to_whom_nothing_belongs(self):
        for how in self.versions:
            for secret in (self.openai, self.github, self.aws):
                self.assertEqual(self.post("https://other.example/", f"k={secret}".encode(), how)[2], "403")
            self.assertEqual(self.post("https://other.example/", b"what is harmless " * 40000, how)[2], "200")
        self.whole = self.server.whole
        self.check_kept(self.openai, self.github, self.aws)
        # Nor unencrypted, to anybody.
        text, _, code = self.post("http://other.example/", f"k={self.openai}".encode())
        self.assertEqual(code, "403")
        self.assertIn("unencrypted", text)
        self.assertNotIn(self.openai.encode(), self.plain.came)
        self.assertEqual(self.post("http://other.example/", b"harmless")[2], "200")

    def test_threat_83_what_is_gathered_is_searched_too(self):
        """Nothing of it is sent; a part of a secret is one, and its own host gets it."""
        url = "https://bedrock-runtime.us-east-1.amazonaws.com/model/a/invoke"
        sign = ("--aws-sigv4", "aws:amz:us-east-1:bedrock", "--user", "AKIDSENTINEL01234567:sentinel")
        for how in self.versions:
            self.assertEqual(self.post(url, b"x" * 20000 + self.github.encode(), how, *sign)[2], "403")
            self.assertEqual(bytes(self.server.came), b"")
        self.check_kept()
        self.assertEqual(self.post(url, self.aws.encode(), "--http1.1", *sign)[2], "200")
        self.assertEqual(bytes(self.server.came), self.aws.encode())

    # ---- HTTP/1.1 ----

    def h1(self, pieces, path=b"/v1/x", head=b"Transfer-Encoding: chunked", end=b"0\r\n\r\n"):
        """All that comes back to a request whose body is sent in these pieces, each a chunk, record and segment of its own."""
        with self.lab.tls("api.openai.com") as s:
            got = b""
            try:
                s.sendall(b"POST %s HTTP/1.1\r\nHost: api.openai.com\r\n%s\r\n\r\n" % (path, head))
                for p in pieces:
                    s.sendall(b"%x\r\n%s\r\n" % (len(p), p) if b"chunked" in head else p)
                s.sendall(end)
            except OSError:
                pass
            try:
                while (more := s.recv(65536)):
                    got += more
                    if got.endswith(b"\r\n\r\nok"):
                        return got
            except OSError:
                got += END
            return got

    def test_threat_64_cut_anywhere_over_http1(self):
        secret = self.github.encode()
        self.assertIn(b" 200 ", self.h1([bytes([b]) for b in secret[:-1]]))
        self.whole += 1
        self.assertEqual(bytes(self.server.came), secret[:-1])
        self.assertIn(b"403 Forbidden", self.h1([bytes([b]) for b in secret]).split(b"\r\n")[0])
        for i in range(1, len(secret), 7):
            got = self.h1([b"before " + secret[:i], secret[i:] + b" behind"])
            self.assertIn(b"403 Forbidden", got.split(b"\r\n")[0], i)
            self.assertTrue(got.count(b"HTTP/1.1") == 1 and b"Connection: close" in got, got)
        got = self.h1([secret[:9], secret[9:]], head=b"Content-Length: %d" % len(secret), end=b"")
        self.assertIn(b"403 Forbidden", got.split(b"\r\n")[0])
        # Trailers go nowhere.
        self.assertIn(b" 200 ", self.h1([b"x"], end=b"0\r\nX-Any: %s\r\n\r\n" % secret))
        self.whole += 1
        self.check_kept(self.github)

    def test_threat_63_the_answer_has_begun_over_http1(self):
        """The end of the connection is all that can be said then."""
        with self.lab.tls("api.openai.com") as s:
            s.sendall(b"POST /early HTTP/1.1\r\nHost: api.openai.com\r\nContent-Length: 1000\r\n\r\nso")
            got = b""
            while not got.endswith(b"so far"):
                got += s.recv(65536)
            s.sendall(self.github.encode())
            with self.assertRaises((OSError, EOFError)):
                if not s.recv(65536):
                    raise EOFError
        self.check_kept(self.github)

    def answered_first(self, s, host, expect=b""):
        s.sendall(b"POST /first HTTP/1.1\r\nHost: %s\r\n%sContent-Length: 300000\r\n\r\n" % (host, expect))
        got = b""
        while not got.endswith(b"\r\n\r\nno\n"):
            got += s.recv(65536) or self.fail(got)

    def until_ok(self, s):
        got = b""
        while not got.endswith(b"\r\n\r\nok"):
            got += s.recv(65536) or self.fail(got)
        return got

    def test_a_server_that_answers_before_it_has_the_content(self):
        """It gets the rest, and the connection lives on as it said; that rest is searched as well."""
        for connect, server, host in ((lambda: self.lab.tls("api.openai.com"), self.server, b"api.openai.com"),
                                      (lambda: self.lab.connect("other.example", 80), self.plain, b"other.example")):
            whole = server.whole
            with connect() as s:
                self.answered_first(s, host)
                s.sendall(b"x" * 300000)
                s.sendall(b"GET /next HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
                self.assertEqual(self.until_ok(s).count(b"HTTP/1.1 200"), 1)
            self.assertEqual((server.whole, len(server.came)), (whole + 2, 300000))
        self.whole = self.server.whole
        self.server.came.clear()
        with self.lab.tls("api.openai.com") as s:
            self.answered_first(s, b"api.openai.com")
            with self.assertRaises((OSError, EOFError)):
                s.sendall(b"x" * 70000 + self.github.encode())
                if not s.recv(65536):
                    raise EOFError
        self.check_kept(self.github)

    def test_no_content_behind_an_answer_that_did_not_want_it(self):
        """What a server that refused an Expect reads next may be a request to it: nobody judged that one."""
        with self.lab.tls("api.openai.com") as s:
            self.answered_first(s, b"api.openai.com", b"Expect: 100-continue\r\n")
            try:
                s.sendall(b"GET /next HTTP/1.1\r\nHost: api.openai.com\r\n\r\n")
                self.assertEqual(s.recv(65536), b"")
            except OSError:
                pass
        self.assertEqual(bytes(self.server.came), b"")
        self.check_kept()

    def test_a_server_that_answers_and_resets(self):
        """Whatever of the content was on its way: the answer is read."""
        for _ in range(12):
            got = self.lab.say(b"POST /cut HTTP/1.1\r\nHost: api.openai.com\r\nConnection: close\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2000000, "api.openai.com")
            self.assertTrue(got.startswith(b"HTTP/1.1 413 ") and got.endswith(b"big\n"), got)

    def test_content_that_is_gathered_is_asked_for(self):
        """A client may wait for that as long as it likes."""
        host = b"bedrock-runtime.us-east-1.amazonaws.com"
        with self.lab.tls(host.decode()) as s:
            s.sendall(b"POST /model/a/invoke HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: 5\r\nX-Amz-Date: 20260101T000000Z\r\n"
                      b"Authorization: AWS4-HMAC-SHA256 Credential=AKIDSENTINEL01234567/20260101/us-east-1/bedrock/aws4_request, "
                      b"SignedHeaders=host;x-amz-date, Signature=%s\r\n\r\n" % (host, b"0" * 64))
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                got += s.recv(65536) or self.fail(got)
            self.assertEqual(got, b"HTTP/1.1 100 Continue\r\n\r\n")
            s.sendall(b"hello")
            self.assertIn(b" 200 ", self.until_ok(s))
        self.assertEqual(bytes(self.server.came), b"hello")

    # ---- WebSocket ----

    def websocket(self, pieces, host="api.openai.com", until=b"ok"):
        """What comes back to these frames after the handshake, until such an answer, or with END where the connection did."""
        with self.lab.tls(host) as s:
            s.sendall(b"GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                      b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % host.encode())
            got = b""
            try:
                while b"\r\n\r\n" not in got:
                    got += s.recv(65536)
                self.assertIn(b"101", got.split(b"\r\n")[0])
                got = got.partition(b"\r\n\r\n")[2]
                for p in pieces:
                    s.sendall(p)
                while not got.endswith(until):
                    more = s.recv(65536)
                    if not more:
                        return got + END
                    got += more
            except OSError:
                return got + END
            return got

    def test_threat_38_63_frames_of_a_websocket(self):
        secret, half = self.github.encode(), len(self.github) // 2
        ping = masked(0x89, b"ping")
        for host in ("api.openai.com", "other.example"):
            self.assertEqual(self.websocket([masked(0x81, b"hello")], host), b"\x81\x02ok")
            self.assertIsNone(self.server.extensions)  # what is compressed could not be searched
        self.assertEqual(self.websocket([masked(0x01, secret[:half]), ping, masked(0x80, b" " + secret[half:])]).count(b"ok"), 1)
        for pieces in ([masked(0x81, b"env: " + secret)], [masked(0x82, b"\0\1" + secret + b"\xff" * 200)],
                       [masked(0x01, secret[:half]), ping, masked(0x80, secret[half:])],          # fragments of a message
                       [masked(0x02, b"")] + [masked(0x00, bytes([b])) for b in secret] + [masked(0x80, b"")],
                       [masked(0x82, secret[:half]), masked(0x82, secret[half:])],                 # a stream in messages
                       [bytes([b]) for b in masked(0x81, secret)],                                 # a frame in pieces
                       [masked(0x89, secret[:100])], [masked(0x88, b"\x03\xe8" + secret)],
                       [masked(0x81, base64.b64encode(b"a" + secret))]):
            self.assertTrue(self.websocket(pieces, until=END).endswith(END), pieces)
        # What cannot be searched, or is no frame of a client, ends it as well.
        for pieces in ([masked(0xc1, b"compressed")], [bytes([0x81, 5]) + b"plain"], [masked(0x83, b"unknown")], [masked(0x80, b"of nothing")]):
            self.assertTrue(self.websocket(pieces, until=END).endswith(END), pieces)
        self.check_kept(self.github, base64.b64encode(b"a" + secret).decode()[:-2])
        self.assertEqual(self.websocket([masked(0x81, b"my own is " + self.openai.encode())]), b"\x81\x02ok")
        self.assertTrue(any(r["path"] == "/ws" and "github" in r["reason"] for r in self.alerts("api.openai.com")))

    # ---- HTTP/2 ----

    def streams(self, *streams, path="/v1/x"):
        """For each stream, which is ([DATA, ...], trailers): (status, whether it ended by a reset); all on one connection."""
        c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        c.initiate_connection()
        out = {}
        with self.lab.tls("api.openai.com", alpn=("h2",)) as s:
            for data, trailers in streams:
                stream = c.get_next_available_stream_id()
                out[stream] = [None, None]
                c.send_headers(stream, [(":method", "POST"), (":scheme", "https"), (":authority", "api.openai.com"), (":path", path)])
                if path == "/early":  # not before the answer has begun
                    while out[stream][0] is None:
                        self.take(c, s, out)
                for d in data:
                    c.send_data(stream, d)
                if trailers:
                    c.send_headers(stream, trailers, end_stream=True)
                else:
                    c.end_stream(stream)
            while any(end is None for _, end in out.values()):
                self.take(c, s, out)
        return [tuple(v) for v in out.values()]

    def take(self, c, s, out):
        s.sendall(c.data_to_send())
        for e in c.receive_data(s.recv(65536) or self.fail("closed")):
            if isinstance(e, h2.events.ResponseReceived):
                out[e.stream_id][0] = int(dict(e.headers).get(b":status") or dict(e.headers)[":status"])
            elif isinstance(e, h2.events.StreamEnded):
                out[e.stream_id][1] = "end"
            elif isinstance(e, h2.events.StreamReset):
                out[e.stream_id][1] = out[e.stream_id][1] or "reset"

    @unittest.skipUnless(h2, "python3-h2 is not installed")
    def test_threat_64_cut_anywhere_over_http2(self):
        """Other streams of the connection go on."""
        secret = self.github.encode()
        bad = [([b"before " + secret[:i], secret[i:] + b" behind"], None) for i in range(1, len(secret))]
        bad += [([bytes([b]) for b in secret], None), ([], [("x-any", self.github)]), ([b"data"], [("x-any", base64.b64encode(secret).decode())])]
        good = ([b"harmless"], [("x-any", "harmless")])
        got = self.streams(good, *bad, good)
        self.assertEqual([got[0], got[-1]], [(200, "end")] * 2)
        self.assertEqual(set(got[1:-1]), {(403, "end")})
        self.whole += 2
        self.check_kept(self.github, base64.b64encode(secret).decode())

    @unittest.skipUnless(h2, "python3-h2 is not installed")
    def test_threat_63_the_answer_has_begun_over_http2(self):
        resets = self.server.resets
        self.assertEqual(self.streams(([b"x" * 2000, self.github.encode()], None), path="/early"), [(200, "reset")])
        self.assertTrue(wait_for(lambda: self.server.resets == resets + 1))
        self.check_kept(self.github)


if __name__ == "__main__":
    unittest.main(verbosity=2)

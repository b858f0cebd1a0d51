"""Attacks on the network's parts, driven from the guest's end of the cable with hostile bytes: HTTP/1, HTTP/2, TLS, DNS
and what is no TCP, exhaustion.  `a.test` and its like may only be asked for /ok, so their TLS is intercepted."""
import ctypes
import hashlib
import json
import os
import pathlib
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import h2.config
import h2.connection
import h2.events
import h2.exceptions
from harness import BUILD, PATIENCE, Limit, authority_key, in_memory, keys_in_plain, spellings_of_key, wait_for
from netns import GATEWAY4, Lab, TestCA, needs_lab
from webservers import NodeH2, Raw, Web

NAMES = ("a.test", "b.test", "c.test")
ROOM = (48 << 20) * (20 if "san" in BUILD.name else 1)  # a sanitizer keeps what was freed
END = b"\r\nConnection: close\r\n\r\n"


def status(answer):
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0


class Odd:
    """Answers with the bytes that the path names."""
    ANSWERS = {
        b"/ok/both": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"/ok/lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"/ok/fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"/ok/short": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"/ok/more": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond",
        b"/ok/nobody": b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond",
        b"/ok/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0_2\r\nab\r\n0\r\n\r\n",
        b"/ok/close": b"",
        b"/ok/101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nunasked",
        b"/ok/early": b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbig\n",
    }

    def __init__(self, cert):
        self.raw = Raw(self.talk, cert)

    def talk(self, c):
        got = b""
        while b"\r\n\r\n" not in got:
            more = c.recv(4096)
            if not more:
                return
            got += more
        if got.split()[1] == b"/ok/late":
            time.sleep(1.5)
        c.sendall(self.ANSWERS.get(got.split()[1].split(b"?")[0], b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"))
        if got.split()[1] == b"/ok":
            self.talk(c)  # kept alive
        if got.split()[1] == b"/ok/early?reset":
            return
        time.sleep(0.3)


class H2:
    """A client of HTTP/2 that checks nothing."""

    def __init__(self, lab, name="two.test"):
        self.name = name
        self.s = lab.tls(name, alpn=("h2",))
        assert self.s.selected_alpn_protocol() == "h2"
        self.c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False,
                                                                      validate_inbound_headers=False))
        self.c.initiate_connection()
        self.flush()

    def flush(self):
        self.s.sendall(self.c.data_to_send())

    def fields(self, *more, **pseudo):
        p = {"method": "GET", "scheme": "https", "authority": self.name, "path": "/ok", **pseudo}
        return [(f":{k}", v) for k, v in p.items() if v is not None] + list(more)

    def answer(self, stream, timeout=PATIENCE):
        """The status of that stream; "reset" or "gone"."""
        self.s.settimeout(timeout)
        while True:
            try:
                data = self.s.recv(65536)
            except (OSError, ssl.SSLError):
                return "gone"
            if not data:
                return "gone"
            try:
                events = self.c.receive_data(data)
            except h2.exceptions.ProtocolError:
                return "gone"
            for e in events:
                if isinstance(e, h2.events.ResponseReceived) and e.stream_id == stream:
                    return int(dict(e.headers)[":status"])
                if isinstance(e, h2.events.StreamReset) and e.stream_id == stream:
                    return "reset"
                if isinstance(e, h2.events.ConnectionTerminated):
                    return "gone"
            try:
                self.flush()
            except OSError:
                return "gone"

    def data(self, stream, timeout=PATIENCE):
        """All that this stream still sends."""
        got, ended = b"", False
        self.s.settimeout(timeout)
        while not ended:
            for e in self.c.receive_data(self.s.recv(65536) or b"gone!"):
                if isinstance(e, h2.events.DataReceived) and e.stream_id == stream:
                    got += e.data
                ended |= isinstance(e, (h2.events.StreamEnded, h2.events.StreamReset)) and e.stream_id == stream
            self.flush()
        return got

    def ask(self, fields, stream=1, body=None):
        try:
            self.c.send_headers(stream, fields, end_stream=body is None)
            if body is not None:
                self.c.send_data(stream, body, end_stream=True)
            self.flush()
        except (OSError, h2.exceptions.ProtocolError):
            return "gone"
        return self.answer(stream)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.s.close()


@needs_lab
class Net(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.TemporaryDirectory()
        cls.dir = pathlib.Path(cls.tmp.name)
        cls.ca = ca = TestCA(cls.dir / "ca")
        cert = ca.leaf("web", *NAMES, "relay.test", "two.test", "odd.test", "get.test")
        cls.web, cls.plain, cls.two, cls.odd = Web(cert), Web(), NodeH2(cert), Odd(cert)
        cls.bare = Odd(None)
        cls.expired = Web(ca.leaf("expired", "expired.test", days=-1))
        cls.wrong = Web(ca.leaf("wrong", "other.test"))
        cls.selfmade = Web(ca.leaf("selfmade", "selfmade.test", sign=False))
        cls.common = Web(ca.leaf("common.test"))  # named as its subject's common name alone
        ports = {"relay.test": cls.web, "get.test": cls.web, "two.test": cls.two, "odd.test": cls.odd.raw, "expired.test": cls.expired,
                 "wrong.test": cls.wrong, "selfmade.test": cls.selfmade, "common.test": cls.common, **{n: cls.web for n in NAMES}}
        cls.lab = Lab(map=[f"{n}:443=127.0.0.1:{s.port}" for n, s in ports.items()] + [f"{n}:80=127.0.0.1:{cls.plain.port}" for n in NAMES] +
                      [f"relay.test:8443=127.0.0.1:{cls.web.port}", f"relay.test:8080=127.0.0.1:{cls.plain.port}", f"relay.test:2222=127.0.0.1:{cls.plain.port}",
                       f"exact.test:8080=127.0.0.1:{cls.plain.port}", f"exact.test:80=127.0.0.1:{cls.plain.port}", f"exact.test:5000=127.0.0.1:{cls.bare.raw.port}"] +
                      [f"tell.test:443=127.0.0.1:{cls.plain.port}"], ca=[str(ca.cert)])
        cls.lab.allow("relay.test", "exact.test:8080", "exact.test:80", "exact.test:5000", "tell.test", "GET get.test/ok", *[f"{n}/ok" for n in (*NAMES, "two.test", "odd.test", "expired.test", "wrong.test", "selfmade.test", "common.test")])
        cls.say = cls.lab.say

    @classmethod
    def tearDownClass(cls):
        for s in (cls.web, cls.plain, cls.two, cls.odd.raw, cls.bare.raw, cls.expired, cls.wrong, cls.selfmade, cls.common):
            s.shutdown()
        try:
            cls.lab.close()
        finally:
            cls.tmp.cleanup()

    def setUp(self):
        while True:  # the last test's requests have all arrived
            self.lab.settled()
            self.before = len(self.web.seen)
            time.sleep(0.1)
            if len(self.web.seen) == self.before:
                break

    def tearDown(self):
        self.assertTrue(self.lab.alive(), self.lab.text()[-3000:])

    def new(self):
        return self.web.seen[self.before:]

    def refused(self, data, codes=(400,), **more):
        """That answer, and nothing of it at the server."""
        at = len(self.web.seen) + len(self.plain.seen)
        got = self.lab.say(data, timeout=PATIENCE, quiet=2, **more)
        self.assertIn(status(got), codes, (data[:200], got[:200]))
        self.assertEqual(got.count(b"HTTP/1.1 "), 1, (data[:200], got))
        self.assertEqual(len(self.web.seen) + len(self.plain.seen), at, (data[:200], self.web.seen[-1:], self.plain.seen[-1:]))

    # ---- HTTP/1 ----

    def test_threat_21_three_names_must_be_one(self):
        for name in NAMES:
            for sni in NAMES:
                for host in NAMES:
                    got = b""
                    try:
                        with self.lab.tls(name, sni=sni) as s:
                            s.sendall(b"GET /ok HTTP/1.1\r\nHost: " + host.encode() + END)
                            got = s.recv(4096)
                    except OSError:
                        pass
                    want = 200 if name == sni == host else 421 if name == sni else 0
                    self.assertEqual(status(got), want, (name, sni, host))
        with self.assertRaises(OSError):  # relayed: the server's name is compared as well
            self.lab.tls("relay.test", sni="a.test", cafile=self.ca.cert)
        self.lab.tls("relay.test", cafile=self.ca.cert).close()
        self.assertTrue(self.lab.rows(verdict="deny", host="relay.test"))
        # A client that takes any certificate gets none.
        self.assertEqual(self.first("a.test", [self.hello("b.test")]), b"")
        self.assertTrue(self.lab.rows(kind="mismatch", host="a.test", reason='it speaks to "b.test"'))

    def test_threat_21_36_plain_http_on_another_port_is_judged_as_well(self):
        """A front-end that serves many hosts does so on 8080 too; what is relayed there must not choose among them."""
        def say(pieces, name="relay.test", port=8080, answered=False):
            got = b""
            with self.lab.connect(name, port) as s:
                s.settimeout(PATIENCE if answered else 1)
                try:
                    for p in pieces:
                        s.sendall(p)
                        time.sleep(0.01)
                    while more := s.recv(65536):
                        got += more
                except OSError:
                    pass
            return got
        good = b"GET /x HTTP/1.1\r\nHost: relay.test:8080" + END
        self.assertEqual(status(say([good], answered=True)), 200)
        self.assertEqual(status(say([good[:1], good[1:9], good[9:20], good[20:]], answered=True)), 200)
        self.assertEqual([r["path"] for r in self.lab.rows(host="relay.test", port=8080, kind="request")], ["/x", "/x"])
        at = len(self.plain.seen)
        evil = b"GET /evil HTTP/1.1\r\nHost: evil.test\r\n\r\n"
        for first in (evil, evil.replace(b"evil.test", b"relay.test"), b"\r\n" + evil, b"get /evil http/1.1\nHost: evil.test\n\n", b"FOO  /evil\tHTTP/1.1\r\nHost: evil.test\r\n\r\n",
                      b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /" + b"x" * 20000 + evil[9:]):
            self.assertNotEqual(status(say([first])), 200, first[:40])
            self.assertNotEqual(status(say([first[i:i + 7] for i in range(0, min(len(first), 70), 7)] + [first[70:]])), 200, first[:40])
        self.assertNotIn(b"HTTP/1.1 200", say([good.replace(b"close", b"keep-alive") + evil])[20:])
        self.assertEqual([r for r in self.plain.seen[at:] if "evil" in str(r)], [])
        self.assertTrue(self.lab.rows(host="relay.test", port=8080, kind="mismatch"))
        # A rule that names this very host and port is for whatever is spoken there.
        self.assertEqual(status(say([b"GET /x HTTP/1.1\r\nHost: any.test" + END], "exact.test", answered=True)), 200)
        self.assertFalse(self.lab.rows(host="exact.test", kind="request"))
        self.assertEqual(status(say([b"GET /x HTTP/1.1\r\nHost: any.test" + END], "exact.test", 80, answered=True)), 421)  # but 80 is HTTP's
        # What is no HTTP goes through at once: the server has it to answer.
        for what in (b"SSH-2.0-OpenSSH_9.2 x\r\n", b"PING\r\n", b"\0\1\2"):
            self.assertNotEqual(say([what + b"\r\n\r\n"], port=2222, answered=True), b"", what)

    def test_threat_22_absolute_form_and_host(self):
        self.assertEqual(status(self.lab.say(b"GET https://a.test/ok HTTP/1.1\r\nHost: a.test" + END)), 200)
        for target, host in ((b"https://b.test/ok", b"a.test"), (b"https://a.test/ok", b"b.test"), (b"https://b.test/ok", b"b.test"), (b"http://a.test/ok", b"a.test"),
                             (b"https://a.test:444/ok", b"a.test"), (b"https://x@a.test/ok", b"a.test"), (b"ftp://a.test/ok", b"a.test"), (b"https:///ok", b"a.test")):
            self.refused(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + END, (400, 421))

    def test_threat_23_one_host_field(self):
        for hosts in (b"Host: a.test\r\nHost: a.test", b"Host: a.test\r\nHost: b.test", b"X: 1", b"Host:", b"Host: a.test, b.test", b"Host: a.test b.test", b"Host : a.test"):
            self.refused(b"GET /ok HTTP/1.1\r\n" + hosts + END, (400,))

    def test_threat_24_lengths_and_codings(self):
        for fields in (b"Content-Length: 3\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Content-Length: 3\r\nContent-Length: 3",
                       b"Content-Length: +3", b"Content-Length: 3,3", b"Content-Length: 0x3", b"Content-Length: -1", b"Content-Length: 3 3", b"Content-Length:",
                       b"Content-Length: 18446744073709551619", b"Content_Length: 3", b"Transfer_Encoding: chunked",
                       b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity",
                       b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\r\n chunked"):
            self.refused(b"POST /ok/echo HTTP/1.1\r\nHost: a.test\r\n" + fields + b"\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /ok/smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n", (400, 501))
        self.refused(b"POST /ok/echo HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, 501))
        # Every small change of a good head is read as it stands, or refused: never as two requests.
        good = b"POST /ok/echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        rnd = random.Random(24)
        for at in sorted(rnd.sample(range(16, len(good) - 8), 24)):
            for byte in rnd.sample(b"\0\t\n\x0b\x0c\r \"#,;:\x7f\x85\xa0\xff", 3):
                n = len(self.web.seen)
                got = self.lab.say(good[:at] + bytes([byte]) + good[at:], timeout=0.4)
                self.assertLessEqual(got.count(b"HTTP/1.1 200"), 1, (at, byte, got))
                self.assertLessEqual(len(self.web.seen) - n, 1)

    def test_threat_24_44_what_is_malformed_is_in_the_log(self):
        self.refused(b"GET /ok HTTP/1.1\r\nHost: c.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", name="c.test")
        self.refused(b"CONNECT b.test:443 HTTP/1.1\r\nHost: c.test" + END, (400, 405), name="c.test")
        self.assertEqual(status(self.lab.say(b"GET /ok/both HTTP/1.1\r\nHost: odd.test\r\n\r\n", name="odd.test", timeout=PATIENCE)), 502)
        with H2(self.lab) as c:
            self.assertEqual(c.ask(c.fields(scheme="http")), 400)
        for more in (("x", "a\0b"), ("transfer-encoding", "chunked")):
            with H2(self.lab) as c:
                self.assertEqual(c.ask(c.fields(more)), "reset")
        rows = [(r["host"], r["verdict"], r["reason"]) for r in self.lab.rows(kind="mismatch")]
        for host, verdict, text in (("c.test", "deny", "both a length and a transfer coding"), ("c.test", "deny", "not passed on"), ("odd.test", "fail", "a request failed: "),
                                    ("two.test", "deny", "a request was refused as malformed: its scheme"),
                                    ("two.test", "deny", "Invalid HTTP header field")):
            self.assertTrue([1 for h, v, r in rows if (h, v) == (host, verdict) and text in r], (host, text, rows))

    def test_threat_25_line_ends_folds_names(self):
        for head in (b"GET /ok HTTP/1.1\nHost: a.test\n\n", b"GET /ok HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n", b"GET /ok HTTP/1.1\r\nHost: a.test\rX: y\r\n\r\n",
                     b"GET /ok HTTP/1.1\r\nHost: a.test\r\nX: a\r\n b\r\n\r\n", b"GET /ok HTTP/1.1\r\nHost: a.test\r\n: x\r\n\r\n", b"GET /ok HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n",
                     b"GET /ok HTTP/1.1\r\nHost: a.test\r\nX: a\0b\r\n\r\n", b"GET /ok HTTP/1.1\r\n Host: a.test\r\n\r\n", b"GET  /ok HTTP/1.1\r\nHost: a.test\r\n\r\n",
                     b"GET /ok\tHTTP/1.1\r\nHost: a.test\r\n\r\n", b"GET /o\x80k HTTP/1.1\r\nHost: a.test\r\n\r\n", b"GET /ok HTTP/1.1 \r\nHost: a.test\r\n\r\n", b"G\xc3\x84T /ok HTTP/1.1\r\nHost: a.test\r\n\r\n"):
            for tls in (True, False):
                self.refused(head, (400,), tls=tls)
        for version in (b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/01.1", b"http/1.1", b"HTTP/1.1.1"):
            self.refused(b"GET /ok " + version + b"\r\nHost: a.test\r\n\r\n", (400, 505))

    def test_threat_26_chunks(self):
        def chunked(body):
            return self.lab.say(b"POST /ok/echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body)
        self.assertTrue(chunked(b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: y\r\n\r\n").endswith(b"\r\n\r\nabcde"))
        self.assertNotIn("X-Trailer", str(self.web.seen[-1]))
        for body in (b"0_2\r\nab\r\n0\r\n\r\n", b"0x2\r\nab\r\n0\r\n\r\n", b" 2\r\nab\r\n0\r\n\r\n", b"2 \r\nab\r\n0\r\n\r\n", b"+2\r\nab\r\n0\r\n\r\n", b"\r\nab\r\n0\r\n\r\n",
                     b"2\nab\r\n0\r\n\r\n", b"2\r\nabX\r\n0\r\n\r\n", b"2\r\nab0\r\n\r\n", b"00000000000000002\r\nab\r\n0\r\n\r\n", b"fffffffffffffffff\r\nab",
                     b"2;" + b"x" * 5000 + b"\r\nab\r\n0\r\n\r\n", b"0\r\n GET /ok\r\n\r\n", b"0\r\nX : y\r\n\r\n"):
            got = chunked(body)
            self.assertNotIn(b"200 OK", got, body[:40])

    def test_threat_27_what_ends_a_head(self):
        for end in (b"\r\rZ", b"\r\n\rZ", b"\n\rZ", b"\r\n\r\r\n", b"\r\n\n"):
            self.refused(b"GET /ok HTTP/1.1\r\nHost: a.test" + end + b"GET /ok/two HTTP/1.1\r\nHost: a.test\r\n\r\n", (400,))

    def test_threat_28_bodies_are_framed_anew(self):
        for method in (b"GET", b"DELETE"):  # a body there is a body, never the next request
            got = self.lab.say(method + b" /ok/echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 37\r\nConnection: close\r\n\r\nGET /ok/two HTTP/1.1\r\nHost: a.test\r\n\r\n")
            self.assertEqual(got.count(b"HTTP/1.1 200"), 1, got)
        self.assertFalse([r for r in self.new() if r[1] == "/ok/two"])
        # A server that takes no notice of such a body is told to read on no more, although the client said nothing of it.
        for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS"):
            for framing, body in ((b"Content-Length: 3", b"abc"), (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n")):
                n = len(self.web.seen)
                self.lab.say(method + b" /ok/echo HTTP/1.1\r\nHost: a.test\r\n" + framing + b"\r\n\r\n" + body, timeout=PATIENCE, quiet=1)
                wait_for(lambda: len(self.web.seen) > n)
                self.assertEqual((self.new()[-1][0], self.new()[-1][2].get("Connection")), (method.decode(), "close"))
        for path, bad in ((b"both", True), (b"lengths", True), (b"fold", True), (b"chunk", False), (b"short", False), (b"more", False), (b"nobody", False)):
            got = self.lab.say(b"GET /ok/" + path + b" HTTP/1.1\r\nHost: odd.test\r\n\r\nGET /ok/zzz HTTP/1.1\r\nHost: odd.test\r\n\r\n", name="odd.test", timeout=PATIENCE if bad else 1)
            if bad:
                self.assertEqual(status(got), 502, (path, got))
            self.assertNotIn(b"second", got, path)

    def test_threat_29_each_request_is_judged(self):
        two = b"GET /ok HTTP/1.1\r\nHost: a.test\r\n\r\nGET /no HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
        for cut in [None, *range(3, len(two), 11)]:
            n = len(self.web.seen)
            got = self.lab.say([two] if cut is None else [two[:cut], two[cut:]], pause=0.01)
            self.assertEqual([got.count(b"HTTP/1.1 200"), got.count(b"HTTP/1.1 403")], [1, 1], (cut, got))
            self.assertEqual([r[1] for r in self.web.seen[n:]], ["/ok"])

    def test_threat_29_a_change_of_the_rules_ends_requests_under_way(self):
        h = self.lab.h
        self.lab.allow("a.test/live", "two.test/live")
        key = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        echo = lambda s: (s.sendall(b"\x82\x82\0\0\0\0hi"), s.recv(100))[1]
        over = lambda s: wait_for(lambda: gone(s), step=0.05)

        def gone(s):
            s.settimeout(0.05)
            try:
                return s.recv(100) == b""
            except TimeoutError:
                return False
            except OSError:
                return True
        socks = {}
        for path in ("/ok/ws", "/live/ws"):
            socks[path] = s = self.lab.tls("a.test")
            s.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a.test\r\n" + key)
            self.assertIn(b" 101 ", s.recv(1000))
            self.assertEqual(echo(s), b"\x82\2hi")
        kept, live = H2(self.lab), H2(self.lab)
        with socks["/ok/ws"], socks["/live/ws"], kept, live:
            for c, path in ((kept, "/ok/echo"), (live, "/live/echo")):
                c.c.send_headers(1, c.fields(path=path, method="POST"))
                c.flush()
                self.assertEqual(c.answer(1), 200)
            h.sbx("policy", "rm", "-g", "a.test/live", "two.test/live")
            self.assertTrue(over(socks["/live/ws"]))
            self.assertTrue(over(live.s))
            self.assertEqual(echo(socks["/ok/ws"]), b"\x82\2hi")
            kept.c.send_data(1, b"still", end_stream=True)
            kept.flush()
            self.assertEqual(kept.data(1), b"still")
            # A deny rule for one path alone.
            h.sbx("policy", "deny", "network", "-g", "GET a.test/ok/ws")
            try:
                self.assertTrue(over(socks["/ok/ws"]))
            finally:
                h.sbx("policy", "rm", "-g", "GET a.test/ok/ws")
        self.assertEqual({(r["host"], r["path"]) for r in self.lab.rows(kind="cut")},
                         {("a.test", "/live/ws"), ("two.test", "/live/echo"), ("a.test", "/ok/ws")})

    def test_threat_30_a_body_is_never_read_as_a_head(self):
        body = b"GET /no HTTP/1.1\r\nHost: a.test\r\nAuthorization: x\r\n\r\n" * 40
        head = b"POST /ok/echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        for cut in (1, len(head) - 1, len(head), len(head) + 1, len(head) + 52, len(head) + 500):
            got = self.lab.say([(head + body)[:cut], (head + body)[cut:]], pause=0.02)
            self.assertEqual(got.partition(b"\r\n\r\n")[2], body, cut)
        self.assertEqual({r[1] for r in self.new()}, {"/ok/echo"})

    def test_threat_31_34_nothing_after_a_refused_upgrade_or_connect(self):
        rest = b"GET /ok/two HTTP/1.1\r\nHost: a.test\r\n\r\n"
        for target in (b"a.test:443", b"b.test:443", b"127.0.0.1:22"):
            self.refused(b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n" + rest, (400, 405, 501))
            self.refused(b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n" + rest, (400, 405, 501), tls=False)
        got = self.lab.say(b"GET /no/ws HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x82\x80abcd", timeout=PATIENCE, quiet=1)
        self.assertEqual(status(got), 403)
        for framing in (b"Content-Length: %d\r\n\r\n" % len(rest), b"Transfer-Encoding: chunked\r\n\r\n"):  # nor what was its body
            self.refused(b"POST /no HTTP/1.1\r\nHost: a.test\r\n" + framing + rest, (403,))
        self.assertEqual(self.new(), [])

    def test_threat_35_what_is_no_tls_on_443(self):
        for name in ("a.test", "relay.test"):
            for data in (b"GET /ok HTTP/1.1\r\nHost: a.test\r\n\r\n", b"SSH-2.0-x\r\n", b"\0" * 64, b"\x16\x03\x01\x00\x05hello"):
                with self.lab.connect(name) as s:
                    s.sendall(data)
                    try:
                        self.assertEqual(s.recv(100), b"", (name, data))
                    except ConnectionError:
                        pass
        self.assertEqual(self.new(), [])
        at = len(self.plain.seen)  # where the server would take it
        with self.lab.connect("tell.test") as s:
            s.sendall(b"GET /ok HTTP/1.1\r\nHost: tell.test" + END)
            try:
                self.assertEqual(s.recv(100), b"")
            except ConnectionError:
                pass
        self.assertEqual(self.plain.seen[at:], [])
        self.assertIn("sbx policy allow network lab tell.test:443", self.lab.rows(kind="mismatch", host="tell.test")[-1]["reason"])

    def test_threat_36_no_http2_by_the_back_door(self):
        self.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", (400, 405, 505))
        self.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", (400, 405, 505), tls=False)
        got = self.lab.say(b"GET /ok HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", tls=False)
        self.assertEqual(status(got), 200)
        fields = {k.lower() for k in self.plain.seen[-1][2]}
        self.assertFalse(fields & {"upgrade", "http2-settings"}, fields)

    def test_threat_37_a_change_of_protocol_that_was_not_agreed(self):
        ask = b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        got = self.lab.say(b"GET /ok/fake101 HTTP/1.1\r\nHost: a.test\r\n" + ask + b"\r\n", timeout=PATIENCE)
        self.assertEqual(status(got), 502, got)
        self.assertNotIn(b"raw", got)
        got = self.lab.say(b"GET /ok/101 HTTP/1.1\r\nHost: odd.test\r\n\r\n", name="odd.test", timeout=PATIENCE)  # nobody asked
        self.assertEqual(status(got), 502, got)
        self.assertNotIn(b"unasked", got)

    def test_threat_39_fields_of_one_hop(self):
        for name in (b"authorization", b"host", b"content-length", b"cookie", b"x-api-key", b"Content-Type"):
            self.refused(b"GET /ok HTTP/1.1\r\nHost: a.test\r\nConnection: close, " + name + b"\r\n\r\n", (400,))
        self.assertEqual(status(self.lab.say(b"GET /ok HTTP/1.1\r\nHost: a.test\r\nConnection: close, x-one\r\nX-One: 1\r\nX-Two: 2\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\nTE: gzip\r\n\r\n")), 200)
        fields = {k.lower() for k in self.web.seen[-1][2]}
        self.assertIn("x-two", fields)
        self.assertFalse(fields & {"x-one", "proxy-authorization", "proxy-connection", "keep-alive", "te"}, fields)

    def test_threat_40_methods_that_are_another(self):
        self.refused(b"TRACE /ok HTTP/1.1\r\nHost: a.test" + END, (405,))
        self.assertEqual(status(self.lab.say(b"GET /ok HTTP/1.1\r\nHost: get.test" + END, name="get.test")), 200)
        self.refused(b"POST /ok HTTP/1.1\r\nHost: get.test\r\nContent-Length: 0" + END, (403,), name="get.test")
        for field in (b"X-HTTP-Method-Override: DELETE", b"X-HTTP-Method: PUT", b"X-Method-Override: POST", b"x_http_method_override: DELETE"):
            self.refused(b"GET /ok HTTP/1.1\r\nHost: get.test\r\n" + field + END, (403,), name="get.test")
        self.refused(b"get /ok HTTP/1.1\r\nHost: get.test" + END, (400, 403, 501), name="get.test")
        # The same for paths: what IIS and some frameworks take instead of the one that was judged.
        for field in (b"X-Original-URL: /no", b"X-Rewrite-Url: /no", b"x_original_url: /no", b"X-Forwarded-Host: b.test", b"Forwarded: host=b.test", b"X-Forwarded-Uri: /no"):
            self.refused(b"GET /ok HTTP/1.1\r\nHost: a.test\r\n" + field + END, (403,))
        # WebDAV writes to a path that stands in a field.
        for method in (b"COPY", b"MOVE"):
            self.refused(method + b" /ok HTTP/1.1\r\nHost: a.test\r\nDestination: https://a.test/no" + END, (403,))

    def test_threat_40_44_methods_and_fields_of_http2_are_read_as_strictly(self):
        self.lab.h.sbx("policy", "deny", "network", "-g", "POST two.test")
        try:
            self.lab.in_force()
            for method, want in (("GET", 200), ("POST", 403), ("post", 501), ("Post", 501), ("TRACE", 405), ("TRACK", 405), ("PRI", 405), ("G3T", 200)):
                with H2(self.lab) as c:
                    self.assertEqual(c.ask(c.fields(method=method)), want, method)
            for field in ("x-http-method-override", "x_method_override", "x-original-url", "x-rewrite-url"):
                with H2(self.lab) as c:
                    self.assertEqual(c.ask(c.fields((field, "POST"))), 403, field)
            for more, path in ((("transfer_encoding", "chunked"), "/ok"), (("content_length", "5"), "/ok"), (("x", "y"), "/ok?#/../no"), (("x", "y"), "/ok?\x80")):
                with H2(self.lab) as c:
                    self.assertEqual(c.ask(c.fields(more, path=path)), 400, (more, path))
        finally:
            self.lab.h.sbx("policy", "rm", "-g", "POST two.test")
            self.lab.in_force()

    def test_threat_41_paths(self):
        for path in ("/ok/../no", "/ok/%2e%2e/no", "/ok/%2E./no", "/ok//../no", "//no", "/ok;/../no", "/ok\\..\\no", "/ok%5c..%5cno", "/ok%2f..%2fno", "/ok/%252e%252e/no", "/ok%00/no", "/ok%",
                     "/ok%c0%ae%c0%ae/no", "/OK", "/okno", "/./no", "/%6eo", "/no?/ok", "/no#/ok", "*", "ok"):
            at = len(self.web.seen)
            got = self.lab.say(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a.test" + END)
            self.assertIn(status(got), (400, 403), (path, got[:80]))
            self.assertEqual(len(self.web.seen), at, path)
        for path in ("/ok", "/ok/", "/ok/x", "/%6fk", "/ok?x=/../no", "/ok/a%20b"):
            self.assertEqual(status(self.lab.say(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a.test" + END)), 200, path)

    def test_threat_42_sizes(self):
        self.refused(b"GET /ok HTTP/1.1\r\nHost: a.test\r\nX: " + b"x" * 70000 + END, (431,))
        self.refused(b"GET /ok HTTP/1.1\r\nHost: a.test\r\n" + b"X: y\r\n" * 300 + END[2:], (431,))
        self.refused(b"GET /ok HTTP/1.1\r\nHost: a.test\r\nX: " + b"x" * 17000 + END, (431,))  # one line
        self.refused(b"GET /ok HTTP/1.1\r\nHost: a.test\r\n" + (b"X: " + b"y" * 1200 + b"\r\n") * 60 + END[2:], (431,))  # all of them
        self.refused(b"GET /ok" + b"x" * 17000 + b" HTTP/1.1\r\nHost: a.test" + END, (414,))
        self.refused(b"GET /ok" + b"x" * 70000 + b" HTTP/1.1\r\nHost: a.test" + END, (414, 431))

    def test_threat_43_redirects_are_the_clients(self):
        for to, want in (("https://b.test/no", 403), ("https://b.test/ok", 200), ("https://nowhere.test/", 403)):
            r = self.lab.run("curl", "-sSL", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Authorization: Bearer x", f"https://a.test/ok/redirect?{to}")
            self.assertIn(r.stdout, (str(want).encode(), b"000" if want == 403 else b""), (to, r.stderr))
        self.assertEqual([r[1] for r in self.new() if r[2].get("Host") == "b.test"], ["/ok"])
        r = self.lab.curl("https://a.test/ok/redirect?https://b.test/ok")  # the proxy itself follows nothing
        self.assertEqual(r[1], 302)

    def test_a_server_that_hangs_up(self):
        got = self.lab.say(b"GET /ok/close HTTP/1.1\r\nHost: odd.test\r\n\r\n", name="odd.test", timeout=PATIENCE)
        self.assertEqual(status(got), 502, got)
        got = self.lab.say([b"POST /ok/early HTTP/1.1\r\nHost: odd.test\r\nContent-Length: 900000\r\n\r\n", *[b"x" * 30000] * 30], name="odd.test", timeout=PATIENCE)
        self.assertEqual(status(got), 413, got[:100])
        for _ in range(40):  # where nothing is looked at: what it said before it reset the connection arrives first
            with self.lab.connect("exact.test", 5000) as s:
                send = threading.Thread(target=self.send_what_goes, args=(s, b"POST /ok/early?reset HTTP/1.1\r\nHost: exact.test\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2000000))
                send.start()
                got = s.recv(4096)
                send.join()
            self.assertEqual(status(got), 413, got[:100])

    def send_what_goes(self, s, data):
        try:
            s.sendall(data)
        except OSError:
            pass

    def test_threat_86_who_waits_for_a_server_takes_no_processor(self):
        def used():
            return sum(sum(map(int, pathlib.Path(f"/proc/{p.pid}/stat").read_text().rpartition(")")[2].split()[11:13])) for p in (self.lab.net, self.lab.broker))
        with self.lab.tls("odd.test", timeout=PATIENCE) as s:
            for path, late in ((b"/ok", False), (b"/ok/late", True)):
                s.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: odd.test\r\n\r\n")
                before, began = used(), time.monotonic()
                self.assertEqual(status(s.recv(4096)), 200)
                took, waited = (used() - before) / os.sysconf("SC_CLK_TCK"), time.monotonic() - began
                if late:
                    self.assertLess(took, waited / 5)

    # ---- HTTP/2 ----

    def test_threat_44_pseudo_fields(self):
        with H2(self.lab) as c:
            self.assertEqual(c.ask(c.fields()), 200)
        f = H2.fields
        for what in (dict(authority="b.test"), dict(authority=None), dict(path=None), dict(method=None), dict(scheme=None), dict(scheme="http"), dict(path="https://b.test/ok"), dict(path=""),
                     dict(path="ok"), dict(authority="two.test@b.test"), dict(authority="two.test:444"), dict(method="CONNECT"), dict(method="TRACE"), dict(method="G T")):
            with H2(self.lab) as c:
                self.assertNotEqual(c.ask(f(c, **what)), 200, what)
        for more in ((":path", "/ok"), (":authority", "b.test"), (":x", "y"), ("host", "b.test"), ("Upper", "x"), ("x", "a\r\nb: c"), ("x", "a\0b"), ("x y", "z"), ("", "z"), ("connection", "close"),
                     ("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("te", "gzip"), ("content-length", "5"), ("content-length", "x"), ("keep-alive", "1"), ("proxy-connection", "x")):
            with H2(self.lab) as c:
                self.assertNotEqual(c.ask(c.fields(more)), 200, more)
        with H2(self.lab) as c:
            self.assertEqual(c.ask(c.fields(("host", "two.test"))), 200)

    def test_threat_45_no_second_origin_on_a_connection(self):
        with H2(self.lab) as c:
            self.assertEqual(c.ask(c.fields(), 1), 200)
            self.assertEqual(c.ask(c.fields(path="/no"), 3), 403)
            self.assertEqual(c.ask(c.fields(), 5), 200)
            # That request fails, with all that it sends; the others on the connection live, one under way as well.
            c.c.send_headers(7, c.fields(path="/ok/echo", method="POST"))
            c.flush()
            self.assertEqual(c.answer(7), 200)
            for stream in range(9, 29, 2):
                self.assertEqual(c.ask(c.fields(authority="a.test", path=f"/ok/{stream}", method="POST"), stream, b"x" * 16000), 421)
            c.c.send_data(7, b"still here", end_stream=True)
            c.flush()
            self.assertEqual(c.data(7), b"still here")
            self.assertEqual(c.ask(c.fields(), 29), 200)
        self.assertEqual(self.new(), [])
        rows = lambda: self.lab.rows(kind="mismatch", host="two.test", reason='it speaks to "a.test"')
        self.assertTrue(wait_for(lambda: sum(r["count"] for r in rows()) == 10), rows())  # repeats are one row

    def test_threat_46_floods(self):
        frame = lambda kind, flags, stream, body=b"": len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
        base = self.lab.rss()

        with H2(self.lab) as c:  # as many streams as were announced, and not one more
            self.assertEqual(c.ask(c.fields()), 200)
            c.s.sendall(b"".join(frame(1, 4, 2 * i + 3, c.c.encoder.encode(c.fields(method="POST"))) for i in range(101)))
            got, end = b"", None
            c.s.settimeout(PATIENCE)
            while not end:
                got += c.s.recv(65536)
                while len(got) >= 9 and len(got) >= (n := 9 + int.from_bytes(got[:3], "big")):
                    end = got[9:n] if got[3] == 7 else end
                    got = got[n:]
            self.assertIn(int.from_bytes(end[:4], "big"), (199, 201))  # the last one that was taken; the first may not be over yet
            self.assertIn(b"max concurrent streams", end)

        def flood(make, n=20000):
            with H2(self.lab) as c:
                c.s.settimeout(3)
                block = c.c.encoder.encode(c.fields())
                try:
                    for at in range(0, n, 100):
                        c.s.sendall(b"".join(make(i, block) for i in range(at, at + 100)))
                    c.s.settimeout(1)
                    while c.s.recv(65536):
                        pass
                except OSError:
                    pass
            self.assertLess(self.lab.rss() - base, ROOM)
        flood(lambda i, b: frame(1, 5, 2 * i + 1, b) + frame(3, 0, 2 * i + 1, b"\0\0\0\x08"), 5000)  # open and reset
        flood(lambda i, b: frame(4, 0, 0), 500000)  # settings
        flood(lambda i, b: frame(6, 0, 0, b"12345678"), 500000)  # pings
        flood(lambda i, b: frame(1, 1, 1, b) if i == 0 else frame(9, 0, 1, b"\0" * 100), 5000)  # a head without an end
        flood(lambda i, b: frame(1, 5, 2 * i + 1, b"\x40\x01x\x7f\xe1\x1f" + b"y" * 4000 + b"\xbe" * 4000), 200)  # a table that unpacks
        flood(lambda i, b: frame(2, 0, 2 * i + 1, b"\0\0\0\0\x10"))  # priorities
        flood(lambda i, b: frame(8, 0, 0, b"\0\0\0\1"))  # window updates

    def test_threat_46_more_requests_at_once_than_can_wait(self):
        """Thousands that come together, and that are all judged again when a rule changes: they wait their turn."""
        many = range(26)
        asked = sum(r["count"] for r in self.lab.rows(kind="request", host="two.test"))
        frame = lambda kind, flags, stream, body=b"": len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
        clients = [H2(self.lab) for _ in many]
        try:
            for c in clients:
                block = c.c.encoder.encode(c.fields(path="/ok/echo", method="POST"))
                c.s.sendall(b"".join(frame(1, 4, 2 * i + 1, block) for i in range(99)))
            for c in clients:
                got, answers = b"", 0
                while answers < 99:
                    more = c.s.recv(65536)
                    self.assertTrue(more)
                    got += more
                    while len(got) >= 9 and len(got) >= (n := 9 + int.from_bytes(got[:3], "big")):
                        answers += got[3] == 1
                        got = got[n:]
            self.lab.allow("other.test/x")
            self.lab.h.sbx("policy", "rm", "-g", "other.test/x")
            with H2(self.lab) as c:
                self.assertEqual(c.ask(c.fields()), 200)
            self.assertEqual(sum(r["count"] for r in self.lab.rows(kind="request", host="two.test")) - asked, 99 * len(many) + 1)
        finally:
            for c in clients:
                c.s.close()

    def test_threat_47_no_extended_connect(self):
        with H2(self.lab) as c:
            self.assertEqual(c.ask(c.fields()), 200)
            self.assertFalse(c.c.remote_settings.enable_connect_protocol)
        with H2(self.lab) as c:
            self.assertNotEqual(c.ask([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/ok"), (":authority", "two.test")]), 200)

    def test_threat_48_data_that_does_not_fit(self):
        with H2(self.lab) as c:
            c.s.sendall(b"\0\0\5\0\1\0\0\0\1hello")
            self.assertIn(c.answer(1), ("gone", "reset"))
        for length, body in (("3", b"hello"), ("50", b"hello")):
            with H2(self.lab) as c:
                self.assertNotEqual(c.ask(c.fields(("content-length", length), method="POST"), body=body), 200)

    # ---- TLS ----

    def hello(self, name=None, **more):
        """The bytes of a ClientHello."""
        out = ssl.MemoryBIO()
        context = ssl.create_default_context()
        context.check_hostname = False
        o = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
        try:
            o.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return out.read()

    def first(self, name, pieces, pause=0.0):
        with self.lab.connect(name) as s:
            try:
                for p in pieces:
                    s.sendall(p)
                    if pause:
                        time.sleep(pause)
                return s.recv(10)
            except ConnectionError:
                return b""

    def test_threat_49_encrypted_names(self):
        hello = self.hello("a.test")
        body = b"\x00" + b"\0\1\0\1" + b"\x07" + b"\0\x20" + b"k" * 32 + b"\0\x80" + b"p" * 128
        ech = hello + b"\xfe\x0d" + struct.pack(">H", len(body)) + body
        n = 4 + len(body)
        ech = bytearray(ech)
        ech[3:5] = struct.pack(">H", struct.unpack(">H", ech[3:5])[0] + n)
        ech[6:9] = (int.from_bytes(ech[6:9], "big") + n).to_bytes(3, "big")
        at = 5 + 4 + 2 + 32
        at += 1 + ech[at]
        at += 2 + int.from_bytes(ech[at:at + 2], "big")
        at += 1 + ech[at]
        ech[at:at + 2] = struct.pack(">H", int.from_bytes(ech[at:at + 2], "big") + n)
        at += 2
        inner = bytes(ech).replace(b"\xfe\x0d" + struct.pack(">H", len(body)) + b"\0", b"\xfe\x0d" + struct.pack(">H", len(body)) + b"\1")
        self.assertEqual(self.first("a.test", [inner]), b"")  # which no client sends
        # The outer name counts: for another one there is no answer, whatever is within.
        self.assertEqual(self.first("a.test", [bytes(ech)])[:1], b"\x16")
        self.assertEqual(self.first("b.test", [bytes(ech)]), b"")
        q = b"\0\7\1\0\0\1\0\0\0\0\0\0\1a\4test\0" + struct.pack(">HH", 65, 1)  # no keys for it by DNS either
        self.assertEqual(self.lab.query(q)[3] & 15, 0)
        self.assertEqual(self.lab.query(q)[6:8], b"\0\0")

    def test_threat_50_nothing_early(self):
        r = self.lab.run("sh", "-c", "printf 'GET /ok HTTP/1.1\\r\\nHost: a.test\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -connect a.test:443 -servername a.test -tls1_3 -ign_eof")
        self.assertIn(b"200 OK", r.stdout)
        self.assertNotIn(b"Max Early Data: 16", r.stdout)
        self.assertNotIn(b"New Session Ticket", r.stdout)

    def test_threat_51_a_greeting_in_pieces(self):
        good = self.hello("a.test")
        for _ in range(10):
            began = time.monotonic()
            got = self.first("a.test", [good[i:i + 1] for i in range(len(good))], 0.001)
            if got or time.monotonic() - began < 4:  # it has five seconds to be whole, and this machine may stall for longer
                break
        self.assertEqual(got[:1], b"\x16")
        payload = good[5:]
        self.assertEqual(self.first("a.test", [b"".join(b"\x16\x03\x01\0\1" + payload[i:i + 1] for i in range(len(payload)))])[:2] == b"\x16\x03", True)
        twice = bytearray(good)  # the name a second time: who reads the other one?
        at = 5 + 4 + 2 + 32
        at += 1 + twice[at]
        at += 2 + int.from_bytes(twice[at:at + 2], "big")
        at += 1 + twice[at]
        more = b"\0\0\0\x0b\0\x09\0\0\6b.test"
        twice[at:at + 2] = struct.pack(">H", int.from_bytes(twice[at:at + 2], "big") + len(more))
        twice[3:5] = struct.pack(">H", struct.unpack(">H", twice[3:5])[0] + len(more))
        twice[6:9] = (int.from_bytes(twice[6:9], "big") + len(more)).to_bytes(3, "big")
        for other in (bytes(twice) + more, bytes(twice[:at + 2]) + more + bytes(twice[at + 2:]), self.hello(), self.hello("b.test"), self.hello("127.0.0.1"), good[:5] + b"\2" + good[6:], b"\x16\x03\x01\x40\x01" + good[5:],
                      good[:3] + struct.pack(">H", len(payload) + 4) + payload + b"\1\0\0\0",  # another message behind it
                      b"\x16\x03\x01\0\0" * 20000):
            for name in ("a.test", "relay.test"):
                self.assertEqual(self.first(name, [other]), b"", other[:20])

    def test_threat_52_old_tls(self):
        for version in ("-tls1", "-tls1_1"):
            r = self.lab.run("openssl", "s_client", "-connect", "a.test:443", "-servername", "a.test", version, "-cipher", "ALL:@SECLEVEL=0")
            self.assertNotEqual(r.returncode, 0, r.stdout)
        out, err = self.dir / "tls12", self.dir / "tls12.err"
        with open(out, "wb") as o, open(err, "wb") as e:
            p = self.lab.popen("openssl", "s_client", "-connect", "a.test:443", "-servername", "a.test", "-tls1_2", stdin=subprocess.PIPE, stdout=o, stderr=e)
        with p:
            self.assertTrue(wait_for(lambda: b"Verify return code: 0" in out.read_bytes()))
            self.assertIn(b"Compression: NONE", out.read_bytes())
            p.stdin.write(b"R\n")
            p.stdin.flush()
            self.assertTrue(wait_for(lambda: b"RENEGOTIATING" in err.read_bytes() and b"no renegotiation" in err.read_bytes()), err.read_bytes())
        context = ssl.create_default_context(cafile=self.lab.h.dir / "data/sbx/ca/cert.pem")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with context.wrap_socket(self.lab.connect("a.test"), server_hostname="a.test") as s:
            self.assertEqual(s.version(), "TLSv1.2")

    def test_threat_53_servers_with_bad_certificates(self):
        for name, server in (("expired.test", self.expired), ("wrong.test", self.wrong), ("selfmade.test", self.selfmade), ("common.test", self.common)):
            got = self.lab.say(b"GET /ok HTTP/1.1\r\nHost: " + name.encode() + END, name=name)
            self.assertEqual(status(got), 502, (name, got))
            self.assertIn(b"certificate", got)
            self.assertEqual(server.seen, [])
            row, = self.lab.rows(host=name, kind="mismatch")
            self.assertEqual((row["verdict"], row["reason"].startswith(f"a request failed: the certificate or the TLS of {name} is not accepted: ")), ("fail", True), row)

    def test_threat_54_the_key_is_the_brokers_alone(self):
        self.assertEqual(status(self.lab.say(b"GET /ok HTTP/1.1\r\nHost: a.test" + END)), 200)
        key = authority_key(self.lab.h)
        self.assertIsNone(in_memory(self.lab.net.pid, *spellings_of_key(key)))
        self.assertIsNotNone(in_memory(self.lab.broker.pid, key, key[::-1]))  # the search finds it where it is
        self.assertEqual(keys_in_plain(self.lab.h, key), [])
        self.assertEqual(os.stat(self.lab.h.dir / "data/sbx/secrets/store.json").st_mode & 0o77, 0)
        self.assertEqual(json.loads(self.lab.h.sbx("secret", "ls", "--json")), [])
        links = {os.readlink(f"/proc/{self.lab.net.pid}/fd/{f}").split(":")[0] for f in os.listdir(f"/proc/{self.lab.net.pid}/fd")}
        self.assertFalse([x for x in links if x.startswith(str(self.lab.h.dir / "data"))], links)

    def test_threat_56_who_trusts_no_other_certificate(self):
        with self.assertRaises(ssl.SSLError):
            self.lab.tls("b.test", cafile=self.ca.cert)
        self.assertEqual(self.new(), [])
        self.assertEqual([r["reason"].split(":")[0] for r in self.lab.rows(host="b.test", port=443, kind="mismatch", verdict="fail")], ['the program ended its TLS with "unknown CA"'])
        self.lab.tls("relay.test", cafile=self.ca.cert).close()  # a rule for the whole host is the tunnel

    def test_threat_57_no_quic(self):
        got = self.lab.say(b"GET /ok/alt HTTP/1.1\r\nHost: a.test" + END)
        self.assertEqual(status(got), 200)
        self.assertNotIn(b"alt-svc", got.lower())
        with self.lab.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(PATIENCE)
            s.connect((self.lab.lookup("a.test"), 443))
            s.send(b"\xc0\0\0\0\1" + b"q" * 1200)
            with self.assertRaises(OSError) as e:
                s.recv(100)
        self.assertNotIsInstance(e.exception, TimeoutError)
        self.assertTrue(self.lab.rows(proto="udp", port=443))

    def test_threat_96_certificates_fit_a_clock_that_is_behind(self):
        with self.lab.tls("a.test") as s:
            cert = s.getpeercert()
        start, end = (ssl.cert_time_to_seconds(cert[k]) for k in ("notBefore", "notAfter"))
        self.assertLess(start, time.time() - 12 * 3600)
        self.assertLess(end - start, 200 * 86400)

    # ---- DNS, and what is no TCP ----

    def test_threat_15_metadata_is_shut_whatever_a_rule_says(self):
        h = self.lab.h
        for what in ("169.254.169.254", "[fd00:ec2::254]:80", "metadata.google.internal", "::ffff:169.254.169.254"):
            r = h.run("policy", "allow", "network", "-g", what)
            self.assertEqual((r.returncode, b"never reachable" in r.stderr), (2, True), (what, r.stderr))
        self.lab.allow("169.254.0.0/16", "fd00::/8", "**.google.internal")
        try:
            for what in ("169.254.169.254:80", "[fd00:ec2::254]:80", "metadata.google.internal:80"):
                r = h.run("policy", "check", what)
                self.assertEqual((r.returncode, b"never reachable" in r.stdout, b"to allow it" in r.stdout), (4, True, False), r.stdout)
            for address in ("169.254.169.254", "fd00:ec2::254"):
                with self.assertRaises(OSError):
                    self.lab.connect(address, 22)
                self.assertTrue(self.lab.rows(host=address, port=22, verdict="deny"))
            self.assertIsNone(self.lab.lookup("metadata.google.internal"))
        finally:
            h.sbx("policy", "rm", "-g", "169.254.0.0/16", "fd00::/8", "**.google.internal")

    def test_threat_58_tunnels_through_names(self):
        trace = self.dir / "trace"
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=socket,connect,sendto,sendmsg,sendmmsg,bind", "-p", str(self.lab.broker.pid), "-o", str(trace)],
                                  stderr=subprocess.DEVNULL)
        try:
            self.assertTrue(wait_for(lambda: f"TracerPid:\t{tracer.pid}\n" in pathlib.Path(f"/proc/{self.lab.broker.pid}/status").read_text()))
            for argv in (["iodine", "-f", "-r", "-P", "x", GATEWAY4, "t.tunnel.example"], ["dns2tcpc", "-r", "ssh", "-z", "d.tunnel.example", "-l", "9999", "-k", "x", GATEWAY4],
                         ["iodine", "-f", "-r", "-P", "x", "8.8.8.8", "t.tunnel.example"]):
                p = self.lab.popen(*argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    p.wait(5)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait()
        self.assertNotIn("AF_INET", trace.read_text())
        self.assertNotIn("port=htons(53)", trace.read_text())

    def test_threat_59_malformed_queries(self):
        tail = b"\1a\4test\0\0\1\0\1"
        for q in (b"", b"\0", b"\0" * 11, b"\0\7\1\0\xff\xff\0\0\0\0\0\0" + tail, b"\0\7\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", b"\0\7\1\0\0\1\0\0\0\0\0\0\1a\xc0\x0c\0\1\0\1",
                  b"\0\7\1\0\0\1\0\0\0\0\0\0\x40" + b"x" * 64 + b"\0\0\1\0\1", b"\0\7\1\0\0\1\0\0\0\0\0\0" + b"\x3f" + b"x" * 63 + b"\x3f" + b"x" * 63 + b"\x3f" + b"x" * 63 + b"\x3f" + b"x" * 63 + b"\0\0\1\0\1",
                  b"\0\7\x81\x80\0\1\0\0\0\0\0\0" + tail, b"\0\7\1\0\0\1\0\1\0\0\0\0" + tail, b"\0\7\x28\0\0\1\0\0\0\0\0\0" + tail,
                  b"\0\7\1\0\0\0\0\0\0\0\0\0", b"\0\7\1\0\0\1\0\0\0\0\0\0" + tail[:-1], b"\0\7\1\0\0\1\0\0\0\0\0\0\6a.test\0\0\1\0\1",
                  b"\0\7\1\0\0\1\0\0\0\0\0\0\2a\0\4test\0\0\1\0\1", os.urandom(512), b"\0" * 3000):
            r = self.lab.query(q, timeout=0.3)
            self.assertTrue(r is None or (r[3] & 15) != 0 or r[6:8] == b"\0\0", (q[:60], r))
        for kind in (252, 255, 16, 15, 33, 65, 64, 10):  # zone transfers, ANY, texts, services, NULL
            r = self.lab.query(b"\0\7\1\0\0\1\0\0\0\0\0\0\1a\4test\0" + struct.pack(">HH", kind, 1))
            self.assertTrue(r is None or r[6:8] == b"\0\0", kind)
        with self.lab.connect(GATEWAY4, 53) as s:  # the same over TCP
            q = b"\0\7\1\0\0\1\0\0\0\0\0\0" + tail
            for byte in struct.pack(">H", len(q)) + q:
                s.sendall(bytes([byte]))
            n = struct.unpack(">H", s.recv(2))[0]
            self.assertEqual(s.recv(n)[6:8], b"\0\1")
            s.sendall(b"\xff\xff" + b"x" * 1000)
            try:
                self.assertEqual(s.recv(10), b"")
            except ConnectionError:
                pass
        self.assertTrue(self.lab.lookup("a.test"))

    def test_threat_61_what_is_no_tcp(self):
        for argv in (("ping", "-c1", "-W50", "1.1.1.1"), ("ping", "-c1", "-W50", "a.test"), ("ping", "-6", "-c1", "-W50", "2606:4700::1111")):
            r = self.lab.run(*argv)
            self.assertNotEqual(r.returncode, 0, r.stdout)
            self.assertRegex(r.stdout + r.stderr, b"filtered|rohibited")  # told, not after a wait
        for family, address in ((socket.AF_INET, "1.1.1.1"), (socket.AF_INET6, "2606:4700::1111")):
            with self.lab.socket(family, socket.SOCK_DGRAM) as s:
                s.settimeout(PATIENCE)
                s.connect((address, 123))
                s.send(b"x")
                with self.assertRaises(OSError) as e:
                    s.recv(1)
                self.assertNotIsInstance(e.exception, TimeoutError)
        with self.lab.socket(socket.AF_INET, socket.SOCK_RAW, 132) as s:
            s.sendto(b"sctp" * 4, ("1.1.1.1", 0))
        # Frames of every kind: fragments, odd lengths, ARP for others, router advertisements, DHCP, noise.
        rnd = random.Random(61)
        with self.lab.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind(("eth0", 0))
            gw, me = bytes.fromhex("025342580001"), bytes.fromhex("025342580002")
            ip = lambda proto, body, off=0, ihl=5, total=None: (bytes([0x40 | ihl, 0]) + struct.pack(">HHHBBH", total if total is not None else 20 + len(body), 7, off, 64, proto, 0) +
                                                                bytes([10, 113, 0, 2, 1, 1, 1, 1]) + body)
            v4, v6 = gw + me + b"\x08\0", gw + me + b"\x86\xdd"
            frames = [v4 + ip(17, b"\0\1\0\2\0\x30\0\0", off=0x2000), v4 + ip(17, b"x" * 30, off=5), v4 + ip(6, b"x" * 19), v4 + ip(6, b"", ihl=15), v4 + ip(6, b"", ihl=0), v4 + ip(17, b"xx", total=9000),
                      v4 + ip(17, b"xx", total=0), v6 + b"\x60\0\0\0\xff\xff\x06\x40" + b"\0" * 32, v6 + b"\x60\0\0\0\0\x08\x3a\xff" + b"\0" * 32 + b"\x86\0\0\0\0\0\0\0",
                      b"\xff" * 6 + me + b"\x08\x06" + b"\0\1\x08\0\6\4\0\1" + me + b"\x0a\x71\0\1" + b"\0" * 6 + b"\x0a\x71\0\x63", gw + me + b"\x88\xcc" + b"x" * 40, gw + me + b"\x08\0"]
            for f in frames:
                s.send(f)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            for _ in range(3000):
                f = bytearray(rnd.choice(frames) + os.urandom(rnd.randrange(40)))
                for _ in range(rnd.randrange(1, 4)):
                    f[rnd.randrange(14, len(f)) if len(f) > 14 else 0] = rnd.randrange(256)
                s.send(f)
        self.assertTrue(self.lab.rows(proto="icmp"))
        self.assertTrue(self.lab.rows(proto="udp", port=123))
        self.assertTrue(self.lab.lookup("a.test"))

    # ---- exhaustion ----

    def test_threat_78_who_sends_slowly(self):
        slow = {"greeting": self.lab.connect("a.test"), "relayed greeting": self.lab.connect("relay.test"), "head": self.lab.tls("a.test"), "plain head": self.lab.connect("b.test", 80)}
        two = H2(self.lab)
        self.assertEqual(two.ask(two.fields()), 200)
        block = two.c.encoder.encode(two.fields(("x-a", "a" * 1000)))
        slow["head of HTTP/2"] = two.s
        hello, head = self.hello("a.test"), b"GET /ok HTTP/1.1\r\nX-A: " + b"a" * 1000
        two.s.sendall(len(block).to_bytes(3, "big") + b"\1\5\0\0\0\3" + block[:1])
        heads = {"head of HTTP/2": block[1:]}
        line, ended = self.lab.connect("relay.test", 2222), self.lab.connect("relay.test", 2222)
        line.sendall(b"STUTTER 1")  # it could become HTTP
        ended.sendall(hello[:40])
        ended.shutdown(socket.SHUT_WR)
        left, limit, sent = dict(slow), Limit(120), 0
        try:
            while left and not limit.over():
                for kind, s in list(left.items()):
                    try:
                        s.settimeout(0.05)
                        s.sendall((hello if "greeting" in kind else heads.get(kind, head))[sent:sent + 1])
                        if not s.recv(100) or kind not in heads:
                            del left[kind]
                    except TimeoutError:
                        pass
                    except OSError:
                        del left[kind]
                sent += 1
                time.sleep(0.2)
        finally:
            for s in slow.values():
                s.close()
        self.assertEqual(list(left), [])
        # What came to nothing is in the log, with what would let it through as it is.
        for s in (line, ended):
            with s, self.assertRaises(ConnectionError):
                s.recv(100)
        half, way = "it sent half a TLS greeting, and no more", "sbx policy allow network lab relay.test:2222"
        reasons = lambda **more: [r["reason"] for r in self.lab.rows(kind="mismatch", verdict="deny", **more)]
        self.assertEqual([(half == r, r.endswith(way)) for r in reasons(host="relay.test", port=2222)], [(True, False), (False, True)])
        self.assertIn(half, reasons(host="relay.test", port=443))
        self.assertIn(half, reasons(host="a.test", port=443))
        for host, port in (("a.test", 443), ("b.test", 80), ("two.test", 443)):
            self.assertIn("it sent half the head of a request, and no more", reasons(host=host, port=port))
        with self.lab.connect("c.test", 80) as s:
            s.sendall(head)
            s.shutdown(socket.SHUT_WR)
            with self.assertRaises(ConnectionError):
                s.recv(100)
        self.assertEqual(reasons(host="c.test", port=80), ["a request was refused as malformed: half of its head came, and no more"])
        self.assertEqual(self.new(), [])

    def test_threat_79_80_floods_of_connections(self):
        address, calm = self.lab.lookup("relay.test"), self.lab.fds()
        for _ in range(4):
            many = self.lab.within(lambda: [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(900)])
            try:
                for s in many:
                    s.setblocking(False)
                    s.connect_ex((address, 443))
                time.sleep(1)
                self.assertLess(self.lab.fds(), 700)
                self.assertLess(self.lab.fds(self.lab.broker), 1000)
            finally:
                for s in many:
                    s.close()
        self.assertTrue(wait_for(lambda: self.lab.fds() <= calm + 5), (calm, self.lab.fds()))
        self.assertEqual(status(self.lab.say(b"GET /ok HTTP/1.1\r\nHost: a.test" + END)), 200)

    def test_threat_81_answers_that_nobody_reads(self):
        base = self.lab.rss()
        socks = []
        try:
            for name in ("a.test", "relay.test") * 4:
                s = self.lab.tls(name, cafile=self.ca.cert if name == "relay.test" else None)
                s.sendall(b"GET /ok/big?2000000000 HTTP/1.1\r\nHost: " + name.encode() + b"\r\n\r\n")
                socks.append(s)
            c = H2(self.lab)
            socks.append(c.s)
            c.c.send_headers(1, c.fields(path="/ok/big?2000000000"), end_stream=True)
            c.flush()
            time.sleep(3)
            self.assertLess(self.lab.rss() - base, ROOM * 2 // 3)
            self.assertEqual(status(self.lab.say(b"GET /ok HTTP/1.1\r\nHost: b.test" + END, name="b.test")), 200)
        finally:
            for s in socks:
                s.close()

    def test_threat_86_one_that_takes_all(self):
        p = [self.lab.popen("curl", "-sS", "-o", "/dev/null", f"https://{n}.test/ok/big?300000000000", stderr=subprocess.DEVNULL) for n in ("a", "b")]
        try:
            for _ in range(20):  # others are served meanwhile
                self.assertEqual(status(self.lab.say(b"GET /ok HTTP/1.1\r\nHost: c.test" + END, name="c.test")), 200)
            self.assertEqual([x.poll() for x in p], [None, None])
        finally:
            for x in p:
                x.kill()
                x.wait()

    def test_threat_87_ends_of_connections(self):
        with self.lab.connect("a.test", 80) as s:  # half closed: the answer still comes
            s.sendall(b"GET /ok/big?3000000 HTTP/1.1\r\nHost: a.test" + END)
            s.shutdown(socket.SHUT_WR)
            got = b""
            while True:
                more = s.recv(65536)
                if not more:
                    break
                got += more
            self.assertEqual(len(got.partition(b"\r\n\r\n")[2]), 3000000)
        with self.lab.tls("relay.test", cafile=self.ca.cert) as s:  # the same where nothing is looked at
            s.sendall(b"GET /ok/big?3000000 HTTP/1.1\r\nHost: relay.test" + END)
            socket.socket.shutdown(s, socket.SHUT_WR)  # of the connection, not of TLS
            got = b""
            while more := s.recv(65536):
                got += more
            self.assertEqual(len(got.partition(b"\r\n\r\n")[2]), 3000000)
        fds = self.lab.fds()
        for i in range(300):  # resets at every stage
            s = self.lab.connect("a.test", 80 if i % 2 else 443)
            if i % 3:
                s.sendall(b"GET /ok HTTP/1.1\r\nHost: a.test\r\n\r\n"[:i % 37 + 1] if i % 2 else self.hello("a.test")[:i * 2 + 1])
            if i % 5 == 0:
                s.shutdown(socket.SHUT_WR)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        self.assertTrue(wait_for(lambda: self.lab.fds() <= fds + 2), (fds, self.lab.fds()))
        self.assertTrue(wait_for(lambda: self.lab.stats()["connections"] <= 2))

    def test_both_families_and_much_data(self):
        data = self.dir / "much"
        if not data.exists():
            data.write_bytes(os.urandom(1 << 20) * 100)
        want = hashlib.sha256(data.read_bytes()).hexdigest().encode()
        for family in ("-4", "-6"):
            rc, code, body = self.lab.curl("http://a.test/ok/sum", family, "-T", data, "-H", "Expect:", seconds=300)
            self.assertEqual((rc, code, body), (0, 200, want), family)
            r = self.lab.run("sh", "-c", f"curl -sS {family} -m 300 'http://a.test/ok/big?104857600' | sha256sum", timeout=320)
            block = bytes(range(256)) * 256
            self.assertEqual(r.stdout.split()[0].decode(), hashlib.sha256(block * 1600).hexdigest(), family)


@needs_lab
class Own(unittest.TestCase):
    def test_threat_17_the_hosts_own_addresses_are_not_outside(self):
        """Not even where a setting counts their range as outside, and everything outside is allowed."""
        own = [a for a in subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split() if "." in a]
        if not own:
            self.skipTest("this machine has no address but its loopback's")
        with socket.create_server((own[0], 0)) as service:
            lab = Lab(posture="open", settings=[("net.outside", own[0] + "/32")])
            self.addCleanup(lab.close)
            port = service.getsockname()[1]
            with self.assertRaises(OSError):
                lab.connect(own[0], port)
            service.settimeout(0.3)
            with self.assertRaises(TimeoutError):
                service.accept()
            self.assertIn("own address", lab.rows(host=own[0], port=port, verdict="deny")[0]["reason"])

    def test_threat_05_15_16_17_inner_addresses_by_name_and_by_literal(self):
        """Everything outside is allowed, and the names' owner is an accomplice: nothing of this host answers."""
        own = [a for a in subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split() if "." in a][:1]
        inner = ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1",
                 "fe80::1", "fe80::5efe:127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "100.64.0.1", "224.0.0.1", "255.255.255.255", "ff02::1", "::", *own]
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as service:
            service.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            service.bind(("::", 0))
            service.listen()
            port = service.getsockname()[1]
            lab = Lab(posture="open", hosts="127.0.0.1 localhost\n" + "".join(f"{a} n{i}.example.com\n" for i, a in enumerate(inner)))
            self.addCleanup(lab.close)
            asked = [f"n{i}.example.com" for i in range(len(inner))] + [a for a in inner if not a.startswith(("127.", "::1", "::ffff", "0.", "fe80", "22", "25", "ff0")) and a != "::"]
            for name in asked + ["host.docker.internal", "host.sbx.internal", GATEWAY4]:
                with self.assertRaises(OSError, msg=name):
                    lab.connect(name, port, timeout=3).close()
            service.settimeout(0.3)
            with self.assertRaises(TimeoutError):
                service.accept()
            rows = lab.rows(verdict="deny")
            for i, name in enumerate(inner):
                self.assertTrue([r for r in rows if r["host"] == f"n{i}.example.com" and "address check" in r["reason"]], name)


def forget_in_kernel(home):
    """The data key that a passphrase opened stays in the user's keyring of the kernel."""
    libc = ctypes.CDLL(None)
    salt = json.loads((home.dir / "data/sbx/secrets/store.json").read_text())["wrap"]["salt"]
    key = libc.syscall(249, b"user", f"sbx:{salt}".encode(), None, 0)  # request_key
    if key > 0:
        libc.syscall(250, 9, key, -4, 0, 0)  # KEYCTL_UNLINK


@needs_lab
class Authority(unittest.TestCase):
    """The authority's key, when there is more to it than a store that opens."""

    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.TemporaryDirectory()
        cls.ca = TestCA(pathlib.Path(cls.tmp.name) / "ca")
        cls.web = Web(cls.ca.leaf("web", "a.test", "relay.test"))

    @classmethod
    def tearDownClass(cls):
        cls.web.shutdown()
        cls.tmp.cleanup()

    def lab(self, prepare):
        lab = Lab(map=[f"{n}:443=127.0.0.1:{self.web.port}" for n in ("a.test", "relay.test")], ca=[str(self.ca.cert)], prepare=prepare)
        self.addCleanup(lab.close)
        lab.allow("relay.test", "a.test/ok")
        return lab

    def is_closed(self, lab, why):
        """What has to be looked into fails and says why; what does not goes on."""
        with self.assertRaises(OSError):
            lab.tls("a.test", cafile=self.ca.cert)
        rows = lab.rows(host="a.test", kind="mismatch", verdict="fail")
        self.assertTrue(rows and all(why in r["reason"] for r in rows), rows)
        self.assertEqual(self.web.seen, [])
        lab.tls("relay.test", cafile=self.ca.cert).close()
        self.assertTrue(any(why in r["reason"] for r in lab.rows(kind="policy", rule="secrets")))

    def test_the_key_of_an_sbx_of_before_is_taken_in(self):
        def before(h):
            old = h.dir / "data/sbx/ca"
            old.mkdir(mode=0o700)
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj", "/O=sbx/CN=of before",
                            "-keyout", old / "key.pem", "-out", old / "cert.pem", "-addext", "keyUsage=critical,keyCertSign"], check=True, capture_output=True)
            self.cert = (old / "cert.pem").read_bytes()
        lab = self.lab(before)
        self.assertEqual((lab.h.dir / "data/sbx/ca/cert.pem").read_bytes(), self.cert)
        with lab.tls("a.test") as s:  # which trusts that certificate
            self.assertIn((("commonName", "of before"),), s.getpeercert()["issuer"])
        self.assertEqual(keys_in_plain(lab.h, authority_key(lab.h)), [])
        self.assertEqual(sorted(p.name for p in (lab.h.dir / "data/sbx/ca").iterdir()), ["cert.pem"])

    def test_a_locked_store_fails_closed(self):
        def lock(h):
            h.sbx("secret", "lock", "--passphrase", "--password-stdin", input=b"correct horse battery\n")
            forget_in_kernel(h)
        lab = self.lab(lock)
        self.is_closed(lab, "sbx secret unlock")
        doctor = {x["check"]: x for x in json.loads(lab.h.run("doctor", "--json").stdout)}
        self.assertEqual((doctor["secret store"]["result"], "sbx secret unlock" in doctor["secret store"]["detail"]), ("warning", True))
        self.assertIn("BEGIN CERTIFICATE", (lab.h.dir / "data/sbx/ca/cert.pem").read_text())  # which waits in the store that was locked

    def test_a_damaged_store_fails_closed_until_it_is_mended(self):
        def damage(h):
            h.sbx("secret", "lock", "--keyfile")
            self.good = (h.dir / "data/sbx/secrets/store.json").read_bytes()
            (h.dir / "data/sbx/secrets/store.json").write_bytes(b"{")
        lab = self.lab(damage)
        self.is_closed(lab, "the secret store is damaged")
        store = lab.h.dir / "data/sbx/secrets/store.json"
        (store.parent / "beside").write_bytes(self.good)
        os.rename(store.parent / "beside", store)

        def opens():
            try:
                lab.tls("a.test").close()
                return True
            except OSError:
                return False
        self.assertTrue(wait_for(opens, 20))


if __name__ == "__main__":
    unittest.main()

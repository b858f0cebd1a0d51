"""A company's proxy (net.proxy): what goes through it is judged and vetted as ever, and the proxy is asked for what was
vetted.  Behind the real broker and net in a network namespace; the proxy is ours, so that it can lie, and tinyproxy."""
import base64
import shutil
import socket
import subprocess
import unittest

from harness import PATIENCE, wait_for
from listener import Listener
from netns import Lab, needs_lab

# Names of documentation ranges; nothing is sent there: the proxy of the test answers itself.
HOSTS = """127.0.0.1 localhost
203.0.113.9 far.work.test
203.0.113.11 other.work.test
10.1.2.3 inner.work.test
203.0.113.12 mixed.work.test
10.1.2.4 mixed.work.test
"""


class Mock:
    """Notes each CONNECT and answers as `mode` says; a tunnel echoes in capitals."""

    def __init__(self):
        self.mode = "ok"
        self.seen = []
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        self.listener = Listener(sock, self.serve)

    def serve(self, s):
        with s:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                more = s.recv(1)
                if not more:
                    return
                head += more
            lines = head.decode().split("\r\n")
            self.seen.append((lines[0], dict(l.split(": ", 1) for l in lines[1:] if l)))
            mode = self.mode
            if mode == "ok":
                # What follows the head at once belongs to the connection.
                s.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Connection established\r\nProxy-Agent: mock\r\n\r\nhello ")
                while data := s.recv(65536):
                    s.sendall(data.upper())
            elif mode == "endless":
                try:
                    s.sendall(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100000)
                    s.recv(1)
                except OSError:
                    pass
            elif mode == "garbage":
                s.sendall(b"SSH-2.0-x\r\n\r\n")
            elif mode != "close":
                s.sendall(f"HTTP/1.1 {mode} No\r\nContent-Length: 2\r\n\r\nno".encode())

    def close(self):
        self.listener.close()


@needs_lab
class Proxy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mock = Mock()
        cls.addClassCleanup(cls.mock.close)
        cls.lab = Lab(hosts=HOSTS, settings=(("net.proxy", f"http://127.0.0.1:{cls.mock.port}"),))
        cls.addClassCleanup(cls.lab.close)
        cls.lab.h.sbx("secret", "set", "-g", "proxy", "--password-stdin", input=b"company\\me:pa$$word")
        cls.lab.allow("*.work.test", "203.0.113.77:4443")

    def setUp(self):
        self.mock.mode = "ok"
        self.mock.seen.clear()

    def setting(self, name, value):
        before = self.lab.h.sbx("config", "get", name).strip()
        self.lab.h.sbx("config", "set", name, value)
        self.addCleanup(self.lab.in_force)
        self.addCleanup(self.lab.h.sbx, "config", "set", name, before)
        self.lab.in_force()

    def fails(self, name, port=4443):
        before = len(self.lab.rows())
        with self.assertRaises(OSError):
            self.lab.connect(name, port).close()
        return " ".join(r["reason"] for r in self.lab.rows()[before:])

    def talk(self, name, port=4443):
        with self.lab.connect(name, port) as s:
            s.sendall(b"abc\n")  # a whole line: until then it could become HTTP, and would be judged
            got = b""
            while len(got) < 10:
                got += s.recv(100)
            return got.removesuffix(b"\n")

    def test_threat_95_the_proxy_is_asked_for_the_address_that_was_vetted(self):
        self.assertEqual(self.talk("far.work.test"), b"hello ABC")
        line, fields = self.mock.seen[-1]
        self.assertEqual(line, "CONNECT 203.0.113.9:4443 HTTP/1.1")
        self.assertEqual(fields["Host"], "203.0.113.9:4443")
        self.assertEqual(base64.b64decode(fields["Proxy-Authorization"].removeprefix("Basic ")), b"company\\me:pa$$word")
        row = [r for r in self.lab.rows(kind="open") if r["host"] == "far.work.test"][-1]
        self.assertEqual((row["addr"], row["reason"]), ("203.0.113.9", f"through the proxy 127.0.0.1:{self.mock.port}"))
        # A literal goes there as it is.
        self.assertEqual(self.talk("203.0.113.77"), b"hello ABC")
        self.assertEqual(self.mock.seen[-1][0], "CONNECT 203.0.113.77:4443 HTTP/1.1")
        self.assertNotIn("pa$$word", self.lab.text())

    def test_threat_95_an_inner_address_is_not_asked_for(self):
        for name in ("inner.work.test", "mixed.work.test"):
            self.assertIn("address check", self.fails(name), name)
        self.assertEqual(self.mock.seen, [])
        # The host's own loopback is none of the proxy's business.
        with socket.create_server(("127.0.0.1", 0)) as own:
            port = own.getsockname()[1]
            self.lab.allow(f"localhost:{port}")
            s = self.lab.connect("host.docker.internal", port)
            own.settimeout(PATIENCE)
            own.accept()[0].close()
            s.close()
        self.assertEqual(self.mock.seen, [])

    def test_threat_95_names_only_where_the_user_says_so(self):
        self.assertIn("does not resolve", self.fails("nowhere.work.test"))
        self.assertEqual(self.mock.seen, [])
        self.setting("net.proxy_names", "true")
        self.setting("net.proxy_except", "own.work.test")
        self.assertEqual(self.talk("nowhere.work.test"), b"hello ABC")
        self.assertEqual(self.mock.seen[-1][0], "CONNECT nowhere.work.test:4443 HTTP/1.1")
        self.assertEqual(self.lab.rows(kind="open")[-1]["reason"], f"through the proxy 127.0.0.1:{self.mock.port}, which got the name")
        # What resolves to something inner here is refused all the same, and so is what no rule allows.
        self.assertIn("address check", self.fails("inner.work.test"))
        count = len(self.mock.seen)
        self.fails("elsewhere.example")
        # An exception is dialled directly, so it has to resolve.
        self.assertIn("does not resolve", self.fails("own.work.test"))
        self.assertEqual(len(self.mock.seen), count)

    def test_threat_95_a_proxy_that_refuses_or_lies(self):
        for mode, why in (("407", "wants another login"), ("403", "denies it"), ("502", "No route"), ("garbage", "Protocol error"),
                          ("close", "Protocol error"), ("endless", "Protocol error"), ("301", "Protocol error")):
            self.mock.mode = mode
            self.assertIn(why, self.fails("other.work.test"), mode)
        self.mock.mode = "ok"
        self.assertEqual(self.talk("other.work.test"), b"hello ABC")
        self.assertTrue(self.lab.alive())

    def test_threat_95_a_rule_that_changes_ends_what_goes_through_the_proxy(self):
        s = self.lab.connect("far.work.test", 4443)
        self.assertEqual(s.recv(6), b"hello ")
        self.lab.h.sbx("policy", "deny", "network", "-g", "far.work.test")
        try:
            s.settimeout(PATIENCE)
            self.assertEqual(s.recv(1), b"")
        except ConnectionResetError:
            pass
        finally:
            s.close()
            for rule in self.lab.h.sbx("policy", "ls", "--json").split('"id"')[1:]:
                if "far.work.test" in rule:
                    self.lab.h.sbx("policy", "rm", "network", "-g", rule.split('"')[1])
            self.lab.in_force()
        self.assertTrue([r for r in self.lab.rows(kind="cut") if r["host"] == "far.work.test"])

    def test_the_environment_is_not_obeyed(self):
        self.setting("net.proxy", "")
        with socket.create_server(("127.0.0.1", 0)) as trap, socket.create_server(("127.0.0.1", 0)) as own:
            where = f"http://127.0.0.1:{trap.getsockname()[1]}"
            names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
            port = own.getsockname()[1]
            lab = Lab(settings=(("net.map", f"a.test:443=127.0.0.1:{port}"),), environment={n: where for n in names})
            try:
                lab.allow("a.test")
                s = lab.connect("a.test", 443)
                own.settimeout(PATIENCE)
                own.accept()[0].close()
                s.close()
            finally:
                lab.close()
            trap.settimeout(0.2)
            with self.assertRaises(TimeoutError):
                trap.accept()

    @unittest.skipUnless(shutil.which("tinyproxy"), "needs tinyproxy")
    def test_tinyproxy_with_a_login(self):
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        conf = self.lab.h.dir / "tiny.conf"
        conf.write_text(f"Port {port}\nListen 127.0.0.1\nMaxClients 10\nBasicAuth me secret1234\nUpstream http 127.0.0.1:{self.mock.port}\n")
        p = subprocess.Popen(["tinyproxy", "-d", "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(p.wait)
        self.addCleanup(p.terminate)
        def listens():
            with socket.socket() as c:
                return c.connect_ex(("127.0.0.1", port)) == 0
        self.assertTrue(wait_for(listens))
        self.setting("net.proxy", f"http://me:wrong%20one@127.0.0.1:{port}")
        self.assertRegex(self.fails("far.work.test"), "wants another login|denies it")
        self.setting("net.proxy", f"http://me:secret1234@127.0.0.1:{port}")
        self.assertEqual(self.talk("far.work.test"), b"hello ABC")
        self.assertEqual(self.mock.seen[-1][0].split()[1], "203.0.113.9:4443")

    def test_bad_settings_are_refused_and_no_password_is_repeated(self):
        for bad in ("https://p:1", "p:3128", "http://", "http://p:0", "http://p:99999", "http://a\r\nb:1", "http://u:hunter2%0d@p:1", "http://u:hunter2@p:x"):
            r = self.lab.h.run("config", "set", "net.proxy", bad)
            self.assertEqual(r.returncode, 2, bad)
            self.assertNotIn(b"hunter2", r.stderr)


if __name__ == "__main__":
    unittest.main()

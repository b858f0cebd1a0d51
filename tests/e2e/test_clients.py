"""Real clients against real servers through `sbx net` and `sbx broker`: allowed, denied, and allowed on one path only,
relayed untouched and intercepted."""
import functools
import hashlib
import http.server
import pathlib
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from netns import Lab, TestCA, needs_lab
from webservers import NodeH2, Web

WS = r"""
import base64, hashlib, os, socket, ssl, sys
name, path = sys.argv[1:]
s = ssl.create_default_context().wrap_socket(socket.create_connection((name, 443), 600), server_hostname=name)
s.settimeout(600)
key = base64.b64encode(os.urandom(16))
s.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: " + name.encode() + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
          b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
f = s.makefile("rb")
status = f.readline().split()[1].decode()
while f.readline() != b"\r\n": pass
if status != "101": print(status); sys.exit()
for n in (5, 70000):
    data, mask = os.urandom(n), os.urandom(4)
    size = bytes([128 | n]) if n < 126 else b"\xff" + n.to_bytes(8, "big")
    s.sendall(b"\x82" + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
    head = f.read(2); m = head[1]
    if m == 127: m = int.from_bytes(f.read(8), "big")
    assert f.read(m) == data
print("echoed")
"""

SSE = r"""
import sys, urllib.request
n = 0
with urllib.request.urlopen(sys.argv[1], timeout=600) as r:
    for line in r:
        if line.startswith(b"data: "):  # the next is not sent before this one was heard
            urllib.request.urlopen(sys.argv[1].replace("/sse", "/heard?") + line.split()[1].decode(), timeout=600).read()
            n += 1
print(n)
"""

BIDI = r"""
import socket, ssl, sys
import h2.connection, h2.config, h2.events
name, path = sys.argv[1:]
ctx = ssl.create_default_context(); ctx.set_alpn_protocols(["h2"])
s = ctx.wrap_socket(socket.create_connection((name, 443), 600), server_hostname=name); s.settimeout(600)
assert s.selected_alpn_protocol() == "h2"
c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8")); c.initiate_connection()
c.send_headers(1, [(":method", "POST"), (":scheme", "https"), (":authority", name), (":path", path), ("te", "trailers")]); s.sendall(c.data_to_send())
status, got, ended = None, b"", False
def pump(until):
    global status, got, ended
    while not until():
        for e in c.receive_data(s.recv(65536)):
            if isinstance(e, h2.events.ResponseReceived): status = dict(e.headers)[":status"]
            elif isinstance(e, h2.events.DataReceived): got += e.data; c.acknowledge_received_data(e.flow_controlled_length, 1)
            elif isinstance(e, (h2.events.StreamEnded, h2.events.StreamReset)): ended = True
        s.sendall(c.data_to_send())
pump(lambda: status)
if status != "200": print(status); sys.exit()
want = b""
for i in range(20):  # each message comes back before the next is sent
    part = b"message %d;" % i; want += part
    c.send_data(1, part); s.sendall(c.data_to_send())
    pump(lambda: len(got) == len(want))
c.end_stream(1); s.sendall(c.data_to_send()); pump(lambda: ended)
print("echoed" if got == want else "differs")
"""

NODE = r"""
const https = require('https');
https.get(process.argv[1], r => { let b = ''; r.on('data', d => b += d); r.on('end', () => console.log(r.statusCode, b.trim().split('\n')[0])); }).on('error', e => console.log('error', e.code));
"""

PY = r"""
import sys, urllib.request, urllib.error
try: print(200, urllib.request.urlopen(sys.argv[1], timeout=600).read().decode().strip())
except urllib.error.HTTPError as e: print(e.code, e.read().decode().strip().split("\n")[0])
"""


class Archive(http.server.ThreadingHTTPServer):
    """A small archive of Debian packages, once under /open and once under /shut."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *a):
            pass

    def __init__(self, folder):
        root = folder / "pkg"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "etc/sbx-probe").write_text("here\n")
        control = "Package: sbx-probe\nVersion: 1.0\nArchitecture: all\nMaintainer: Test <t@t.test>\nDescription: a probe\n"
        (root / "DEBIAN/control").write_text(control)
        for name in ("open", "shut"):
            at = folder / "www" / name
            at.mkdir(parents=True)
            subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, at / "p.deb"], check=True, capture_output=True)
            deb = (at / "p.deb").read_bytes()
            (at / "Packages").write_text(f"{control}Filename: {name}/p.deb\nSize: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n")
        super().__init__(("127.0.0.1", 0), functools.partial(self.Handler, directory=str(folder / "www")))
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


@needs_lab
class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import tempfile
        cls.tmp = tempfile.TemporaryDirectory()
        cls.dir = pathlib.Path(cls.tmp.name)
        ca = TestCA(cls.dir / "ca")
        names = [f"{kind}.{what}.test" for kind in ("open", "part", "shut") for what in ("one", "two")]
        cert = ca.leaf("web", *names)
        git = cls.dir / "git"
        for name in ("open", "shut"):
            subprocess.run(["git", "init", "-q", "--bare", "-b", "main", git / name / "repo.git"], check=True)
            subprocess.run(["git", "-C", git / name / "repo.git", "config", "http.receivepack", "true"], check=True)
        cls.one, cls.two = Web(cert, str(git)), NodeH2(cert)
        cls.plain = Web()
        cls.archive = Archive(cls.dir / "apt")
        cls.lab = Lab(map=[f"{k}.one.test:443=127.0.0.1:{cls.one.port}" for k in ("open", "part", "shut")] +
                      [f"{k}.two.test:443=127.0.0.1:{cls.two.port}" for k in ("open", "part", "shut")] +
                      [f"{k}.one.test:80=127.0.0.1:{cls.plain.port}" for k in ("open", "part", "shut")] +
                      [f"{k}.apt.test:80=127.0.0.1:{cls.archive.port}" for k in ("open", "part", "shut")], ca=[str(ca.cert)])
        # Hosts that are allowed whole are relayed: their own certificate shows, so the clients have to know its authority.
        bundle = cls.lab.h.dir / "bundle.pem"
        bundle.write_bytes(bundle.read_bytes() + ca.cert.read_bytes())
        extra = cls.dir / "extra.pem"
        extra.write_bytes(ca.cert.read_bytes() + (cls.lab.h.dir / "data/sbx/ca/cert.pem").read_bytes())
        cls.lab.guest_env["NODE_EXTRA_CA_CERTS"] = str(extra)
        cls.lab.allow("open.one.test", "open.two.test", "part.one.test/git/open", "part.one.test/npm/open", "part.one.test/simple/open",
                      "part.one.test/open", "part.two.test/open", "open.apt.test", "GET part.apt.test/open")

    @classmethod
    def tearDownClass(cls):
        for s in (cls.one, cls.two, cls.plain, cls.archive):
            s.shutdown()
        try:
            cls.lab.close()
        finally:
            cls.tmp.cleanup()

    def cases(self, server, path):
        """(url, is it allowed)"""
        return ((f"https://open.{server}.test/open{path}", True), (f"https://part.{server}.test/open{path}", True),
                (f"https://part.{server}.test/shut{path}", False), (f"https://shut.{server}.test/open{path}", False))

    def test_curl(self):
        for server, versions in (("one", ("--http1.1",)), ("two", ("--http1.1", "--http2"))):
            for version in versions:
                for url, good in self.cases(server, "/x"):
                    rc, status, body = self.lab.curl(url, version, "-w", "\n%{http_code}")
                    self.assertEqual((rc, status), (0, 200 if good else 403), (url, version, body))
                    if good:
                        self.assertTrue(body.startswith(b"hello"), body)
                    else:
                        self.assertIn(b"sbx policy allow network", body)

    def test_curl_plain(self):
        for url, good in (("http://open.one.test/open", True), ("http://part.one.test/open", True), ("http://part.one.test/shut", False), ("http://shut.one.test/open", False)):
            rc, status, body = self.lab.curl(url)
            self.assertEqual((rc, status), (0, 200 if good else 403), (url, body))

    def test_alpn_is_what_the_server_speaks(self):
        r = self.lab.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_version}", "https://part.two.test/open")
        self.assertEqual(r.stdout, b"2", r.stderr)
        r = self.lab.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_version}", "https://part.one.test/open")
        self.assertEqual(r.stdout, b"1.1", r.stderr)

    def test_bodies_arrive_whole(self):
        data = self.dir / "data"
        data.write_bytes(bytes(range(256)) * 4 * 1024 * 20)  # 20 MiB
        want = hashlib.sha256(data.read_bytes()).hexdigest().encode()
        for host in ("open.one.test", "part.one.test"):
            rc, status, body = self.lab.curl(f"https://{host}/open/sum", "-T", data, "-H", "Expect:", seconds=60)
            self.assertEqual((rc, status, body), (0, 200, want), host)
        for host, version in (("part.two.test", "--http2"), ("part.two.test", "--http1.1"), ("open.two.test", "--http2")):
            rc, status, body = self.lab.curl(f"https://{host}/open/echo", version, "-T", data, seconds=60)
            self.assertEqual((rc, status, hashlib.sha256(body).hexdigest().encode()), (0, 200, want), (host, version))
            rc, status, body = self.lab.curl(f"https://{host}/open/big?52428800", version, seconds=60)
            self.assertEqual((rc, status, len(body)), (0, 200, 52428800), (host, version))

    def test_python(self):
        for url, good in self.cases("one", "/x"):
            out = self.lab.run("/usr/bin/python3", "-c", PY, url).stdout.decode()
            self.assertTrue(out.startswith("200 hello" if good else "403 "), (url, out))

    def test_node(self):
        for server in ("one", "two"):
            for url, good in self.cases(server, "/x"):
                out = self.lab.run("node", "-e", NODE, url).stdout.decode()
                self.assertTrue(out.startswith("200 hello" if good else "403 "), (url, out))

    def test_git_clone_and_push(self):
        for host, repo, good in (("open", "open", True), ("part", "open", True), ("part", "shut", False), ("shut", "open", False)):
            url, work = f"https://{host}.one.test/git/{repo}/repo.git", self.dir / f"{host}-{repo}"
            r = self.lab.run("git", "clone", "-q", url, work)
            self.assertEqual(r.returncode == 0, good, (url, r.stderr))
            if not good:
                self.assertIn(b"403", r.stderr)
                continue
            (work / host).write_bytes(b"x" * 3_000_000 + host.encode())
            r = self.lab.run("sh", "-ec", "git checkout -q -B main; git add .; git -c user.name=t -c user.email=t@t.test commit -qm m; git push -q origin main", cwd=work)
            self.assertEqual(r.returncode, 0, (url, r.stderr))
            r = self.lab.run("git", "clone", "-q", url, f"{work}-again")
            self.assertEqual((r.returncode, (pathlib.Path(f"{work}-again") / host).stat().st_size), (0, 3_000_000 + len(host)), r.stderr)

    def test_websocket(self):
        for url, good in self.cases("one", "/ws"):
            _, _, host, path = url.split("/", 3)
            r = self.lab.run("/usr/bin/python3", "-c", WS, host, "/" + path)
            self.assertEqual(r.stdout.decode().strip(), "echoed" if good else "403", (url, r.stderr))

    def test_events_arrive_at_once(self):
        for url in ("https://open.one.test/open/sse", "https://part.one.test/open/sse"):
            self.one.heard.clear()
            r = self.lab.run("/usr/bin/python3", "-c", SSE, url)
            self.assertEqual(r.stdout.strip(), b"10", r.stderr)

    def test_events_of_another_path_or_host_are_denied(self):
        for url in ("https://part.one.test/shut/sse", "https://shut.one.test/open/sse"):
            rc, status, body = self.lab.curl(url, "-N")
            self.assertEqual((rc, status), (0, 403), url)
            self.assertIn(b"sbx policy allow network", body)

    def test_two_way_stream(self):
        for url, good in self.cases("two", "/echo"):
            _, _, host, path = url.split("/", 3)
            r = self.lab.run("/usr/bin/python3", "-c", BIDI, host, "/" + path)
            self.assertEqual(r.stdout.decode().strip(), "echoed" if good else "403", (url, r.stderr))

    def test_trailers(self):
        r = self.lab.run("node", "-e", r"""const c = require('http2').connect('https://part.two.test'); const q = c.request({':path': '/open/trailers'});
            q.on('trailers', t => console.log(t['grpc-status'])); q.resume(); q.on('end', () => c.close());""")
        self.assertEqual(r.stdout.strip(), b"0", r.stderr)

    def test_npm(self):
        for host, name, good in (("open", "open", True), ("part", "open", True), ("part", "shut", False), ("shut", "open", False)):
            work = self.dir / f"npm-{host}-{name}"
            work.mkdir()
            (work / "package.json").write_text('{"name":"w","version":"1.0.0"}')
            r = self.lab.run("npm", "install", "--no-audit", "--no-fund", "--fetch-retries=0", f"--registry=https://{host}.one.test/npm/", f"--cache={work}/c", name, cwd=work)
            self.assertEqual(r.returncode == 0 and (work / f"node_modules/{name}/i.js").exists(), good, (host, name, r.stderr))
            if not good:
                self.assertIn(b"403", r.stderr)

    def test_pip(self):
        for host, name, good in (("open", "open", True), ("part", "open", True), ("part", "shut", False), ("shut", "open", False)):
            target = self.dir / f"pip-{host}-{name}"
            r = self.lab.run("/usr/bin/python3", "-m", "pip", "install", "-q", "--retries", "0", "--no-cache-dir", "--disable-pip-version-check", "--target", target,
                             "--index-url", f"https://{host}.one.test/simple/", name)
            self.assertEqual(r.returncode == 0 and (target / f"{name}.py").exists(), good, (host, name, r.stderr))

    def test_apt(self):
        for host, path, good in (("open", "open", True), ("part", "open", True), ("part", "shut", False), ("shut", "open", False)):
            work = self.dir / f"apt-{host}-{path}"
            for name in ("state/lists/partial", "cache/archives/partial", "got"):
                (work / name).mkdir(parents=True)
            (work / "sources.list").write_text(f"deb [trusted=yes] http://{host}.apt.test/ {path}/\n")
            (work / "status").write_text("")
            options = [f"-o{x}" for x in (f"Dir::State={work}/state", f"Dir::State::status={work}/status", f"Dir::Cache={work}/cache", f"Dir::Etc::sourcelist={work}/sources.list",
                                          "Dir::Etc::sourceparts=/dev/null", "APT::Sandbox::User=root", "Acquire::Retries=0", "Acquire::http::Proxy=false", "Acquire::Languages=none")]
            r = self.lab.run("apt-get", *options, "update")
            self.assertEqual(b"403" in r.stdout + r.stderr and r.returncode != 0, not good, (host, path, r.stdout, r.stderr))
            r = self.lab.run("apt-get", *options, "download", "sbx-probe", cwd=work / "got")
            self.assertEqual(r.returncode == 0 and len(list((work / "got").glob("*.deb"))) == 1, good, (host, path, r.stdout, r.stderr))

    def test_the_log_tells_requests(self):
        self.lab.curl("https://part.one.test/shut/told?secret=1")
        self.lab.curl("https://part.one.test/open/told")
        found = {(r["path"], r["verdict"]) for r in self.lab.rows(host="part.one.test")}
        self.assertIn(("/shut/told", "deny"), found)
        self.assertIn(("/open/told", "allow"), found)


if __name__ == "__main__":
    unittest.main()

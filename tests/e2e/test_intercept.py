"""Interception with real clients in a real machine: allowed, denied, and allowed on one path only (issue 3)."""
import http.server
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import echo_server
from harness import Home, wait_for
from listener import Listener
from mock_provider import make_ca

h2 = echo_server.h2


class GitServer(http.server.ThreadingHTTPServer):
    """git's own smart HTTP (git http-backend) under TLS."""

    def __init__(self, root, certificate):
        super().__init__(("127.0.0.1", 0), GitHandler)
        self.root = root
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.set_alpn_protocols(["http/1.1"])
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server_address[1]
        self.seen = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class GitHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while (n := int(self.rfile.readline().split(b";")[0], 16)):
                data += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self):
        path, _, query = self.path.partition("?")
        self.server.seen.append((self.command, path))
        body = self.body()
        env = dict(os.environ, GIT_PROJECT_ROOT=str(self.server.root), GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query,
                   REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("Content-Type", ""), CONTENT_LENGTH=str(len(body)),
                   REMOTE_USER="agent", GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
        if self.headers.get("Content-Encoding"):
            env["HTTP_CONTENT_ENCODING"] = self.headers["Content-Encoding"]
        if self.headers.get("Git-Protocol"):
            env["GIT_PROTOCOL"] = self.headers["Git-Protocol"]
        out = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=env).stdout
        head, _, data = out.partition(b"\r\n\r\n")
        status, fields = 200, []
        for line in head.decode().split("\r\n"):
            k, _, v = line.partition(": ")
            if k == "Status":
                status = int(v.split()[0])
            elif k:
                fields.append((k, v))
        self.send_response(status)
        for k, v in fields:
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer


class Streams:
    """A server whose answers need the client to go on meanwhile: events that wait for a second request, an HTTP/2 stream
    in both directions, a WebSocket that echoes."""

    def __init__(self, certificate):
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        self.go = threading.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.context.set_alpn_protocols(["h2", "http/1.1"] if h2 else ["http/1.1"])
        self.listener = Listener(sock, self.serve)

    def close(self):
        self.listener.close()

    def serve(self, s):
        try:
            s = self.context.wrap_socket(s, server_side=True)
            (self.two if s.selected_alpn_protocol() == "h2" else self.one)(s)
        except (OSError, ValueError, IndexError):
            pass
        finally:
            s.close()

    def one(self, s):
        f = s.makefile("rb")
        while (line := f.readline()):
            path = line.split()[1].decode()
            headers = {}
            while (x := f.readline().decode().rstrip("\r\n")):
                k, v = x.split(":", 1)
                headers[k.lower()] = v.strip()
            if path == "/events":
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n10\r\ndata: first one\n\r\n")
                if not self.go.wait(200):
                    return
                s.sendall(b"e\r\ndata: second\n\n\r\n0\r\n\r\n")
            elif path == "/go":
                self.go.set()
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            elif path == "/ws":
                import base64
                import hashlib
                key = hashlib.sha1((headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
                s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                          + base64.b64encode(key) + b"\r\n\r\n")
                while True:  # one frame in, the same out
                    a, b = f.read(2)
                    mask = f.read(4)
                    data = bytes(c ^ mask[i % 4] for i, c in enumerate(f.read(b & 127)))
                    if a & 15 == 8:
                        s.sendall(b"\x88\x00")
                        return
                    s.sendall(bytes([a, len(data)]) + data)
            else:
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")

    def two(self, s):
        c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        c.initiate_connection()
        s.sendall(c.data_to_send())
        while (data := s.recv(65536)):
            for e in c.receive_data(data):
                if isinstance(e, h2.events.RequestReceived):
                    c.send_headers(e.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                elif isinstance(e, h2.events.DataReceived):
                    c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
                    c.send_data(e.stream_id, e.data.upper())
                elif isinstance(e, h2.events.StreamEnded):
                    c.send_headers(e.stream_id, [("grpc-status", "0")], end_stream=True)
            s.sendall(c.data_to_send())


BIDI = r"""
const http2 = require('http2');
const s = http2.connect('https://stream.example');
const r = s.request({':path': '/echo.Service/Talk', ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers'});
const words = ['one', 'two', 'three'];
let got = [];
r.setEncoding('utf8');
r.write(words.shift());
r.on('data', d => { got.push(d); words.length ? r.write(words.shift()) : r.end(); });
r.on('trailers', t => got.push('status=' + t['grpc-status']));
r.on('response', h => { if (h[':status'] != 200) { console.log('status ' + h[':status']); process.exit(1); } });
r.on('close', () => { console.log(got.join(' ')); s.close(); });
s.on('error', e => { console.log('' + e); process.exit(1); });
"""

WEBSOCKET = r"""
const https = require('https'), crypto = require('crypto');
const key = crypto.randomBytes(16).toString('base64');
const req = https.request('https://stream.example/ws', {headers: {Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Key': key, 'Sec-WebSocket-Version': '13'}});
const frame = (op, text) => { const m = Buffer.from([1, 2, 3, 4]), d = Buffer.from(text); for (let i = 0; i < d.length; i++) d[i] ^= m[i % 4];
  return Buffer.concat([Buffer.from([op, 0x80 | d.length]), m, d]); };
req.on('response', r => { console.log('status ' + r.statusCode); process.exit(1); });
req.on('upgrade', (res, sock) => { let n = 0; sock.write(frame(0x81, 'hello 0'));
  sock.on('data', d => { console.log(d.subarray(2).toString()); if (++n < 3) sock.write(frame(0x81, 'hello ' + n)); else { sock.end(frame(0x88, '')); process.exit(0); } }); });
req.end();
"""


class Intercept(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        ca, certificate = make_ca(h.dir / "ca", "git.example", "stream.example", "plain.example")
        repos = h.dir / "repos"
        for name in ("open.git", "closed.git"):
            subprocess.run(["git", "init", "-q", "--bare", "-b", "main", repos / name], check=True)
            subprocess.run(["git", "-C", repos / name, "config", "http.receivepack", "true"], check=True)
        cls.git = GitServer(repos, certificate)
        cls.streams = Streams(certificate)
        h.sbx("config", "set", "net.ca", ca)
        h.sbx("config", "set", "net.map", f"git.example:443=127.0.0.1:{cls.git.port},stream.example:443=127.0.0.1:{cls.streams.port}")
        h.sbx("policy", "set-default", "locked-down")
        h.sbx("create", "--name", "s", "shell", h.ws)
        h.sbx("start", "s")

    @classmethod
    def tearDownClass(cls):
        cls.git.shutdown()
        cls.streams.close()
        cls.h.close()

    def sh(self, script, status=0):
        r = self.h.sh("s", script, timeout=400)
        text = (r.stdout + r.stderr).decode(errors="replace")
        if status is not None:
            self.assertEqual(r.returncode, status, text[-2000:])
        return text

    def allow(self, *rules):
        self.h.sbx("policy", "allow", "network", "-g", *rules)
        self.addCleanup(lambda: [self.h.run("policy", "rm", "-g", r) for r in rules])
        self.h.in_force("s")

    def log(self, host):
        return json.loads(self.h.sbx("policy", "log", "s", "--raw", "--json", "--host", host))

    def test_another_authority_reaches_a_guest_at_its_next_start(self):
        """Whoever removes its folder gets another one; what runs goes on with the one of before."""
        certificate = self.h.dir / "data/sbx/ca/cert.pem"
        was = certificate.read_bytes()
        shutil.rmtree(certificate.parent)
        self.assertIn("sbx policy allow network s one.example", self.sh("curl -sS https://one.example/", None))
        self.h.sbx("restart", "s")
        self.assertNotEqual(certificate.read_bytes(), was)
        self.assertIn("sbx policy allow network s two.example", self.sh("curl -sS https://two.example/", None))

    def test_git_clone_and_push_on_one_repository_only(self):
        # Denied whole: a readable answer, also over HTTPS.
        out = self.sh("git clone https://git.example/open.git /tmp/no 2>&1; curl -sS https://git.example/open.git", None)
        self.assertIn("403", out)
        self.assertIn("sbx policy allow network s git.example", out)
        self.assertEqual(self.git.seen, [])
        self.allow("GET|POST git.example/open.git")
        self.sh("rm -rf /tmp/c && git clone -q https://git.example/open.git /tmp/c && cd /tmp/c && git config user.email a@b.c && git config user.name agent && "
                "head -c 3000000 /dev/urandom > big && git add . && git commit -qm first && git push -q origin HEAD:main && rm -rf /tmp/d && "
                "git clone -q https://git.example/open.git /tmp/d && cmp /tmp/c/big /tmp/d/big")
        before = len(self.git.seen)
        out = self.sh("git clone https://git.example/closed.git /tmp/e 2>&1", None)
        self.assertIn("403", out)
        self.assertEqual(len(self.git.seen), before)
        rows = [r for r in self.log("git.example") if r["kind"] == "request"]
        self.assertTrue(any(r["verdict"] == "allow" and r["method"] == "POST" and r["path"] == "/open.git/git-receive-pack" for r in rows))
        self.assertTrue(any(r["verdict"] == "deny" and r["path"].startswith("/closed.git") for r in rows))
        # Reading alone.
        self.h.sbx("policy", "deny", "network", "-g", "POST git.example/open.git/git-receive-pack")
        self.addCleanup(self.h.run, "policy", "rm", "-g", "POST git.example/open.git/git-receive-pack")
        self.h.in_force("s")
        self.sh("cd /tmp/c && git pull -q origin main && echo x > y && git add . && git commit -qm second")
        self.assertIn("403", self.sh("cd /tmp/c && git push origin HEAD:main 2>&1", None))

    def test_threat_29_each_request_of_a_connection_is_judged(self):
        self.allow("GET stream.example/ok")
        out = self.sh("printf 'GET /ok HTTP/1.1\\r\\nHost: stream.example\\r\\n\\r\\nGET /secret HTTP/1.1\\r\\nHost: stream.example\\r\\nConnection: close\\r\\n\\r\\n' | "
                      "timeout 60 openssl s_client -quiet -connect stream.example:443 -servername stream.example 2>/dev/null", None)
        self.assertIn("200 OK", out)
        self.assertIn("403", out)
        self.assertIn("/secret", out)

    def test_events_pass_at_once(self):
        self.allow("GET stream.example/events", "GET stream.example/go")
        self.streams.go.clear()
        # The second event comes only after the client has read the first and says so.
        out = self.sh("curl -sSN --http1.1 https://stream.example/events | while read -r line; do echo \"$line\"; "
                      "case $line in *first*) curl -sS --http1.1 https://stream.example/go;; esac; done")
        self.assertIn("first one", out)
        self.assertIn("second", out)

    def test_websocket(self):
        self.assertIn("status 403", self.node(WEBSOCKET, None))
        self.allow("GET stream.example/ws")
        self.assertEqual(self.node(WEBSOCKET).split("\n")[:3], ["hello 0", "hello 1", "hello 2"])

    def node(self, script, status=0):
        (self.h.ws / "s.js").write_text(script)
        return self.sh(f"timeout 120 node {self.h.ws}/s.js", status)

    @unittest.skipUnless(h2, "python3-h2 is not installed")
    def test_http2_stream_in_both_directions(self):
        self.assertIn("403", self.node(BIDI, None))
        self.allow("POST stream.example/echo.Service")
        self.assertIn("ONE TWO THREE status=0", self.node(BIDI))
        self.assertIn("403", self.sh("curl -sS -o /dev/null -w '%{http_code} %{http_version}' https://stream.example/other"))

    def test_threat_35_what_is_no_tls_is_closed(self):
        self.allow("GET stream.example/ok")
        out = self.sh("printf 'SSH-2.0-x\\r\\n' | timeout 10 nc -q 2 stream.example 443 || true", None)
        self.assertNotIn("200", out)
        self.assertTrue(wait_for(lambda: [r for r in self.log("stream.example") if r["kind"] == "mismatch"]))

    def test_threat_21_another_name_in_the_greeting_or_the_host(self):
        self.allow("git.example", "GET stream.example/")
        self.sh("curl -sS -k --connect-to evil.example:443:git.example:443 https://evil.example/", 35)
        rows = [r for r in self.log("git.example") if r["kind"] == "mismatch"]
        self.assertTrue(rows and "evil.example" in rows[-1]["reason"], rows)
        out = self.sh("curl -sSi --http1.1 -H 'Host: evil.example' https://stream.example/")
        self.assertIn("421", out.split("\n")[0])

    def test_ping_udp_and_quic_are_refused_at_once(self):
        for script in ("ping -c1 -W50 192.0.2.1", "timeout 70 python3 -c \"import socket; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); "
                       "s.connect(('192.0.2.1',443)); s.send(b'x'); s.settimeout(60); s.recv(1)\""):
            r = self.h.sh("s", script)
            self.assertNotEqual(r.returncode, 0)
            self.assertNotIn(b"imed out", r.stderr)
        rows = json.loads(self.h.sbx("policy", "log", "s", "--json", "--host", "192.0.2.1"))
        self.assertTrue(rows)


    def test_containers_come_under_the_same_rules(self):
        """Run and built by the guest's Docker Engine: judged by request, trusting the authority without any set-up."""
        self.allow("GET stream.example/ok")
        image = ("set -e; mkdir -p /tmp/r/bin; cp /bin/sh /bin/cat /usr/bin/curl /tmp/r/bin; for f in $(ldd /bin/sh /usr/bin/curl | grep -o '/[^ ]*\\.so[^ ]*' | sort -u); "
                 "do cp --parents -L $f /tmp/r; done; tar -C /tmp/r -c . | docker import - tiny >/dev/null; ")
        out = self.sh(image + "printf 'FROM tiny\\nRUN curl -sS --http1.1 https://stream.example/ok > /built\\n' | docker build -q -t tiny2 - >/dev/null; "
                      "docker run --rm tiny2 sh -c 'cat /built; curl -sS --http1.1 https://stream.example/ok; curl -sS --http1.1 https://stream.example/no; "
                      "curl -sS https://elsewhere.example/'")
        self.assertTrue(out.startswith("ok\nok\n"), out)
        self.assertEqual(out.count("denied by"), 2, out)


if __name__ == "__main__":
    unittest.main(verbosity=2)

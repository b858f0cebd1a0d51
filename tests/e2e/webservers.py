"""Servers for tests, on the host's loopback: a threaded HTTP/1.1 one (plain and TLS) that can echo, stream events, speak
WebSocket, serve git, an npm registry and a Python index; and node's, for HTTP/2."""
import base64
import hashlib
import http.server
import io
import json
import os
import socket
import ssl
import subprocess
import gzip
import tarfile
import threading
import time
import zipfile

from harness import wait_for
from listener import Listener

WS_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def npm_package(name):
    out = io.BytesIO()
    # Without the time of packing: the same bytes whenever it is asked for.
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as z, tarfile.open(fileobj=z, mode="w") as t:
        for path, text in (("package/package.json", json.dumps({"name": name, "version": "1.0.0", "main": "i.js"})), ("package/i.js", "module.exports = 42\n")):
            info = tarfile.TarInfo(path)
            info.size = len(text)
            t.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def wheel(name):
    out = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    files = {f"{name}.py": "answer = 42\n", f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join(f"{p},,\n" for p in files) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(out, "w") as z:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            z.writestr(path, text)
    return out.getvalue()


class Web(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args):
            pass

        def whole(self, body, kind="text/plain", status=200):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def body(self):
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                out = b""
                while True:
                    n = int(self.rfile.readline().split(b";")[0], 16)
                    out += self.rfile.read(n)
                    self.rfile.readline()
                    if n == 0:
                        return out
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def chunk(self, data):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def handle_any(self):
            server, path = self.server, self.path.split("?")[0]
            server.seen.append((self.command, self.path, dict(self.headers)))
            if path.startswith("/git/"):
                self.git()
            elif path.endswith("/sse"):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for i in range(10):
                    self.chunk(f"data: {i} {time.time()}\n\n".encode())
                    if not wait_for(lambda: i in self.server.heard, 5, 0.002):
                        return  # it did not arrive: nothing more is sent
                self.chunk(b"")
            elif path.endswith("/heard"):
                self.server.heard.add(int(self.path.split("?")[1]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif path.endswith("/ws"):
                self.websocket()
            elif path.endswith("/big"):
                n = int(self.path.split("?")[1])
                self.send_response(200)
                self.send_header("Content-Length", str(n))
                self.end_headers()
                block = bytes(range(256)) * 256
                while n:
                    self.wfile.write(block[:min(n, len(block))])
                    n -= min(n, len(block))
            elif path.endswith("/sum"):
                h, n = hashlib.sha256(), int(self.headers.get("Content-Length") or 0)
                while n:
                    data = self.rfile.read(min(n, 1 << 20))
                    if not data:
                        return
                    h.update(data)
                    n -= len(data)
                self.whole(h.hexdigest().encode())
            elif path.endswith("/fake101"):
                self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAA\r\n\r\nraw")
                self.wfile.flush()
                time.sleep(0.5)
                self.close_connection = True
            elif path.endswith("/redirect"):
                self.send_response(302)
                self.send_header("Location", self.path.split("?")[1])
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif path.endswith("/alt"):
                self.send_response(200)
                self.send_header("Alt-Svc", 'h3=":443"; ma=86400')
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif path.endswith("/close"):
                self.close_connection = True
            elif path.startswith("/npm/"):
                self.npm(path)
            elif path.startswith("/simple/"):
                name = path.split("/")[2]
                if path.endswith(".whl"):
                    self.whole(wheel(name), "application/octet-stream")
                else:
                    self.whole(f'<!DOCTYPE html><html><body><a href="/simple/{name}/{name}-1.0-py3-none-any.whl">{name}-1.0-py3-none-any.whl</a></body></html>'.encode(), "text/html")
            elif path.endswith("/echo"):
                self.whole(self.body())
            else:
                self.body()
                self.whole(b"hello\n")

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = handle_any

        def npm(self, path):
            name = path.split("/")[2]
            package = npm_package(name)
            if path.endswith(".tgz"):
                self.whole(package, "application/octet-stream")
                return
            base = f"https://{self.headers['Host']}"
            self.whole(json.dumps({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {
                "name": name, "version": "1.0.0", "dist": {"tarball": f"{base}/npm/{name}/-/{name}-1.0.0.tgz", "shasum": hashlib.sha1(package).hexdigest(),
                                                          "integrity": "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()}}}}).encode(), "application/json")

        def git(self):
            body = self.body()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            path, _, query = self.path.partition("?")
            env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": self.server.git_root, "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path[4:], "QUERY_STRING": query,
                   "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)), "REMOTE_USER": "t",
                   "REMOTE_ADDR": "127.0.0.1", "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "HOME": self.server.git_root}
            out = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=env).stdout
            head, _, rest = out.partition(b"\r\n\r\n")
            fields = [line.split(": ", 1) for line in head.decode().split("\r\n")]
            status = next((int(v.split()[0]) for k, v in fields if k == "Status"), 200)
            self.send_response(status)
            for k, v in fields:
                if k != "Status":
                    self.send_header(k, v)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest)

        def websocket(self):
            key = self.headers.get("Sec-WebSocket-Key", "").encode()
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "websocket")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + WS_GUID).digest()).decode())
            self.end_headers()
            self.wfile.flush()
            self.close_connection = True
            while True:
                head = self.rfile.read(2)
                if len(head) < 2:
                    return
                n = head[1] & 127
                if n == 126:
                    n = int.from_bytes(self.rfile.read(2), "big")
                elif n == 127:
                    n = int.from_bytes(self.rfile.read(8), "big")
                mask = self.rfile.read(4)
                data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(n)))
                size = bytes([n]) if n < 126 else b"\x7e" + n.to_bytes(2, "big") if n < 65536 else b"\x7f" + n.to_bytes(8, "big")
                self.wfile.write(head[:1] + size + data)
                self.wfile.flush()
                if head[0] & 15 == 8:
                    return

    def __init__(self, cert=None, git_root="/nonexistent", tls_max=None):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.port = self.server_address[1]
        self.seen, self.heard = [], set()
        self.accepted = 0
        self.git_root = git_root
        self.context = None
        if cert:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*cert)
            if tls_max:
                self.context.minimum_version = self.context.maximum_version = tls_max
            self.context.set_alpn_protocols(["http/1.1"])
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def get_request(self):
        s, address = super().get_request()
        self.accepted += 1
        return s, address

    def finish_request(self, request, address):
        if self.context:
            request.settimeout(60)
            request = self.context.wrap_socket(request, server_side=True)
            request.settimeout(None)
        super().finish_request(request, address)
        if self.context:
            try:
                request.unwrap()
            except OSError:
                pass
            request.close()

    def handle_error(self, request, address):
        pass


NODE_H2 = r"""
const http2 = require('http2'), fs = require('fs');
const s = http2.createSecureServer({cert: fs.readFileSync(process.argv[1]), key: fs.readFileSync(process.argv[2]), allowHTTP1: true});
s.on('sessionError', () => {});
s.on('request', (req, res) => {
  res.on('error', () => {}); req.on('error', () => {});
  const path = req.url.split('?')[0];
  if (path.endsWith('/echo')) { res.writeHead(200, {'content-type': 'application/octet-stream'}); if (res.flushHeaders) res.flushHeaders(); req.pipe(res); return; }
  if (path.endsWith('/big')) {
    let left = +req.url.split('?')[1]; const block = Buffer.alloc(65536, 'x');
    res.writeHead(200, {'content-length': left});
    const go = () => { while (left > 0) { const n = Math.min(left, 65536); left -= n; if (!res.write(block.subarray(0, n)) && left) { res.once('drain', go); return; } } res.end(); };
    go(); return;
  }
  if (path.endsWith('/reset')) { req.stream && req.stream.close(2); return; }
  if (path.endsWith('/fields')) { res.end(JSON.stringify(req.headers)); return; }
  if (path.endsWith('/trailers')) { res.addTrailers({'grpc-status': '0'}); res.end('hello\n'); return; }
  req.resume(); req.on('end', () => res.end('hello\n'));
});
s.listen(0, '127.0.0.1', () => console.log(s.address().port));
"""


class NodeH2:
    def __init__(self, cert):
        self.p = subprocess.Popen(["node", "-e", NODE_H2, *cert], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.port = int(self.p.stdout.readline())

    def shutdown(self):
        self.p.kill()
        self.p.wait()
        self.p.stdout.close()


class Raw:
    """A server that says prepared bytes: on each connection `talk(socket)` runs in a thread."""

    def __init__(self, talk, cert=None, alpn=("http/1.1",)):
        sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = sock.getsockname()[1]
        self.talk = talk
        self.accepted = 0
        self.context = None
        if cert:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*cert)
            self.context.set_alpn_protocols(list(alpn))
        self.listener = Listener(sock, self.one)

    def one(self, c):
        self.accepted += 1
        try:
            if self.context:
                c = self.context.wrap_socket(c, server_side=True)
            self.talk(c)
        except (OSError, ssl.SSLError):
            pass
        finally:
            c.close()

    def shutdown(self):
        self.listener.close()

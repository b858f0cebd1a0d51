"""An HTTPS server that gives everything back that it was sent, in every spelling: what a secret's host could do at worst.
HTTP/1.1 and, where python3-h2 is there, HTTP/2; a WebSocket; server-sent events."""
import base64
import gzip
import hashlib
import json
import os
import socket
import ssl
import time
import urllib.parse

from listener import Listener

try:
    import h2.config
    import h2.connection
    import h2.events
except ImportError:
    h2 = None


def spellings(secret):
    """A body that carries a secret in every form that the scrubber promises to find."""
    return "\n".join([
        secret,
        base64.b64encode(secret.encode()).decode(), base64.b64encode(b"x" + secret.encode() + b"y").decode(),
        base64.b64encode(b"xy" + secret.encode()).decode(), base64.urlsafe_b64encode(b"user:" + secret.encode()).decode(),
        urllib.parse.quote(secret, safe=""), "".join(f"%{b:02x}" for b in secret.encode()), "".join(f"%{b:02X}" for b in secret.encode()),
        json.dumps({"key": secret}), "".join(f"\\u{b:04x}" for b in secret.encode()), "the end"])


def halves(secret):
    """Each spelling cut at each byte, as two pieces that are sent one after the other."""
    for form in spellings(secret).encode().split(b"\n")[:-1]:
        for i in range(1, len(form)):
            yield b"<" + form[:i], form[i:] + b">\n"


def frame(op, data):
    return bytes([op, len(data)]) + data if len(data) < 126 else bytes([op, 126]) + len(data).to_bytes(2, "big") + data


class Server:
    """On the loopback, a thread for each connection, which serve_h1 or serve_h2 has."""

    def __init__(self, certificate=None, alpn=("http/1.1",)):
        """certificate: a file with its key, or two files."""
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*([certificate] if isinstance(certificate, (str, os.PathLike)) else certificate))
            self.context.set_alpn_protocols(list(alpn))
        self.listener = Listener(sock, self.serve)

    def close(self):
        self.listener.close()

    def serve(self, s):
        try:
            if self.context:
                s = self.context.wrap_socket(s, server_side=True)
            if self.context and s.selected_alpn_protocol() == "h2":
                self.serve_h2(s)
            else:
                self.serve_h1(s)
        except (OSError, ValueError, IndexError):
            pass
        finally:
            s.close()


class EchoServer(Server):
    def __init__(self, certificate=None, alpn=("http/1.1",), app=None):
        self.seen, self.bodies = [], []  # (method, path, headers) of each request; contents over HTTP/1.1
        self.app = app  # (path, headers, body) -> (status, body), or None: echo; over HTTP/2 without the body
        super().__init__(certificate, alpn)

    def secret_of(self, headers):
        v = headers.get("authorization", "") or headers.get("x-api-key", "")
        if v.lower().startswith("basic "):
            return base64.b64decode(v[6:]).decode().split(":", 1)[1]
        return v.split(" ")[-1]

    def serve_h1(self, s):
        f = s.makefile("rb")
        served = 0
        while True:
            line = f.readline().decode()
            if not line:
                return
            method, path, _ = line.split()
            headers = {}
            while (h := f.readline().decode().rstrip("\r\n")):
                k, v = h.split(":", 1)
                headers[k.lower()] = v.strip()
            body = f.read(int(headers.get("content-length", 0)))
            self.bodies.append(body)
            self.seen.append((method, path, headers))
            secret = self.secret_of(headers)
            text = spellings(secret).encode()
            own = self.app(path, headers, body) if self.app else None
            served += 1
            if path == "/gone-at-once" or (path == "/gone" and served > 1):  # as a server that closes what was idle too long
                return
            if own:
                s.sendall(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" % own[0])
                for i in range(0, len(own[1]), 11):
                    part = own[1][i:i + 11]
                    s.sendall(b"%x\r\n%s\r\n" % (len(part), part))
                s.sendall(b"0\r\n\r\n")
            elif path == "/split":  # one byte a chunk
                s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Echo: " + secret.encode() + b"\r\n\r\n")
                for i in range(len(text)):
                    s.sendall(b"1\r\n" + text[i:i + 1] + b"\r\n")
                s.sendall(b"0\r\nX-Trailer: " + secret.encode() + b"\r\n\r\n")
            elif path == "/halves":
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n")
                for piece in (p for pair in halves(secret) for p in pair):
                    s.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                s.sendall(b"0\r\n\r\n")
            elif path == "/halves-of-events":
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                for one, two in halves(secret):
                    s.sendall(b"data: " + one)
                    s.sendall(two + b"\n")
                return
            elif path == "/events":
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                for i in range(3):
                    s.sendall(b"data: " + str(i).encode() + b" " + secret.encode() + b"\n\n")
                    time.sleep(0.05)
                return
            elif path == "/garbage":  # no header section
                s.sendall(b"HTTP/1.1 200 OK\r\nX bad " + secret.encode() + b": 1\r\n" + secret.encode() + b"\r\n\r\n" + text)
                return
            elif path == "/cut":
                s.sendall(b"HTTP/1.1 200 " + secret.encode() + b"\r\nX-Echo: " + secret.encode() + b"\r\nContent-Length: 100000\r\n\r\n" + text)
                return
            elif path == "/switch":
                s.sendall(b"HTTP/1.1 101 " + secret.encode() + b"\r\nUpgrade: " + secret.encode() + b"\r\nConnection: Upgrade\r\n\r\n" + text)
                return
            elif path == "/not-modified":
                s.sendall(b"HTTP/1.1 304 Not Modified\r\nContent-Encoding: gzip\r\nETag: \"1\"\r\n\r\n")
            elif path == "/hints":  # an informational answer, then one that sends elsewhere
                s.sendall(b"HTTP/1.1 103 Early\r\nLink: </" + secret.encode() + b">\r\n\r\nHTTP/1.1 302 Found\r\nLocation: https://other.example/?a="
                          + secret.encode() + b"&b=" + urllib.parse.quote(secret, safe="").encode() + b"\r\nSet-Cookie: k=" + secret.encode() +
                          b"\r\nContent-Length: 0\r\n\r\n")
            elif path == "/gzip":
                data = gzip.compress(text)
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            elif path.startswith("/ws"):
                accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
                s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
                if path == "/ws-halves":
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for one, two in halves(secret):
                        whole = frame(0x81, one + two)  # one frame in two pieces, then two fragments
                        s.sendall(whole[:-len(two)])
                        s.sendall(two)
                        s.sendall(frame(0x01, one))
                        s.sendall(frame(0x80, two))
                    s.sendall(frame(0x88, b""))
                    return
                half = len(secret) // 2
                first, second = secret[:half].encode(), secret[half:].encode()
                # A message in one frame, then one in two fragments with a ping between.
                s.sendall(frame(0x81, secret.encode()) + frame(0x01, b"<" + first) + frame(0x89, b"ping") + frame(0x80, second + b">") + frame(0x88, b""))
                return
            elif path.endswith("/info/refs"):
                data = b"refs"
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            else:
                s.sendall(b"HTTP/1.1 200 " + secret.encode() + b"\r\nX-Echo: Bearer " + secret.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(text) + text)

    def serve_h2(self, s):
        c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        c.initiate_connection()
        s.sendall(c.data_to_send())
        asked, waiting, served = {}, {}, 0  # by stream
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (data := s.recv(65536)):
            for e in c.receive_data(data):
                if isinstance(e, h2.events.DataReceived):
                    asked[e.stream_id][1].extend(e.data)
                    c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
                elif isinstance(e, h2.events.RequestReceived):
                    headers = {(k if isinstance(k, str) else k.decode()): (v if isinstance(v, str) else v.decode()) for k, v in e.headers}
                    self.seen.append((headers[":method"], headers[":path"], headers))
                    asked[e.stream_id] = headers, bytearray()
                elif isinstance(e, h2.events.StreamEnded):  # not before: curl 7.88 hangs at times when it is answered while it sends
                    headers, body = asked.pop(e.stream_id)
                    if headers[":path"].endswith("/invoke"):
                        self.bodies.append(bytes(body))
                        c.send_headers(e.stream_id, [(":status", "200")], end_stream=True)
                        continue
                    secret = self.secret_of(headers)
                    text = spellings(secret).encode()
                    served += 1
                    if headers[":path"] == "/gone-at-once" or (headers[":path"] == "/gone" and served > 1):
                        return
                    own = self.app(headers[":path"], headers, b"") if self.app else None
                    if own:
                        c.send_headers(e.stream_id, [(":status", str(own[0])), ("content-type", "application/json")])
                        c.send_data(e.stream_id, own[1][:20])
                        c.send_data(e.stream_id, own[1][20:], end_stream=True)
                        continue
                    if headers[":path"] == "/not-modified":
                        c.send_headers(e.stream_id, [(":status", "304"), ("content-encoding", "gzip"), ("etag", '"1"')], end_stream=True)
                        continue
                    if headers[":path"] == "/hints":
                        c.send_headers(e.stream_id, [(":status", "103"), ("link", f"</{secret}>")])
                        c.send_headers(e.stream_id, [(":status", "302"), ("location", f"https://other.example/?a={secret}&b={urllib.parse.quote(secret, safe='')}"),
                                                     ("set-cookie", f"k={secret}")], end_stream=True)
                        continue
                    c.send_headers(e.stream_id, [(":status", "200"), ("x-echo", secret)])
                    if headers[":path"] == "/halves":
                        waiting[e.stream_id] = [p for pair in halves(secret) for p in pair]
                        continue
                    for i in range(0, len(text), 7):
                        c.send_data(e.stream_id, text[i:i + 7])
                    c.send_headers(e.stream_id, [("x-trailer", secret)], end_stream=True)
            for stream, pieces in list(waiting.items()):  # each a frame and a record of its own, as far as there is room
                while pieces and c.local_flow_control_window(stream) >= len(pieces[0]):
                    c.send_data(stream, pieces.pop(0))
                    s.sendall(c.data_to_send())
                if not pieces:
                    c.send_headers(stream, [("x-trailer", "the end")], end_stream=True)
                    del waiting[stream]
            s.sendall(c.data_to_send())

"""What the end-to-end tests of the supervisor need: frames, the client socket, a started supervisor."""
import json
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess

from harness import Limit, popen_at

CTRL, DATA, EOF, CREDIT = 1, 2, 3, 4
WINDOW = 256 * 1024


class Link:
    """The peer of core/link.h, for one thread. Grants credit as it reads, unless told not to."""

    def __init__(self, sock):
        self.sock = sock
        self.buf = b""
        self.frames = []
        self.credit = {}
        self.grant = True
        self.next_id = 1
        self.next_chan = 1

    def send(self, kind, payload, chan=0, stream=0):
        self.sock.sendall(struct.pack("<IBBH", len(payload), kind, stream, chan) + payload)

    def ctrl(self, **msg):
        self.send(CTRL, json.dumps(msg).encode())

    def read(self, timeout=60):
        """The next frame but credits: (kind, stream, chan, payload)."""
        limit = Limit(timeout)
        while True:
            while len(self.buf) >= 8:
                n, kind, stream, chan = struct.unpack_from("<IBBH", self.buf)
                if len(self.buf) < 8 + n:
                    break
                payload, self.buf = self.buf[8:8 + n], self.buf[8 + n:]
                if kind == CREDIT:
                    key = (chan, stream)
                    self.credit[key] = self.credit.get(key, WINDOW) + struct.unpack("<I", payload)[0]
                    continue
                if kind == DATA and self.grant:
                    self.send(CREDIT, struct.pack("<I", n), chan, stream)
                return kind, stream, chan, json.loads(payload) if kind == CTRL else payload
            while not select.select([self.sock], [], [], min(timeout, 1))[0]:
                if limit.over():
                    raise TimeoutError("no frame in time")
            data = self.sock.recv(1 << 18)
            if not data:
                raise EOFError("closed")
            self.buf += data

    def request(self, op, timeout=60, **args):
        """Sends and waits for the reply; frames that come before are kept."""
        ident = self.next_id
        self.next_id += 1
        self.ctrl(op=op, id=ident, **args)
        while True:
            f = self.read(timeout)
            if f[0] == CTRL and f[3].get("op") == "reply" and f[3].get("id") == ident:
                return f[3]
            self.frames.append(f)

    def get(self, timeout=60):
        return self.frames.pop(0) if self.frames else self.read(timeout)

    def exec(self, argv, stdin=b"", timeout=60, **more):
        """Runs a command to its end: (exit note, stdout, stderr)."""
        chan = self.next_chan
        self.next_chan += 1
        r = self.request("exec", chan=chan, argv=argv, tty=more.pop("tty", False), timeout=timeout, **more)
        if not r["ok"]:
            return r, b"", b""
        for i in range(0, len(stdin), 32768):
            self.send(DATA, stdin[i:i + 32768], chan)
        self.send(EOF, b"", chan)
        out = [b"", b""]
        limit = Limit(timeout)
        while not limit.over():
            kind, stream, c, payload = self.get(timeout)
            if kind == DATA and c == chan:
                out[stream] += payload
            if kind == CTRL and payload.get("op") == "exit" and payload["chan"] == chan:
                return payload, out[0], out[1]
        raise TimeoutError


class Supervisor:
    """`sbx supervise NAME` with a starter's descriptor, and its state folders from the environment."""

    def __init__(self, sbx, name):
        self.name = name
        r, w = socket.socketpair()
        self.proc = popen_at(["sbx", "supervise", name], [w.fileno()], pathlib.Path(sbx).parent / "lib" / "sbx-supervise",
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        w.close()
        self.starter = r.makefile("r")
        self.messages = []

    def wait_running(self, timeout=120):
        self.starter._sock = None
        for line in self.starter:
            m = json.loads(line)
            self.messages.append(m)
            if m["op"] in ("running", "failed"):
                return m
        return {"op": "failed", "error": "the supervisor went away"}

    def socket_path(self):
        return os.path.join(os.environ["XDG_RUNTIME_DIR"], "sbx", self.name + ".sock")

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        s.connect(self.socket_path())
        return Link(s)

    def kill(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGKILL)
        self.proc.wait()

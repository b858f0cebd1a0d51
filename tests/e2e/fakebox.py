"""A sandbox without a machine, for tests of the dashboard: its record is real, and who holds its lock and answers at its
socket is the test."""
import fcntl
import json
import os
import socket
import struct
import threading
import time

from listener import Listener
from sbxclient import CTRL, DATA, Link

F_OFD_SETLK = 37


class FakeBox:
    def __init__(self, home, name):
        home.sbx("create", "--name", name, "shell", str(home.ws))
        self.name = name
        self.dir = home.dir / "data/sbx/sandboxes" / name
        self.asks = {}       # number: what the broker would tell
        self.answers = []    # (number, allow)
        self.refuse = None   # what an answer is answered, instead of being taken
        self.blocked = 0
        self.links = []
        self.watchers = []
        self.sessions = []   # as `status` tells of them
        self.screens = {}    # session: what stands on its screen
        self.typed = {}      # session: what was typed into it
        self.shows = threading.Event()  # attaching waits for it
        self.shows.set()
        self.views = {}      # (link, channel): session
        run = home.dir / "run/sbx"
        run.mkdir(mode=0o700, exist_ok=True)
        self.path = run / f"{name}.sock"
        self.start()

    def start(self):
        self.lock = os.open(self.dir / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.fcntl(self.lock, F_OFD_SETLK, struct.pack("hhqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        os.write(self.lock, f"{os.getpid()}\n".encode())
        self.say("running")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self.path))
        os.chmod(self.path, 0o600)
        sock.listen(16)
        self.listener = Listener(sock, lambda s: self.serve(Link(s)))

    def status(self):
        return {"name": self.name, "state": "running", "phase": "running", "reason": "", "accel": "kvm", "notice": "", "pid": os.getpid(), "started": int(time.time()),
                "uptime_ms": 1000, "cpu_us": 0, "mem_kib": 1024, "sessions": self.sessions, "blocked": self.blocked, "ports": [], "asks": len(self.asks)}

    def serve(self, link):
        try:
            while True:
                kind, _, chan, m = link.read(100000)
                if kind == CTRL and "id" in m:
                    link.ctrl(**{"op": "reply", "id": m["id"], "ok": True, **self.reply(link, m)})
                    if m["op"] == "attach":
                        link.send(DATA, self.screens.get(m["session"], "").encode(), m["chan"])
                elif kind == DATA and (link, chan) in self.views:
                    session = self.views[link, chan]
                    self.typed[session] = self.typed.get(session, "") + m.decode()
        except (OSError, EOFError, TimeoutError):
            link.sock.close()

    def reply(self, link, m):
        if m["op"] in ("status", "watch"):
            if m["op"] == "watch":
                self.watchers.append(link)
            return self.status()
        if m["op"] == "text":
            return {"text": self.screens.get(m.get("session"), "")}
        if m["op"] == "attach":
            self.shows.wait()
            self.views[link, m["chan"]] = m["session"]
            return {"session": m["session"], "rows": 24, "cols": 80}
        if m["op"] in ("resize", "detach"):
            return {}
        if m["op"] == "asks":
            if m.get("watch") and link not in self.links:
                self.links.append(link)
            return {"asks": list(self.asks.values())}
        if m["op"] == "answer":
            self.answers.append((m["ask"], m["allow"]))
            if self.refuse or m["ask"] not in self.asks:
                return {"ok": False, "error": self.refuse or f"question {m['ask']} is not open any more", "status": 3}
            self.end(m["ask"], "allowed" if m["allow"] else "denied")
            return {}
        return {"ok": False, "error": "the test knows no such request", "status": 2}

    def changed(self):
        self.note(self.watchers, op="status", **self.status())

    def note(self, to=None, **m):
        for link in self.links if to is None else to:
            try:
                link.ctrl(**m)
            except OSError:
                pass

    def session(self, number, agent=False, **more):
        return {"session": number, "command": ["bash"], "tty": True, "agent": agent, "rows": 24, "cols": 80, "clients": 0, "started": int(time.time()),
                "title": "", "bell": False, "user": "agent", "quiet_ms": 9000, **more}

    def end_session(self, number):
        self.sessions = [s for s in self.sessions if s["session"] != number]
        for (link, chan), session in list(self.views.items()):
            if session == number:
                del self.views[link, chan]
                self.note([link], op="exit", chan=chan, status=0)
        self.changed()

    def ask(self, number, host, port=443, left=600, **more):
        self.asks[number] = {"op": "ask", "ask": number, "host": host, "where": "", "port": port, "name": True, "time_ms": int(time.time() * 1000),
                             "left_ms": left * 1000, "count": 1, "held": 1, **more}
        self.note(**self.asks[number])

    def end(self, number, how):
        del self.asks[number]
        self.note(op="asked", ask=number, how=how)

    def say(self, state):
        text = json.dumps({"version": 1, "state": state, "reason": "", "when": int(time.time())})
        (self.dir / "new.json").write_text(text)
        (self.dir / "new.json").rename(self.dir / "last.json")

    def close(self):
        if self.lock < 0:
            return
        self.path.unlink(missing_ok=True)
        self.listener.close()
        self.say("stopped")
        os.close(self.lock)
        self.lock = -1
        for link in self.links + self.watchers:
            try:
                link.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

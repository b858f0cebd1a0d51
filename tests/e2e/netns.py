"""`sbx net` and `sbx broker` without a machine: the guest's end of the cable is a tap device in a network namespace, and
the guest's programs are processes there.  A Lab needs root and /dev/net/tun."""
import ctypes
import os
import pathlib
import shutil
import socket
import sqlite3
import ssl
import struct
import subprocess
import threading
import time
import unittest

from harness import BUILD, PATIENCE, ROOT, Home, popen_at, run, wait_for
from sbxclient import Link

PUMP = BUILD / "e2e/cable_pump"
GUEST4, GATEWAY4, GUEST6, GATEWAY6 = "10.113.0.2", "10.113.0.1", "fd53:6278::2", "fd53:6278::1"
GUEST_MAC = "02:53:42:58:00:02"


def usable():
    return os.geteuid() == 0 and os.path.exists("/dev/net/tun") and shutil.which("nsenter") and shutil.which("ip")


def needs_lab(test):
    return unittest.skipUnless(usable(), "needs root and /dev/net/tun")(test)


def make_pump():
    source = ROOT / "tests/e2e/cable_pump.c"
    if not PUMP.exists() or PUMP.stat().st_mtime < source.stat().st_mtime:
        PUMP.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", "-o", PUMP, source], check=True)


class TestCA:
    """An authority as a company has one, and servers' certificates under it."""

    def __init__(self, folder, name="Test CA"):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(exist_ok=True)
        self.cert = self.dir / "ca.pem"
        self.key = self.dir / "ca.key"
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", f"/CN={name}",
                 "-keyout", self.key, "-out", self.cert, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")

    def run(self, *args):
        r = subprocess.run(["openssl", *map(str, args)], capture_output=True)
        if r.returncode:
            raise AssertionError(r.stderr.decode())

    def leaf(self, name, *names, days=30, sign=True):
        """(certificate, key) as files."""
        key, csr, crt, ext = (self.dir / f"{name}.{e}" for e in ("key", "csr", "crt", "ext"))
        ext.write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in names) + "\n" if names else "")
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", csr)
        if sign and days > 0:
            self.run("x509", "-req", "-in", csr, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", days, "-extfile", ext, "-out", crt)
        elif sign:  # ran out: `openssl ca` alone sets dates
            conf = self.dir / f"{name}.conf"
            (self.dir / f"{name}.txt").write_text("")
            conf.write_text(f"[ca]\ndefault_ca=x\n[x]\ndatabase={self.dir}/{name}.txt\nnew_certs_dir={self.dir}\nrand_serial=yes\n"
                            "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
            self.run("ca", "-batch", "-config", conf, "-in", csr, "-cert", self.cert, "-keyfile", self.key, "-startdate", "20200101000000Z",
                     "-enddate", "20200201000000Z", "-extfile", ext, "-out", crt, "-notext")
        else:
            self.run("x509", "-req", "-in", csr, "-signkey", key, "-days", 30, "-extfile", ext, "-out", crt)
        return str(crt), str(key)


class Lab:
    def __init__(self, *, map=(), ca=(), posture="locked-down", settings=(), hosts=None, environment=None, prepare=None):
        """hosts: the /etc/hosts that the broker resolves names by, else the machine's own.  prepare: is given the home before
        anything is started."""
        make_pump()
        self.h = h = Home()
        self.procs = []
        self.asked = 0
        self.environment = environment or {}
        self.links = {}
        self.replied = {}
        self.env = {}
        (h.dir / "data/sbx/sandboxes/lab").mkdir(parents=True, mode=0o700)
        if map:
            h.sbx("config", "set", "net.map", ",".join(map))
        if ca:
            h.sbx("config", "set", "net.ca", ",".join(ca))
        for name, value in settings:
            h.sbx("config", "set", name, value)
        h.sbx("policy", "set-default", posture)
        if prepare:
            prepare(h)
        (h.dir / "resolv.conf").write_text(f"nameserver {GATEWAY4}\noptions timeout:2 attempts:2\n")
        (h.dir / "hosts").write_text("127.0.0.1 localhost\n")
        self.brokers = [str(BUILD / "lib/sbx-broker"), "broker", "lab"]
        if hosts is not None:
            (h.dir / "broker-hosts").write_text(hosts)
            self.brokers = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                            'mount --bind "$1" /etc/hosts && shift && exec "$@"', "sh", str(h.dir / "broker-hosts"), *self.brokers]
        try:
            self.plug_in()
        except BaseException:
            self.close()
            raise

    def start(self, argv, fds):
        """fds: what it gets as 3, 4, ..."""
        env = dict(self.h.env, **self.environment, ASAN_OPTIONS="detect_leaks=0:abort_on_error=0", UBSAN_OPTIONS="print_stacktrace=1")
        p = popen_at(argv, fds, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=env)
        self.procs.append(p)
        return p

    def plug_in(self):
        self.log = open(self.h.dir / "lab.log", "ab")
        cable, ask = socket.socketpair(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        net, broker = socket.socketpair(), socket.socketpair()
        self.broker = self.start(self.brokers, [broker[1].fileno(), ask[1].fileno()])
        self.net = self.start([str(BUILD / "lib/sbx-net"), "net", "lab"], [cable[1].fileno(), ask[0].fileno(), net[1].fileno()])
        for name, s in (("net", net[0]), ("broker", broker[0])):
            self.links[name] = Link(s)
        for s in (cable[1], ask[0], ask[1], net[1], broker[1]):
            s.close()
        for link in self.links.values():
            while link.get()[3].get("op") != "hello":
                pass
        self.drain = threading.Thread(target=self.read_broker, daemon=True)
        self.drain.start()
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
             'mount --bind "$1" /etc/resolv.conf && mount --bind "$2" /etc/hosts && ip link set lo up && echo ready && exec sleep 100000', "sh",
             str(self.h.dir / "resolv.conf"), str(self.h.dir / "hosts")], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.procs.append(self.holder)
        if self.holder.stdout.readline() != b"ready\n":
            raise AssertionError("no namespace")
        self.inside = ["nsenter", "-t", str(self.holder.pid), "-n", "-m", "--wd=/"]
        self.start([*self.inside, str(PUMP), "eth0", "3"], [cable[0].fileno()])
        cable[0].close()
        wait_for(lambda: self.run("ip", "link", "show", "eth0").returncode == 0)
        script = f"""set -e; sysctl -q -w net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.accept_ra=0
            ip link set eth0 address {GUEST_MAC} mtu 65520 up
            ip addr add {GUEST4}/24 dev eth0; ip -6 addr add {GUEST6}/64 dev eth0 nodad
            ip route add default via {GATEWAY4}; ip -6 route add default via {GATEWAY6}"""
        r = self.run("sh", "-c", script)
        if r.returncode:
            raise AssertionError(r.stderr.decode())
        self.trust()

    def trust(self):
        """As the guest does it: one bundle for all programs."""
        own = self.h.dir / "data/sbx/ca/cert.pem"
        bundle = self.h.dir / "bundle.pem"
        bundle.write_bytes(pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_bytes() + own.read_bytes())
        self.run("mount", "--bind", str(bundle), "/etc/ssl/certs/ca-certificates.crt")
        self.guest_env = dict(self.h.env, SSL_CERT_FILE=str(bundle), NODE_EXTRA_CA_CERTS=str(own), REQUESTS_CA_BUNDLE=str(bundle),
                              GIT_SSL_CAINFO=str(bundle), CURL_CA_BUNDLE=str(bundle), PIP_CERT=str(bundle), npm_config_cafile=str(bundle),
                              PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", GIT_TERMINAL_PROMPT="0")

    def read_broker(self):
        try:
            while True:
                message = self.links["broker"].read(timeout=100000)[3]
                if isinstance(message, dict):
                    self.heard(message)
        except (OSError, EOFError, TimeoutError, ValueError):
            pass

    def heard(self, message):
        if message.get("op") == "secrets":
            self.env = message["env"]  # of the guest: sentinels
        elif message.get("op") == "reply":
            self.replied[message["id"]] = message

    def settled(self):
        """net and broker have seen all that waited for them when this was called, and their timers that were due have run,
        however long the machine stalled meanwhile: each answered twice."""
        for _ in range(2):
            try:
                self.stats()
            except (OSError, EOFError):
                break  # a test ended it
        for _ in range(2):
            self.asked += 1
            ident = 1000000 + self.asked
            try:
                self.links["broker"].ctrl(op="stats", id=ident)
            except OSError:
                break
            wait_for(lambda: ident in self.replied or not self.drain.is_alive(), step=0.005)

    def run(self, *argv, input=None, timeout=120, env=None, cwd=None):
        e = dict(getattr(self, "guest_env", self.h.env))
        e.update(env or {})
        inside = [*self.inside[:-1], f"--wd={cwd or '/'}"]
        return run([*inside, *map(str, argv)], timeout, input, env=e)

    def popen(self, *argv, **more):
        p = subprocess.Popen([*self.inside, *map(str, argv)], env=self.guest_env, **more)
        self.procs.append(p)
        return p

    # ---- sockets of the guest, for hostile bytes ----

    def within(self, make):
        """Runs make() in a thread that lives in the guest's network, and gives what it returned."""
        done = {}

        def work():
            try:
                with open(f"/proc/{self.holder.pid}/ns/net") as ns:
                    if ctypes.CDLL(None, use_errno=True).setns(ns.fileno(), 0x40000000):
                        raise OSError(ctypes.get_errno(), "setns")
                done["value"] = make()
            except BaseException as e:
                done["error"] = e
        t = threading.Thread(target=work)
        t.start()
        t.join()
        if "error" in done:
            raise done["error"]
        return done["value"]

    def socket(self, *args):
        return self.within(lambda: socket.socket(*args))

    def query(self, message, timeout=PATIENCE):
        """What the name server answers to these bytes; None: nothing."""
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(timeout)
            s.sendto(message, (GATEWAY4, 53))
            try:
                return s.recv(65535)
            except TimeoutError:
                return None

    def lookup(self, name, kind=1):
        labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split("."))
        r = self.query(b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack(">HH", kind, 1))
        size = 4 if kind == 1 else 16
        if not r or r[3] & 15 or r[6:8] == b"\0\0":
            return None
        return socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, r[-size:])

    def connect(self, name, port=443, timeout=PATIENCE):
        address = name if name.replace(".", "").isdigit() or ":" in name else self.lookup(name)
        if not address:
            raise ConnectionRefusedError(f"no such name: {name}")
        s = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        s.settimeout(timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            s.connect((address, port))
        except BaseException:
            s.close()
            raise
        return s

    def tls(self, name, sni=None, alpn=("http/1.1",), cafile=None, timeout=PATIENCE):
        context = ssl.create_default_context(cafile=cafile or self.h.dir / "data/sbx/ca/cert.pem")
        context.set_alpn_protocols(list(alpn))
        s = self.connect(name, timeout=timeout)
        try:
            return context.wrap_socket(s, server_hostname=sni or name)
        except BaseException:
            s.close()
            raise

    def say(self, data, name="a.test", tls=True, timeout=None, quiet=None, pause=0):
        """Sends bytes (a list: piece by piece), and gives all that comes back until the end, or until nothing more comes
        where the end was not asked for."""
        got = b""
        pieces = [data] if isinstance(data, bytes) else data
        if timeout is None:
            timeout = PATIENCE if b"close" in b"".join(pieces) else 2
        with (self.tls(name) if tls else self.connect(name, 80)) as s:
            s.settimeout(timeout)
            try:
                for piece in pieces:
                    s.sendall(piece)
                    if pause:
                        time.sleep(pause)
                while True:
                    more = s.recv(65536)
                    if not more:
                        return got
                    got += more
                    s.settimeout(quiet or timeout)
            except OSError:
                return got

    def curl(self, url, *more, seconds=PATIENCE):
        """(exit status, HTTP status, body)"""
        r = self.run("curl", "-sS", "-w", "\n%{http_code}", *more, url, timeout=seconds)
        body, _, code = r.stdout.rpartition(b"\n")
        return r.returncode, int(code or 0), body

    def allow(self, *rules):
        self.h.sbx("policy", "allow", "network", "-g", ",".join(rules))
        self.in_force()

    def in_force(self):
        """Returns when a change of rules or settings holds: the broker has read it, and no name is held that was judged before."""
        self.settled()
        time.sleep(1)
        self.settled()

    def rows(self, **want):
        """The log's rows, oldest first; the broker writes them within a second."""
        self.settled()
        time.sleep(0.7)
        self.settled()
        db = sqlite3.connect(f"file:{self.h.dir}/data/sbx/sandboxes/lab/log.db?mode=ro", uri=True)
        db.row_factory = sqlite3.Row
        try:
            rows = [dict(r) for r in db.execute("SELECT * FROM rows ORDER BY 1")]
        finally:
            db.close()
        return [r for r in rows if all(r[k] == v for k, v in want.items())]

    def stats(self):
        return self.links["net"].request("stats")

    def rss(self, proc=None):
        for line in open(f"/proc/{(proc or self.net).pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024

    def fds(self, proc=None):
        return len(os.listdir(f"/proc/{(proc or self.net).pid}/fd"))

    def alive(self):
        return self.net.poll() is None and self.broker.poll() is None

    def text(self):
        return (self.h.dir / "lab.log").read_text(errors="replace")

    def close(self):
        text = ""
        try:
            dead = [p.args[0] for p in (getattr(self, "net", None), getattr(self, "broker", None)) if p and p.poll() is not None]
            text = self.text() if (self.h.dir / "lab.log").exists() else ""
            for p in reversed(self.procs):
                if p.poll() is None:
                    p.kill()
                p.wait()
        finally:
            for link in self.links.values():
                link.sock.close()
            self.log.close()
            if hasattr(self, "holder"):
                self.holder.stdout.close()
            self.h.close()
        if dead or "Sanitizer" in text or "runtime error" in text:
            raise AssertionError(f"ended on their own: {dead}\n{text[-6000:]}")

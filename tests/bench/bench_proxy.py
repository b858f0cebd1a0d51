"""`sbx net` and `sbx broker` without a machine, beside haproxy, tinyproxy and mitmproxy (where they are installed) on the
same work in the same run: requests a second, latency, bulk, memory.  bench_proxy.py turns|places|events|uploads: that part alone.

sbx's figures contain the guest's whole way: kernel TCP in a namespace, a tap device, the pump that stands for QEMU, the
terminator; the others' the host's loopback alone.  So what sbx adds is what it takes beyond "a cable, no proxy": the same
card and pump, with the server's own kernel at the other end; haproxy at the
same work is "a cable, then haproxy".  The server behind all is haproxy answering by itself, or
sendfile.  tinyproxy passes requests on in small pieces that wait for delayed acknowledgements; through a tunnel (CONNECT)
it relays as sbx does."""
import ctypes
import fcntl
import os
import pathlib
import re
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from harness import wait_for
from netns import PUMP, Lab, TestCA, usable

SECONDS = int(os.environ.get("SECONDS_EACH", "3"))  # h2load takes whole ones alone
EVENTS, EVENT_PAUSE = 250, 0.02
TURNS = int(os.environ.get("TURNS", "7"))
BULK = int(os.environ.get("BULK_MIB", "1024")) << 20


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A thread for each connection: self.one."""

    def listen(self):
        self.s = socket.create_server(("127.0.0.1", 0))
        self.port = self.s.getsockname()[1]
        threading.Thread(target=self.loop, daemon=True).start()

    def loop(self):
        while True:
            c, _ = self.s.accept()
            threading.Thread(target=self.one, args=(c,), daemon=True).start()


class Bulk(Server):
    """Sends BULK bytes to whoever asks."""

    def __init__(self, folder):
        self.file = open(folder / "bulk", "w+b")
        block = os.urandom(1 << 20)
        for _ in range(BULK >> 20):
            self.file.write(block)
        self.file.flush()
        self.text = open(folder / "text", "w+b")  # what models say
        event = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" and what of sk-ant-api03 it"}}\n\n'
        for _ in range(BULK >> 20):
            self.text.write((event * ((1 << 20) // len(event) + 1))[:1 << 20])
        self.text.flush()
        self.listen()

    def one(self, c):
        with c:
            try:
                got = b""
                while b"\r\n\r\n" not in got:
                    got += c.recv(4096)
                if got.startswith(b"PUT "):
                    self.take(c, BULK - len(got.partition(b"\r\n\r\n")[2]))
                    return
                f = open((self.text if b" /text" in got else self.file).name, "rb")
                c.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % BULK)
                c.sendfile(f)
            except OSError:
                pass


    def take(self, c, n):
        room = bytearray(1 << 20)
        while n > 0 and (k := c.recv_into(room)):
            n -= k
        c.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")


class Events(Server):
    """Server-sent events over TLS, one chunk each, that bear the time at which they were sent."""

    def __init__(self, cert):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*cert)
        self.context.set_alpn_protocols(["http/1.1"])
        self.listen()

    def one(self, c):
        try:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.context.wrap_socket(c, server_side=True) as s:
                while b"\r\n\r\n" not in s.recv(4096):
                    pass
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(EVENTS):
                    time.sleep(EVENT_PAUSE)
                    event = b"data: {\"sent\":%d,\"text\":\" and what of sk-ant-api03 it\"}\n\n" % time.monotonic_ns()
                    s.sendall(b"%x\r\n%s\r\n" % (len(event), event))
                s.sendall(b"0\r\n\r\n")
        except OSError:
            pass

    def late(self, s, host):
        """How long each event was under way, in µs."""
        times, held = [], b""
        with s:
            s.sendall(b"GET /ok HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
            while len(times) < EVENTS:
                got = s.recv(65536)
                now = time.monotonic_ns()
                if not got:
                    break
                held += got
                *whole, held = held.split(b"\n\n")
                for event in whole:
                    at = re.search(rb'"sent":(\d+)', event)
                    times += [(now - int(at.group(1))) / 1000] if at else []
        return sorted(times)


class Bench:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.ca = TestCA(self.dir / "ca")
        crt, key = self.ca.leaf("web", "fast.test", "looked.test", "bulk.test", "bulklooked.test", "bulksecret.test", "events.test", "eventssecret.test")
        self.events = Events((crt, key))
        self.pem = self.dir / "web.pem"
        self.pem.write_text(pathlib.Path(crt).read_text() + pathlib.Path(key).read_text())
        self.bulk = Bulk(self.dir)
        self.procs = []
        ports = self.ports = {n: free_port() for n in ("plain", "tls", "bulktls", "relay", "tlsrelay", "bulkrelay", "bulktlsrelay", "tiny", "tunnel", "mitm")}
        back = f"ca-file {self.ca.cert} verify required"
        self.haproxy("backend", f"""
frontend plain
 bind 127.0.0.1:{ports['plain']}
 http-request return status 200 content-type text/plain string "hello"
frontend tls
 bind 127.0.0.1:{ports['tls']} ssl crt {self.pem} alpn http/1.1
 http-request return status 200 content-type text/plain string "hello"
frontend bulktls
 bind 127.0.0.1:{ports['bulktls']} ssl crt {self.pem} alpn http/1.1
 default_backend bulk
backend bulk
 server s 127.0.0.1:{self.bulk.port}
""")
        self.relay = self.haproxy("relay", f"""
frontend relay
 bind 127.0.0.1:{ports['relay']}
 default_backend plain
frontend tlsrelay
 bind 127.0.0.1:{ports['tlsrelay']} ssl crt {self.pem} alpn http/1.1
 default_backend tls
frontend bulkrelay
 bind 127.0.0.1:{ports['bulkrelay']}
 default_backend bulk
frontend bulktlsrelay
 bind 127.0.0.1:{ports['bulktlsrelay']} ssl crt {self.pem} alpn http/1.1
 default_backend bulktls
backend plain
 server s 127.0.0.1:{ports['plain']}
backend tls
 server s 127.0.0.1:{ports['tls']} ssl sni str(fast.test) verifyhost fast.test {back}
backend bulk
 server s 127.0.0.1:{self.bulk.port}
backend bulktls
 server s 127.0.0.1:{ports['bulktls']} ssl sni str(bulk.test) verifyhost bulk.test {back}
""")
        self.tiny = self.mitm = False
        if shutil.which("tinyproxy"):
            conf = self.dir / "tiny.conf"
            conf.write_text(f'Port {ports["tiny"]}\nListen 127.0.0.1\nTimeout 60\nMaxClients 200\nLogLevel Critical\nReverseOnly Yes\nReversePath "/" "http://127.0.0.1:{ports["plain"]}/"\n')
            self.spawn("tinyproxy", "-d", "-c", conf)
            conf = self.dir / "tunnel.conf"
            conf.write_text(f'Port {ports["tunnel"]}\nListen 127.0.0.1\nTimeout 60\nMaxClients 200\nLogLevel Critical\n')
            self.spawn("tinyproxy", "-d", "-c", conf)
            self.tiny = True
        if shutil.which("mitmdump"):
            self.spawn("mitmdump", "-q", "--mode", f"reverse:https://127.0.0.1:{ports['tls']}", "--ssl-insecure", "-p", ports["mitm"], "--set", f"confdir={self.dir}")
            self.mitm = True
        names = {"fast.test:8080": ports["plain"], "looked.test:80": ports["plain"], "fast.test:443": ports["tls"], "looked.test:443": ports["tls"],
                 "bulk.test:8080": self.bulk.port, "bulklooked.test:80": self.bulk.port, "bulk.test:443": ports["bulktls"], "bulklooked.test:443": ports["bulktls"],
                 "bulksecret.test:443": ports["bulktls"], "events.test:443": self.events.port, "eventssecret.test:443": self.events.port}
        self.lab = Lab(map=[f"{k}=127.0.0.1:{v}" for k, v in names.items()], ca=[str(self.ca.cert)])
        self.lab.h.sbx("secret", "set", "-g", "bulk", "--host", "bulksecret.test", "--host", "eventssecret.test", "--header", "X-Api-Key", "--password-stdin",
                       input=b"sk-ant-api03-secretSECRET0123456789-abcdefghijklmnop")
        self.lab.allow("fast.test", "fast.test:8080", "bulk.test", "bulk.test:8080", "looked.test/ok", "bulklooked.test/ok", "bulklooked.test/text", "bulksecret.test", "events.test/ok", "eventssecret.test")
        absent = {n for n, there in (("tiny", self.tiny), ("tunnel", self.tiny), ("mitm", self.mitm)) if not there}
        for p in (p for n, p in ports.items() if n not in absent):
            wait_for(lambda: self.listens(p), 5)
        self.far()

    def far(self):
        """Another host, at the other end of a cable from the guest's second card."""
        lab = self.lab
        holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 100000"],
                                  stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.procs.append(holder)
        holder.stdout.readline()

        def tap():
            with open(f"/proc/{holder.pid}/ns/net") as ns:
                if ctypes.CDLL(None).setns(ns.fileno(), 0x40000000):
                    raise OSError("setns")
            fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", b"eth0", 0x1002))  # TUNSETIFF: IFF_TAP | IFF_NO_PI
            return fd
        fd = lab.within(tap)
        lab.start([*lab.inside, str(PUMP), "eth1", "3", "tap"], [fd])
        os.close(fd)
        wait_for(lambda: lab.run("ip", "link", "show", "eth1").returncode == 0)
        lab.run("sh", "-c", "ip link set eth1 mtu 65520 up && ip addr add 192.0.2.2/30 dev eth1")
        inside = ["nsenter", "-t", str(holder.pid), "-n"]
        subprocess.run([*inside, "sh", "-c", "ip link set eth0 mtu 65520 up && ip addr add 192.0.2.1/30 dev eth0"], check=True)
        for name in ("backend", "relay"):
            conf = self.dir / f"far-{name}.cfg"
            conf.write_text((self.dir / f"{name}.cfg").read_text().replace("127.0.0.1:", "192.0.2.1:"))
            self.spawn(*inside, "haproxy", "-db", "-q", "-f", conf)
        time.sleep(0.5)

    def listens(self, port):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def spawn(self, *argv):
        p = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.procs.append(p)
        return p

    def haproxy(self, name, text):
        conf = self.dir / f"{name}.cfg"
        conf.write_text("global\n maxconn 4000\n nbthread 1\n tune.ssl.default-dh-param 2048\ndefaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n" + text)
        return self.spawn("haproxy", "-db", "-q", "-f", conf)

    def close(self):
        for p in self.procs:
            p.kill()
            p.wait()
        self.lab.close()
        shutil.rmtree(self.dir)

    def load(self, where, conns, url, n=0):
        """(requests a second, median in µs, 99th percentile in µs) of HTTP/1.1, kept alive; of n requests, or in SECONDS."""
        log = self.dir / "times"
        log.write_text("")
        much = ["-n", str(n)] if n else [f"--duration={SECONDS}", "--warm-up-time=1"]
        r = where("h2load", "--h1", "-c", str(conns), "-t", "1", *much, f"--log-file={log}", url)
        m = re.search(rb"finished in [^,]*, ([\d.]+) req/s", r.stdout)
        times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines() if line.split("\t")[1] == "200")
        if not m or not times:
            return 0, 0, 0
        return float(m.group(1)), statistics.median(times), times[int(len(times) * 0.99)]

    def host(self, *argv):
        return subprocess.run([str(a) for a in argv], capture_output=True, timeout=120)

    def guest(self, *argv):
        return self.lab.run(*argv, timeout=120)

    def fresh(self, where, url, n=2000, more=("-H", "Connection: close")):
        """Requests a second, one after another, each on a connection of its own."""
        start = time.monotonic()
        r = where("curl", "-s", "-m", "60", "-o", "/dev/null", *more, "-w", "%{http_code}\n", f"{url}?[1-{n}]")
        return n / (time.monotonic() - start) if r.stdout.count(b"200\n") == n else 0

    def megabytes(self, where, url, *more):
        r = where("curl", "-sSk", "-m", "100", "-o", "/dev/null", "-w", "%{http_code} %{speed_download}", *more, url)
        code, speed = (r.stdout.split() + [b"0", b"0"])[:2]
        return float(speed) / 1e6 if code == b"200" else 0

    def cpu(self):
        """Seconds of a processor that net took so far."""
        return sum(map(int, pathlib.Path(f"/proc/{self.lab.net.pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def uploaded(self, url, file):
        """(MB/s, seconds of net's processor)"""
        before = self.cpu()
        r = self.guest("curl", "-sS", "-m", "100", "-H", "Expect:", "-T", file.name, "-w", "%{http_code} %{speed_upload}", url)
        code, speed = (r.stdout.split() + [b"0", b"0"])[:2]
        return (float(speed) / 1e6 if code == b"200" else 0), self.cpu() - before


def uploads(b):
    """Content of requests, and what the search for sentinels takes of it: none is looked for at the host of the one secret that
    there is, and it is looked for at the other."""
    print(f"\n{f'one upload of {BULK >> 20} MiB, median of 5, by turns':<50}{'MB/s':>8}{'searched':>10}{'ratio':>7}{'net, s':>8}{'searched':>10}{'ratio':>7}")
    for count in (1, 10):
        for i in range(1, count):
            b.lab.h.sbx("secret", "set", "-g", f"bulk{i}", "--host", "bulksecret.test", "--header", "X-Api-Key", "--password-stdin",
                        input=b"key%d-secretSECRET0123456789-abcdefghijklmnop" % i)
        for what, file in (("random bytes", b.bulk.file), ("a model's events", b.bulk.text)):
            pairs = [(b.uploaded("https://bulksecret.test/ok", file), b.uploaded("https://bulklooked.test/ok", file)) for _ in range(5)]
            (plain, searched), (cpu, more) = ([statistics.median(p[i][k] for p in pairs) for i in (0, 1)] for k in (0, 1))
            print(f"{f'sbx intercepts, TLS, {what}, {count} sentinels':<50}{plain:8.0f}{searched:10.0f}{searched / plain if plain else 0:7.2f}"
                  f"{cpu:8.2f}{more:10.2f}{cpu / more if more else 0:7.2f}", flush=True)


def by_turns(b):
    """What a proxy adds, and how it compares, on a machine that others use: many short turns, and the median of all."""
    p = b.ports
    plain = [("a cable, no proxy, plain", b.guest, f"http://192.0.2.1:{p['plain']}/ok"), ("a cable, then haproxy, plain", b.guest, f"http://192.0.2.1:{p['relay']}/ok"),
             ("sbx relays, plain", b.guest, "http://fast.test:8080/ok"), ("sbx judges each, plain", b.guest, "http://looked.test/ok")]
    tls = [("a cable, no proxy, TLS", b.guest, f"https://192.0.2.1:{p['tls']}/ok"), ("a cable, then haproxy, TLS", b.guest, f"https://192.0.2.1:{p['tlsrelay']}/ok"),
           ("sbx relays, TLS", b.guest, "https://fast.test/ok"), ("sbx intercepts, TLS", b.guest, "https://looked.test/ok")]
    if b.mitm:
        tls.append(("mitmproxy (no cable)", b.host, f"https://127.0.0.1:{p['mitm']}/ok"))
    print(f"\n{'by turns, the medians':<40}{'1 conn p50 us':>14}{'added us':>10}{'32 conns/s':>12}{'of haproxy':>12}{'of mitmproxy':>14}")
    for rows in (plain, tls):
        got = {what: [] for what, *_ in rows}
        for _ in range(TURNS):
            for what, where, url in rows:
                slow = what.startswith("mitm")
                got[what].append((b.load(where, 1, url, 200 if slow else 2000)[1], b.load(where, 32, url, 600 if slow else 10000)[0]))
        middle = {what: [statistics.median(t[i] for t in turns) for i in (0, 1)] for what, turns in got.items()}
        rate = {key: next((m[1] for what, m in middle.items() if key in what), 0) for key in ("haproxy", "mitmproxy")}
        base = middle[rows[0][0]][0]
        for what, (p50, many) in middle.items():
            ratios = "".join(f"{many / rate[key]:{width}.2f}" if rate[key] else "" for key, width in (("haproxy", 12), ("mitmproxy", 14)))
            print(f"{what:<40}{p50:14.0f}{p50 - base:10.0f}{many:12.0f}{ratios}", flush=True)


def places(b):
    """What a request waits for at one connection, where its processes are kept in their places: where the kernel puts them decides
    more than anything else, for a word to another processor that is idle takes tens of microseconds in a virtual machine."""
    def keep(procs, cpu):
        for pid in {q for p in procs for q in (p.pid, *map(int, pathlib.Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()))}:
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(task), cpu)
    free = os.sched_getaffinity(0)
    one, *rest = sorted(free)
    if not rest:
        print("one processor: all is in one place")
        return
    here, there = {one}, {rest[0]}
    p, lab = b.ports, b.lab
    pumps, servers = [x for x in lab.procs if str(PUMP) in x.args], [x for x in b.procs if "haproxy" in x.args]
    print(f"\n{'one connection, p50 us, added':<40}{'plain':>8}{'haproxy':>14}{'sbx judges':>14}{'TLS':>8}{'haproxy':>14}{'sbx intercepts':>16}")
    try:
        for what, brokers, ends in (("all on one processor", here, here), ("the broker on another", there, here), ("broker and servers on another", there, there)):
            os.sched_setaffinity(0, here)  # and with us h2load
            keep([lab.net, *pumps], here)
            keep([lab.broker], brokers)
            keep(servers, ends)
            urls = (f"http://192.0.2.1:{p['plain']}/ok", f"http://192.0.2.1:{p['relay']}/ok", "http://looked.test/ok",
                    f"https://192.0.2.1:{p['tls']}/ok", f"https://192.0.2.1:{p['tlsrelay']}/ok", "https://looked.test/ok")
            turns = [[b.load(b.guest, 1, url, 500)[1] for url in urls] for _ in range(TURNS)]
            m = [statistics.median(t[i] for t in turns) for i in range(6)]
            print(f"{what:<40}{m[0]:8.0f}{m[1]:8.0f}{m[1] - m[0]:+6.0f}{m[2]:8.0f}{m[2] - m[0]:+6.0f}{m[3]:8.0f}{m[4]:8.0f}{m[4] - m[3]:+6.0f}{m[5]:10.0f}{m[5] - m[3]:+6.0f}", flush=True)
    finally:
        os.sched_setaffinity(0, free)
        keep([lab.net, lab.broker, *pumps, *servers], free)


def events(b):
    """What an event waits between the server's write and the client's read: no proxy, intercepted, scrubbed as well."""
    def direct():
        context = ssl.create_default_context(cafile=b.ca.cert)
        return context.wrap_socket(socket.create_connection(("127.0.0.1", b.events.port)), server_hostname="events.test")
    print(f"\n{f'{EVENTS} server-sent events, one in {EVENT_PAUSE * 1000:.0f} ms, TLS':<40}{'p50 us':>10}{'p99 us':>10}{'worst us':>10}{'within 20 ms':>14}")
    for what, make, host in (("no proxy", direct, "events.test"), ("sbx intercepts", lambda: b.lab.tls("events.test"), "events.test"),
                             ("sbx intercepts, with a secret, scrubbed", lambda: b.lab.tls("eventssecret.test"), "eventssecret.test")):
        t = b.events.late(make(), host)
        if not t:
            print(f"{what:<40}none came")
            continue
        print(f"{what:<40}{statistics.median(t):10.0f}{t[int(len(t) * 0.99)]:10.0f}{t[-1]:10.0f}{sum(x <= 20000 for x in t):10d}/{EVENTS}", flush=True)


def main():
    if not usable() or not shutil.which("haproxy") or not shutil.which("h2load"):
        print("bench_proxy: needs root, /dev/net/tun, haproxy and h2load (nghttp2-client)")
        return
    b = Bench()
    p = b.ports
    if sys.argv[1:] in (["events"], ["turns"], ["places"], ["uploads"]):
        try:
            {"events": events, "turns": by_turns, "places": places, "uploads": uploads}[sys.argv[1]](b)
        finally:
            b.close()
        return
    try:
        print(f"{'requests of HTTP/1.1':<40}{'1 conn/s':>10}{'p50 us':>9}{'p99 us':>9}{'32 conns/s':>12}{'p50 us':>9}{'p99 us':>9}")
        rows = [("no proxy, plain", b.host, f"http://127.0.0.1:{p['plain']}/ok"), ("haproxy, plain", b.host, f"http://127.0.0.1:{p['relay']}/ok")]
        rows += [("sbx relays, plain", b.guest, "http://fast.test:8080/ok"), ("sbx judges each, plain", b.guest, "http://looked.test/ok"),
                 ("no proxy, TLS", b.host, f"https://127.0.0.1:{p['tls']}/ok"), ("haproxy, TLS ended and begun", b.host, f"https://127.0.0.1:{p['tlsrelay']}/ok")]
        if b.mitm:
            rows.append(("mitmproxy", b.host, f"https://127.0.0.1:{p['mitm']}/ok"))
        else:
            print("mitmproxy is not installed (apt-get install mitmproxy)")
        rows.insert(1, ("a cable, no proxy, plain", b.guest, f"http://192.0.2.1:{p['plain']}/ok"))
        rows.insert(3, ("a cable, then haproxy, plain", b.guest, f"http://192.0.2.1:{p['relay']}/ok"))
        rows.insert(7, ("a cable, no proxy, TLS", b.guest, f"https://192.0.2.1:{p['tls']}/ok"))
        rows.insert(9, ("a cable, then haproxy, TLS", b.guest, f"https://192.0.2.1:{p['tlsrelay']}/ok"))
        rows += [("sbx relays, TLS", b.guest, "https://fast.test/ok"), ("sbx intercepts, TLS", b.guest, "https://looked.test/ok")]
        for what, where, url in rows:
            one, many = b.load(where, 1, url), b.load(where, 32, url)
            print(f"{what:<40}{one[0]:10.0f}{one[1]:9.0f}{one[2]:9.0f}{many[0]:12.0f}{many[1]:9.0f}{many[2]:9.0f}", flush=True)
        by_turns(b)
        places(b)
        print(f"\n{'a connection for each request':<40}{'1 conn/s':>10}")
        rows = [("no proxy, plain", b.host, f"http://127.0.0.1:{p['plain']}/ok"), ("haproxy, plain", b.host, f"http://127.0.0.1:{p['relay']}/ok")]
        if b.tiny:  # it closes every connection, so it is in this list alone
            rows.append(("tinyproxy, plain", b.host, f"http://127.0.0.1:{p['tiny']}/ok"))
        for what, where, url in [*rows, ("sbx relays, plain", b.guest, "http://fast.test:8080/ok"), ("sbx judges each, plain", b.guest, "http://looked.test/ok")]:
            print(f"{what:<40}{b.fresh(where, url, 200 if what.startswith('tiny') else 2000):10.0f}", flush=True)
        if not b.tiny:
            print("tinyproxy is not installed (apt-get install tinyproxy)")
        if b.tiny:
            tunnel = ("-p", "-x", f"http://127.0.0.1:{p['tunnel']}")
            print(f"\n{'kept alive, by curl':<40}{'1 conn/s':>10}")
            for what, where, url, more in (("no proxy, plain", b.host, f"http://127.0.0.1:{p['plain']}/ok", ()),
                                           ("tinyproxy, plain, a tunnel", b.host, f"http://127.0.0.1:{p['plain']}/ok", tunnel),
                                           ("sbx relays, plain", b.guest, "http://fast.test:8080/ok", ())):
                print(f"{what:<40}{b.fresh(where, url, 10000, more):10.0f}", flush=True)
            print(f"\n{'a connection for each request, by curl':<40}{'1 conn/s':>10}")
            for what, where, url, more in (("tinyproxy, plain, a tunnel", b.host, f"http://127.0.0.1:{p['plain']}/ok", tunnel),
                                           ("sbx relays, plain", b.guest, "http://fast.test:8080/ok", ())):
                print(f"{what:<40}{b.fresh(where, url, 2000, (*more, '-H', 'Connection: close')):10.0f}", flush=True)
        print(f"\n{'one download of ' + str(BULK >> 20) + ' MiB':<40}{'MB/s':>10}")
        for what, where, url in (("no proxy, plain", b.host, f"http://127.0.0.1:{b.bulk.port}/ok"), ("haproxy, plain", b.host, f"http://127.0.0.1:{p['bulkrelay']}/ok"),
                                 ("sbx relays, plain", b.guest, "http://bulk.test:8080/ok"), ("sbx judges, plain", b.guest, "http://bulklooked.test/ok"),
                                 ("no proxy, TLS", b.host, f"https://127.0.0.1:{p['bulktls']}/ok"), ("haproxy, TLS ended and begun", b.host, f"https://127.0.0.1:{p['bulktlsrelay']}/ok"),
                                 ("sbx relays, TLS", b.guest, "https://bulk.test/ok"), ("sbx intercepts, TLS", b.guest, "https://bulklooked.test/ok")):
            print(f"{what:<40}{max(b.megabytes(where, url) for _ in range(2)):10.0f}", flush=True)
        print(f"\n{'the same, median of 5, by turns':<40}{'MB/s':>10}{'with a secret, scrubbed':>26}{'ratio':>8}")
        for what, path in (("random bytes", "ok"), ("a model's events", "text")):
            pairs = [(b.megabytes(b.guest, f"https://bulklooked.test/{path}"), b.megabytes(b.guest, f"https://bulksecret.test/{path}")) for _ in range(5)]
            plain, scrubbed = (statistics.median(p[i] for p in pairs) for i in (0, 1))
            print(f"{'sbx intercepts, TLS, ' + what:<40}{plain:10.0f}{scrubbed:26.0f}{scrubbed / plain if plain else 0:8.2f}", flush=True)
        events(b)
        lab = b.lab
        wait_for(lambda: lab.stats()["connections"] == 0, 10)
        base = lab.rss() + lab.rss(lab.broker)
        socks = [lab.tls("looked.test") for _ in range(200)]
        time.sleep(0.5)
        used = lab.rss() + lab.rss(lab.broker) - base
        print(f"\nmemory of an idle intercepted connection    {used / 200 / 1024:6.1f} KiB (net and broker, of 200)\nnet {lab.rss() / 1048576:.1f} MiB, broker {lab.rss(lab.broker) / 1048576:.1f} MiB with them")
        for s in socks:
            s.close()
        uploads(b)
    finally:
        b.close()


if __name__ == "__main__":
    main()

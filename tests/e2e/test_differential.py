"""Our reader of HTTP/1 beside llhttp (node's server) and haproxy on the same mutations: what ours passes on, each of the
others reads as the same requests, or refuses.  So nothing that two of them read differently gets through."""
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import BUILD, ROOT, wait_for

NODE = r"""
const http = require('http');
const s = http.createServer({insecureHTTPParser: false, keepAliveTimeout: 1000}, (q, r) => {
  let n = 0; q.on('data', d => n += d.length); q.on('error', () => {});
  q.on('end', () => r.end('[' + q.method + ' ' + q.url + ' ' + n + ']'));
});
s.on('clientError', (e, k) => k.end('HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n[bad]'));
s.listen(0, '127.0.0.1', () => console.log(s.address().port));
"""

SEEDS = [
    b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nX: y\r\n\r\nabcGET /e HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"GET http://a.test/f HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"POST /g HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\nGET /h HTTP/1.1\r\nHost: a.test\r\n\r\n",
]
PIECES = [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b";", b",", b"\x0b", b"\x0c", b"\x85", b"\xa0", b"\xff", b"0", b"1", b"+", b"-", b"_", b"0x", b"Content-Length: 5\r\n",
          b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\r\n chunked\r\n", b"Host: b.test\r\n", b"Connection: close\r\n",
          b"Expect: 100-continue\r\n", b"\r\n\r\n", b"\r\n\r", b"chunked, ", b"\r\n ", b"#", b"%", b"?", b"//", b"HTTP/1.0"]


def mutations(count):
    rnd = random.Random(3)
    yield from SEEDS
    for _ in range(count):
        m = rnd.choice(SEEDS)
        for _ in range(rnd.choice((1, 1, 1, 2))):
            at = rnd.randrange(len(m) + 1)
            what = rnd.randrange(4)
            piece = rnd.choice(PIECES)
            if what == 0 and at < len(m):
                m = m[:at] + m[at + 1:]
            elif what == 1:
                line = m.find(b"\r\n", at)
                at = line + 2 if line >= 0 and b"\r\n" in piece else at
                m = m[:at] + piece + m[at:]
            else:
                m = m[:at] + piece + m[at + (what == 3):]
        yield m


@unittest.skipUnless(shutil.which("node") and shutil.which("gcc"), "needs node and gcc")
class Differential(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp())
        cls.ours = cls.dir / "http1_read"
        san = ["-fsanitize=address,undefined"] if "san" in BUILD.name else []
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "openssl", "libidn2", "libpsl", "jansson"], capture_output=True, text=True).stdout.split()
        subprocess.run(["gcc", "-std=c17", "-D_GNU_SOURCE", "-O1", f"-I{ROOT}/src", "-o", cls.ours, ROOT / "tests/e2e/http1_read.c", *san, BUILD / "libsbx.a", *flags], check=True)
        cls.procs = [subprocess.Popen(["node", "-e", NODE], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
        cls.others = {"llhttp": int(cls.procs[0].stdout.readline())}
        if shutil.which("haproxy"):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            conf = cls.dir / "haproxy.cfg"
            conf.write_text(f"defaults\n mode http\n timeout client 2s\n timeout server 2s\n timeout connect 2s\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\n"
                            f"backend b\n server s 127.0.0.1:{cls.others['llhttp']}\n")
            cls.procs.append(subprocess.Popen(["haproxy", "-db", "-q", "-f", conf], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            cls.others["haproxy"] = port

            def up():
                try:
                    socket.create_connection(("127.0.0.1", port), 60).close()
                    return True
                except OSError:
                    return False
            wait_for(up)

    @classmethod
    def tearDownClass(cls):
        for p in cls.procs:
            p.kill()
            p.wait()
        cls.procs[0].stdout.close()
        shutil.rmtree(cls.dir)

    def read(self, data):
        """(requests, how it ended)"""
        out = subprocess.run([self.ours], input=data, capture_output=True, timeout=60).stdout.decode("latin-1").splitlines()
        return out[:-1], out[-1] if out else "end"

    def ask(self, port, data):
        got = b""
        with socket.create_connection(("127.0.0.1", port), 60) as s:
            s.settimeout(0.25)
            try:
                s.sendall(data)
                while True:
                    more = s.recv(65536)
                    if not more:
                        break
                    got += more
            except OSError:
                pass
        return [p.split(b"]")[0].decode("latin-1") for p in got.split(b"[")[1:]]

    def one(self, data):
        mine, end = self.read(data)
        if not mine:
            return None
        for name, port in self.others.items():
            theirs = [r for r in self.ask(port, data) if r != "bad"]
            # Absolute targets are rewritten by us; a refusal after what was read in common is no difference.
            plain = [r.replace("http://a.test", "") for r in theirs]
            n = min(len(plain), len(mine))
            if plain[:n] != mine[:n] or (len(plain) > len(mine) and end == "more"):
                return name, data, mine, end, theirs
        return None

    def test_threat_24_25_27_what_others_read_otherwise_is_refused(self):
        count = int(os.environ.get("SBX_MUTATIONS", "1200"))
        with ThreadPoolExecutor(24) as pool:
            found = [d for d in pool.map(self.one, mutations(count)) if d]
        self.assertEqual(found, [], "\n".join(map(repr, found[:10])))


if __name__ == "__main__":
    unittest.main()

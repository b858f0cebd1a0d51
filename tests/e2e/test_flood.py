"""Ten thousand connections through one `sbx net` and `sbx broker`, in waves up to their limit; and another sandbox's beside."""
import pathlib
import selectors
import socket
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import PATIENCE, SANITIZED, Limit, wait_for
from netns import Lab, needs_lab

WAVES, WAVE, LIMIT = 20, 500, 512


class Echo:
    """One thread that gives back what each connection sends."""

    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.sock.getsockname()[1]
        self.accepted = 0
        self.stop = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with selectors.DefaultSelector() as sel:
            sel.register(self.sock, selectors.EVENT_READ)
            while not self.stop:
                for key, _ in sel.select(0.2):
                    if key.fileobj is self.sock:
                        c, _ = self.sock.accept()
                        self.accepted += 1
                        sel.register(c, selectors.EVENT_READ)
                        continue
                    try:
                        data = key.fileobj.recv(65536)
                        if data:
                            key.fileobj.sendall(data)
                            continue
                    except OSError:
                        pass
                    sel.unregister(key.fileobj)
                    key.fileobj.close()

    def close(self):
        self.stop = True
        self.thread.join()
        self.sock.close()


@needs_lab
class Flood(unittest.TestCase):
    def setUp(self):
        self.server = Echo()
        self.addCleanup(self.server.close)
        self.labs = []
        for _ in range(2):
            lab = Lab(map=[f"echo.test:7=127.0.0.1:{self.server.port}"])
            self.addCleanup(lab.close)
            lab.allow("echo.test:7")
            self.labs.append(lab)

    def said(self, socks, words):
        """All of them say their word; how many hear it again."""
        for s, w in zip(socks, words):
            s.sendall(w)
        right = 0
        for s, w in zip(socks, words):
            s.settimeout(PATIENCE)
            try:
                right += s.recv(100) == w
            except OSError:
                pass
        return right

    def wave(self, lab, address, n):
        """n connections that are open at the same time. The guest asks again where its SYN found no room."""
        socks = lab.within(lambda: [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(n)])
        for at in range(0, n, 50):
            part = socks[at:at + 50]
            for s in part:
                s.setblocking(False)
                s.connect_ex((address, 7))
            with selectors.DefaultSelector() as sel:
                for s in part:
                    sel.register(s, selectors.EVENT_WRITE)
                limit = Limit(PATIENCE)
                while sel.get_map() and not limit.over():
                    for key, _ in sel.select(1):
                        sel.unregister(key.fileobj)
            for s in part:
                s.setblocking(True)
        return socks

    def test_threat_79_ten_thousand_connections(self):
        lab, other = self.labs
        address, there = lab.lookup("echo.test"), other.lookup("echo.test")
        calm = None
        (neighbour,) = self.wave(other, there, 1)
        self.addCleanup(neighbour.close)
        for n in range(WAVES):
            socks = self.wave(lab, address, WAVE)
            try:
                self.assertEqual(self.said(socks, [b"%d-%d" % (n, i) for i in range(WAVE)]), WAVE, n)
                self.assertEqual(lab.stats()["connections"], WAVE)
                # The neighbour's open connection, and a new one.
                (fresh,) = self.wave(other, there, 1)
                with fresh:
                    self.assertEqual(self.said([neighbour, fresh], [b"here", b"there"]), 2)
            finally:
                for s in socks:
                    s.close()
            self.assertTrue(wait_for(lambda: lab.stats()["connections"] == 0, 20), lab.stats())
            if n == WAVES // 2:
                calm = [(lab.fds(p), lab.rss(p)) for p in (lab.net, lab.broker)]
        for p, (fds, rss) in zip((lab.net, lab.broker), calm):
            self.assertTrue(wait_for(lambda: lab.fds(p) <= fds, 10), (p.args, fds, lab.fds(p)))
            if not SANITIZED:  # they keep what was freed
                self.assertLess(lab.rss(p) - rss, 3 << 20, p.args)
        rows = lab.rows(host="echo.test", port=7)
        self.assertEqual(len({r["flow"] for r in rows if r["verdict"] == "allow" and r["kind"] != "close"}), WAVES * WAVE)
        self.assertEqual(self.server.accepted, WAVES * WAVE + WAVES + 1)  # one for each row that allows

    def test_threat_79_the_limit(self):
        lab, _ = self.labs
        socks = self.wave(lab, lab.lookup("echo.test"), LIMIT)
        try:
            self.assertEqual(self.said(socks, [b"%d" % i for i in range(LIMIT)]), LIMIT)
            with self.assertRaises(OSError):  # one too many is told at once
                lab.connect("echo.test", 7)
            self.assertEqual(self.said(socks, [b"again %d" % i for i in range(LIMIT)]), LIMIT)
            socks.pop().close()
            self.assertTrue(wait_for(lambda: lab.stats()["connections"] < LIMIT, 10))
            with lab.connect("echo.test", 7) as s:
                self.assertEqual(self.said([s], [b"room"]), 1)
        finally:
            for s in socks:
                s.close()


if __name__ == "__main__":
    unittest.main()

"""The network's rules as a user and a hostile guest meet them (issue 3; ask mode and log pane of issue 5): one machine,
servers on the host's loopback under mapped names."""
import fcntl
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import SBX, Home, finish, run, wait_for, within
from tmuxdrive import Terminal


class Server(http.server.ThreadingHTTPServer):
    """Answers "hello", and drips on /slow; counts its connections."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            if self.path == "/slow":
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    for _ in range(6000):
                        self.wfile.write(b".")
                        time.sleep(0.1)
                except OSError:
                    pass
                return
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"hello\n")

        do_POST = do_GET

        def log_message(self, *args):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.port = self.server_address[1]
        self.accepted = 0
        self.daemon_threads = True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, address):
        pass  # a client that was cut off

    def process_request(self, request, address):
        self.accepted += 1
        super().process_request(request, address)


class Machine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        cls.server = Server()
        h.sbx("config", "set", "net.map", ",".join(f"{n}.test:80=127.0.0.1:{cls.server.port}" for n in
                                                   ("one", "two", "asked", "late", "paths", "once", "keep", "ever", "row", "pair", "killed", "ended", "rows", "denied")))
        h.sbx("policy", "set-default", "locked-down")
        h.sbx("create", "--name", "box", "--cpus", "1", "--memory", "1024", "shell", str(h.ws))
        h.sbx("start", "box")

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.h.close()

    def curl(self, url, *more, seconds=600):
        r = self.h.run("exec", "box", "curl", "-sS", "--max-time", str(seconds), *more, url)
        return r.returncode, r.stdout.decode()

    def becomes(self, url, answered=True):
        self.assertTrue(wait_for(lambda: (self.curl(url)[1] == "hello\n") == answered, step=0.2), (url, answered))

    def held(self, host, seen):
        """A request that waits for an answer, when seen() says that somebody was asked. Who could answer may not be known yet."""
        while True:
            got = subprocess.Popen([SBX, "exec", "box", "curl", "-sS", "--max-time", "150", f"http://{host}/"], env=self.h.env,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            self.addCleanup(got.communicate)
            self.addCleanup(got.kill)
            self.assertTrue(wait_for(lambda: seen() or got.poll() is not None), host)
            if got.poll() is None:
                return got
            time.sleep(0.2)

    def raw(self, **match):
        rows = json.loads(self.h.sbx("policy", "log", "box", "--raw", "--json"))
        return [r for r in rows if all(r[k] == v for k, v in match.items())]

    def test_denied_readably_then_allowed(self):
        h = self.h
        code, out = self.curl("http://one.test/")
        self.assertIn("sbx policy allow network box one.test", out)
        self.assertEqual(self.server.accepted, 0 if not self.raw(verdict="allow") else self.server.accepted)
        h.sbx("policy", "allow", "network", "box", "one.test")
        self.becomes("http://one.test/")
        h.sbx("policy", "disable", "box", "one.test")
        self.becomes("http://one.test/", False)

    def test_a_rule_that_changes_cuts_what_is_open(self):
        h = self.h
        h.sbx("policy", "allow", "network", "box", "two.test")
        self.becomes("http://two.test/")
        p = subprocess.Popen([SBX, "exec", "box", "curl", "-sS", "-N", "--max-time", "400", "http://two.test/slow"], env=h.env,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.assertEqual(p.stdout.read(3), b"...")
        h.sbx("policy", "deny", "network", "box", "two.test")
        finish(p, 200)  # long before it would end by itself
        self.assertTrue(wait_for(lambda: self.raw(host="two.test", kind="cut")))

    def test_an_expired_rule_is_over(self):
        for seconds in (3, 15, 60):  # a machine that stalls is too late for a short one
            self.h.sbx("policy", "allow", "network", "box", "ever.test", "--for", f"{seconds}s")
            if within(seconds, lambda: self.curl("http://ever.test/") == (0, "hello\n")):
                break
        else:
            self.fail("it was never in force")
        self.becomes("http://ever.test/", False)

    def test_one_path_of_a_host(self):
        h = self.h
        h.sbx("policy", "allow", "network", "box", "GET paths.test/open")
        self.becomes("http://paths.test/open/first")
        self.assertEqual(self.curl("http://paths.test/open/x"), (0, "hello\n"))
        for url, more in (("http://paths.test/shut", ()), ("http://paths.test/open/../shut", ("--path-as-is",)), ("http://paths.test/open", ("-d", "x"))):
            self.assertNotEqual(self.curl(url, *more)[1], "hello\n", url)
        rows = self.raw(host="paths.test", method="GET", path="/open/x")
        self.assertEqual([r["verdict"] for r in rows], ["allow"])
        text = h.sbx("policy", "log", "box", "--raw")
        self.assertIn("GET /open/x", text)

    def test_ask_without_anybody_is_no(self):
        self.h.sbx("policy", "ask", "on", "box")
        self.assertTrue(wait_for(lambda: self.curl("http://asked.test/")[1] != "hello\n" and self.raw(host="asked.test", reason="nobody was there to be asked")))
        at_once = lambda: sum(r["count"] for r in self.raw(host="asked.test", reason="nobody was there to be asked"))
        before = at_once()
        self.assertNotEqual(self.curl("http://asked.test/")[1], "hello\n")
        self.assertTrue(wait_for(lambda: at_once() > before))  # not after the minute that somebody would have to answer

    def asking(self, host):
        """Somebody follows the questions; a request waits. Returns both and the question."""
        h = self.h
        h.sbx("policy", "ask", "on", "box")
        watcher = subprocess.Popen([SBX, "policy", "ask", "ls", "box", "--follow", "--json"], env=h.env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.addCleanup(watcher.wait)
        self.addCleanup(watcher.kill)
        told = []

        def read():
            for line in watcher.stdout:
                told.append(json.loads(line))
        threading.Thread(target=read, daemon=True).start()
        question = lambda: next((q for q in told if q["op"] == "ask" and q["host"] == host), None)
        got = self.held(host, question)
        self.assertTrue(wait_for(question))
        return told, got, question()

    def test_asked_and_allowed_once(self):
        h = self.h
        told, got, q = self.asking("once.test")
        self.assertIn("once.test:80", h.sbx("policy", "ask", "ls"))
        h.sbx("policy", "ask", "allow", "box", str(q["ask"]))
        self.assertEqual(finish(got, 150)[0], b"hello\n")
        self.assertEqual(wait_for(lambda: [m["how"] for m in told if m["op"] == "asked" and m["ask"] == q["ask"]]), ["allowed"])
        self.assertEqual(h.run("policy", "check", "once.test:80", "--sandbox", "box").returncode, 4)  # no rule came of it
        self.assertEqual(h.run("policy", "ask", "allow", "box", str(q["ask"])).returncode, 3)

    def test_asked_and_allowed_for_good(self):
        h = self.h
        _, got, q = self.asking("keep.test")
        h.sbx("policy", "ask", "allow", "box", "keep.test", "--keep")
        self.assertEqual(finish(got, 150)[0], b"hello\n")
        self.assertEqual(h.run("policy", "check", "keep.test:80", "--sandbox", "box").returncode, 0)

    def test_asked_and_not_answered(self):
        self.h.sbx("config", "set", "net.ask_seconds", "5")
        self.addCleanup(self.h.sbx, "config", "set", "net.ask_seconds", "60")
        _, got, q = self.asking("late.test")
        self.assertNotEqual(finish(got, 150)[0], b"hello\n")
        self.assertTrue(wait_for(lambda: self.raw(host="late.test", reason="nobody answered when asked")))

    def test_allowed_once_beforehand(self):
        h = self.h
        h.sbx("policy", "ask", "off", "box")
        h.sbx("policy", "allow", "network", "box", "row.test", "--once")
        self.assertEqual(self.curl("http://row.test/"), (0, "hello\n"))
        self.assertNotEqual(self.curl("http://row.test/")[1], "hello\n")

    def test_threat_17_services_of_the_host_by_their_own_rule_alone(self):
        h = self.h
        other = Server()
        self.addCleanup(other.shutdown)
        h.sbx("policy", "allow", "network", "box", f"localhost:{self.server.port}")
        self.becomes(f"http://host.docker.internal:{self.server.port}/")
        for host in ("host.docker.internal", "host.sbx.internal", "localhost.localdomain", "127.0.0.1.nip.io"):
            self.assertNotEqual(self.curl(f"http://{host}:{other.port}/", seconds=8)[1], "hello\n", host)
        addresses = [a for a in subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split() if "." in a]
        for a in addresses + ["10.0.2.2", "192.168.0.1", "169.254.169.254"]:
            self.assertNotEqual(self.curl(f"http://{a}:{other.port}/", seconds=8)[1], "hello\n", a)
        self.assertEqual(other.accepted, 0)

    def test_threat_100_a_broken_policy_denies_and_says_so(self):
        h = self.h
        path = h.dir / "config/sbx/policy.json"
        good = path.read_text()
        try:
            for bad in ("", good[: len(good) // 2], good.replace('"version"', '"versoin"')):
                path.write_text(bad)
                self.becomes(f"http://host.docker.internal:{self.server.port}/", False)
                r = h.run("policy", "ls")
                self.assertEqual(r.returncode, 1)
                self.assertIn(b"everything is denied", r.stderr)
                doctor = json.loads(h.run("doctor", "--json").stdout)
                self.assertTrue([c for c in doctor if c["result"] == "broken" and "policy" in c["check"]], doctor)
                self.assertTrue(wait_for(lambda: "policy.json" in self.reason()), self.reason())
            self.assertTrue(wait_for(lambda: self.raw(kind="policy")))
        finally:
            path.write_text(good)
        self.assertTrue(wait_for(lambda: self.reason() == "", 5))
        own = h.dir / "data/sbx/sandboxes/box/policy.json"  # one of a single sandbox
        good = own.read_text() if own.exists() else '{"version": 1}'
        try:
            own.write_text("{")
            self.assertIn("network policy of box", [c["check"] for c in json.loads(h.run("doctor", "--json").stdout) if c["result"] == "broken"])
        finally:
            own.write_text(good)
        self.assertTrue(wait_for(lambda: self.reason() == ""))

    def reason(self):
        return json.loads(self.h.sbx("ls", "--json"))[0]["reason"]

    def test_threat_99_the_log_is_unbroken(self):
        h = self.h
        self.assertIn("unbroken", h.sbx("policy", "log", "--verify"))
        self.assertNotEqual(self.curl("http://before.test/")[1], "hello\n")
        last = 0
        while last != (last := self.raw()[-1]["seq"]):  # what was counted is written within a second
            time.sleep(1.5)
        log = h.dir / "data/sbx/sandboxes/box/log.db"
        log.rename(log.with_name("elsewhere"))  # the running sandbox goes on, with another, and everybody is told
        self.assertTrue(wait_for(lambda: "the log was removed while the sandbox ran" in self.reason(), 5))
        self.assertIn("the log was removed", h.sbx("inspect", "box"))
        self.assertNotEqual(self.curl("http://gone.test/")[1], "hello\n")
        self.assertTrue(wait_for(lambda: self.raw(host="gone.test", verdict="deny"), 5))
        self.assertEqual([(r["seq"], r["kind"]) for r in self.raw()[:1]], [(last + 1, "log")])
        r = h.run("policy", "log", "--verify")
        self.assertEqual((r.returncode, b"BROKEN: row" in r.stdout), (1, True))
        self.assertTrue([c for c in json.loads(h.run("doctor", "--json").stdout) if c["check"] == "network log of box"])
        # The same while it is stopped: each look tells, and so does the next start.
        h.sbx("stop", "box")
        self.assertNotIn("network log", h.sbx("ls"))
        for rules in (h.dir / "config/sbx/policy.json", log.with_name("policy.json")):
            good = rules.read_text() if rules.exists() else None
            rules.write_text("{")
            self.assertIn("stopped: everything is denied to it: ", h.sbx("ls"))
            rules.write_text(good) if good else rules.unlink()
        self.assertNotIn("denied", h.sbx("ls"))
        for f in log.parent.glob("log.db*"):
            f.unlink()
        gone = "the log was removed"
        self.assertIn(f"network log: {gone}: its rows up to ", h.sbx("ls"))
        self.assertIn(gone, [c["detail"].partition(":")[0] for c in json.loads(h.run("doctor", "--json").stdout) if c["check"] == "network log of box"])
        self.assertIn(f"box: BROKEN: {gone}", h.run("policy", "log", "--verify").stdout.decode())
        (log.parent / "chain.head").unlink()  # and where it ended
        self.assertIn("with the record of where it ended", h.sbx("ls"))
        h.sbx("start", "box")
        self.assertTrue(wait_for(lambda: gone in self.reason(), 5))
        self.assertEqual([(r["seq"], r["kind"]) for r in self.raw()[:1]], [(1, "log")])

    @unittest.skipUnless(shutil.which("tmux"), "tmux is missing")
    def test_the_dashboard_shows_rows_and_answers(self):
        h = self.h
        h.sbx("policy", "ask", "on", "box")
        sock = f"sbx-policy-{os.getpid()}"
        env = dict(h.env, TERM="xterm-256color")

        def tmux(*args):
            return run(["tmux", "-L", sock, *args], 60, env=env, text=True).stdout

        def screen():
            return tmux("capture-pane", "-p")

        self.addCleanup(lambda: tmux("kill-server"))
        tmux("-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "40", SBX)
        self.assertTrue(wait_for(lambda: "Network: box" in screen()), screen())
        got = self.held("asked.test", lambda: "box wants to reach" in screen())
        self.assertTrue(wait_for(lambda: "box wants to reach" in screen()), screen())
        tmux("send-keys", "o")  # too soon: it may have been meant for a terminal
        self.assertIsNone(got.poll())
        time.sleep(1.5)
        if "box wants to reach" in screen():  # it was not too soon where the machine stalled
            tmux("send-keys", "o")
        self.assertEqual(finish(got, 150)[0], b"hello\n")
        self.assertTrue(wait_for(lambda: "allowed when asked" in screen(), 10), screen())
        # A row of the log becomes a rule while the agent tries again.
        h.sbx("policy", "ask", "off", "box")
        self.assertTrue(wait_for(lambda: self.curl("http://ever.test/")[1] != "hello\n" and self.raw(host="ever.test", verdict="deny")))
        for _ in range(4):  # to the log pane
            tmux("send-keys", "Tab")
            time.sleep(0.3)
            tmux("send-keys", "/")
            if within(10, lambda: "words, host:x" in screen()):
                break
            tmux("send-keys", "Escape")
            time.sleep(0.3)
        tmux("send-keys", "-l", "ever verdict:deny")
        self.assertTrue(wait_for(lambda: "ever.test:80" in screen(), 10), screen())
        tmux("send-keys", "Enter")
        tmux("send-keys", "a")
        self.assertTrue(wait_for(lambda: "sbx policy allow network box ever.test" in screen(), 10), screen())
        tmux("send-keys", "Enter")
        self.assertTrue(wait_for(lambda: "in force" in screen(), 10), screen())
        self.assertTrue(wait_for(lambda: self.curl("http://ever.test/")[1] == "hello\n", 5), "it is not in force")

    @unittest.skipUnless(shutil.which("tmux"), "tmux is missing")
    def test_what_rows_can_become(self):
        h = self.h
        h.sbx("policy", "ask", "off", "box")
        h.sbx("policy", "allow", "network", "box", "GET rows.test/open")
        h.sbx("policy", "deny", "network", "-g", "denied.test")
        self.becomes("http://rows.test/open")
        self.h.run("exec", "box", "sh", "-c", "curl -s http://rows.test/x,evil.test; curl -s http://denied.test; ping -c1 -W1 8.8.8.8")

        def rules():
            return {(r["action"], r["rule"], r["scope"]) for r in json.loads(h.sbx("policy", "ls", "box", "--json"))["rules"]}

        with Terminal(h.env, cwd=h.ws, cols=110, rows=34) as t:
            t.wait("Network: box")
            t.click("Network:")
            t.keys("z")

            def row(words):
                t.keys("Escape", "/", "C-u")
                t.type(words)
                t.keys("Enter")
                t.wait("filter " + words)
                t.wait(" [1-9][0-9]* +▼ follow| [1-9][0-9]* +PAUSED")
                t.keys("a")

            # What the guest chose for a path lets nothing else in.
            row("rows.test evil")
            t.wait("Where to")
            t.keys("Right", "Right")
            t.wait(r"GET rows.test/x\\,evil.test")
            with open(h.dir / "data/sbx/sandboxes/box/policy.json.lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another command has the rules: the form waits, and sends nothing twice
                t.keys("Enter")
                t.wait("at work")
                t.keys("Enter", "Right", "Down")
                t.wait(r"GET rows.test/x\\,evil.test")
            t.wait("in force: allow")
            self.assertEqual([r[1] for r in rules() if r[2] == "box"].count("GET rows.test/x,evil.test"), 1)
            self.assertIn(("allow", "GET rows.test/x,evil.test", "box"), rules())
            self.assertEqual(h.run("policy", "check", "evil.test", "--sandbox", "box").returncode, 4)
            self.assertTrue(wait_for(lambda: self.curl("http://rows.test/x,evil.test")[1] == "hello\n", 3))
            # What no rule changes is said, not offered.
            row("icmp")
            t.wait("UDP, ICMP and the like go nowhere")
            # A deny for all wins, and is not taken back by a mere Enter.
            row("denied.test")
            t.wait(r"\[ \] take back, for all sandboxes: deny denied.test")
            t.wait("It stays denied")
            t.keys("F1")
            t.wait("In the form for a rule from the log")
            t.keys("Escape")
            t.wait("In the form for a rule", gone=True)
            t.wait("How long.*for good")
            x, y = next((line.find("for good"), y) for y, line in enumerate(t.lines()) if "How long" in line)
            t.mouse(x, y)  # what is chosen, by a click: the next; at the arrow before it: the one before
            t.wait("denied.test +for box, the next connection")
            t.mouse(x - 2, y)
            t.wait("denied.test +for box, for good")
            t.mouse(x, y, button=64)  # from "how long" to "for whom"
            t.keys("Right")
            t.wait("denied.test +for all sandboxes, for good")
            t.keys("Left")
            t.wait("denied.test +for box, for good")
            t.keys("Enter")
            t.wait("is still denied, by deny denied.test")
            self.assertIn(("deny", "denied.test", "all"), rules())
            row("denied.test")
            t.wait("take back")
            t.keys("Down", "Down", "Down", "Space")
            t.wait("sbx policy rm -g")
            t.keys("Enter")
            t.wait("in force: allow denied.test +for box, for good *\n")
            self.assertNotIn(("deny", "denied.test", "all"), rules())
            self.assertTrue(wait_for(lambda: self.curl("http://denied.test/")[1] == "hello\n", 3))

    @unittest.skipUnless(shutil.which("tmux"), "tmux is missing")
    def test_y_questions_end_for_all_who_were_asked(self):
        h = self.h
        h.sbx("policy", "ask", "on", "box")
        h.sbx("config", "set", "net.ask_seconds", "120")
        self.addCleanup(h.sbx, "config", "unset", "net.ask_seconds")

        def ask(host):
            return self.held(host, lambda: one.has(f"box wants to reach\\s.*\\n.* {host}:80"))

        with Terminal(h.env, cwd=h.ws, cols=100, rows=30) as one, Terminal(h.env, cwd=h.ws, cols=80, rows=24) as other:
            one.wait("Network: box")
            other.wait("Network: box")
            got = ask("pair.test")
            one.wait("box wants to reach")
            other.wait("pair.test:80")
            time.sleep(1.2)
            one.keys("d")
            self.assertNotEqual(finish(got, 150)[0], b"hello\n")
            one.wait("without asking again for five minutes")
            other.wait("wants to reach", gone=True)
            other.wait("pair.test:80: denied elsewhere")
            # Who could answer is killed: the last one's end denies at once.
            got = ask("killed.test")
            one.wait("killed.test:80")
            other.wait("killed.test:80")
            os.kill(one.pid(), signal.SIGKILL)
            time.sleep(0.5)
            self.assertIsNone(got.poll())
            os.kill(other.pid(), signal.SIGKILL)
            # It takes none of the two minutes that somebody would have to answer.
            self.assertTrue(within(110, lambda: got.poll() is not None))
            self.assertNotEqual(finish(got, 150)[0], b"hello\n")
        with Terminal(h.env, cwd=h.ws, cols=100, rows=30) as one:  # the sandbox ends while it waits
            one.wait("Network: box")
            ask("ended.test")
            one.wait("wants to reach")
            # What was counted last is in the log however soon the end comes.
            refused = lambda: sum(r["count"] for r in self.raw(kind="refused"))
            before = refused()
            h.sbx("exec", "box", "python3", "-c", "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                  "for i in range(240):\n try: s.sendto(b'x', ('192.0.2.%d' % (70 + i % 60), 9))\n except OSError: pass")
            h.sbx("stop", "box", "--timeout", "3")
            one.wait("wants to reach", gone=True)
            one.wait("stopped")
            self.assertTrue(self.raw(host="ended.test", verdict="deny"))
            self.assertGreaterEqual(refused() - before, 240)


if __name__ == "__main__":
    unittest.main()

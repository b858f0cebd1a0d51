"""The races of ask mode (issues 3 and 5), without a machine: real clients are held by `sbx net` and `sbx broker`, and the
test stands where the supervisor and its dashboards would; and the real dashboard, where the test stands for sandboxes."""
import http.server
import pathlib
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from fakebox import FakeBox
from harness import Home, wait_for
from netns import Lab, needs_lab
from tmuxdrive import Terminal

LIMIT_S = 120
SHORT_S = 5
NAMES = ("twice", "again", "gone", "nobody", "ruled", "refused", "off", "next")


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(self.headers["Host"])
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"hello\n")

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.seen = []

    def handle_error(self, *args):
        pass  # a client that gave up


class AskLab(Lab):
    def __init__(self, **more):
        self.notes = []
        super().__init__(**more)

    def heard(self, message):
        """In place of dashboards: what the broker tells is kept."""
        super().heard(message)
        if message["op"] != "reply":
            self.notes.append(message)

    def tell(self, **msg):
        self.links["broker"].ctrl(**msg)

    def question(self, host):
        """The open question about a host."""
        def find():
            over = {n["ask"] for n in self.notes if n["op"] == "asked"}
            return next((n for n in self.notes if n["op"] == "ask" and n["host"] == host and n["ask"] not in over), None)
        q = wait_for(find, step=0.02)
        if not q:
            raise AssertionError(f"nobody was asked about {host}: {self.notes[-5:]}")
        return q

    def how(self, q):
        return wait_for(lambda: next((n["how"] for n in self.notes if n["op"] == "asked" and n["ask"] == q["ask"]), None), step=0.02)

    def answer(self, ident, q, allow):
        self.tell(op="answer", id=ident, ask=q["ask"], allow=allow)

    def reply(self, ident):
        return wait_for(lambda: self.replied.get(ident), step=0.02)


@needs_lab
class Races(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.lab = lab = AskLab(map=[f"{n}.ask.test:80=127.0.0.1:{cls.server.server_port}" for n in NAMES],
                               settings=[("net.ask_seconds", str(LIMIT_S))])
        lab.h.sbx("policy", "ask", "on", "-g")
        lab.tell(op="askers", count=2)
        lab.in_force()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()
        cls.lab.close()

    @classmethod
    def curl(cls, host):
        """In the guest's network, as a program there that waits."""
        done = []
        t = threading.Thread(target=lambda: done.append(cls.lab.curl(f"http://{host}/", "-4", seconds=LIMIT_S + 60)[1:]), daemon=True)
        t.start()
        return t, done

    def ended(self, curl):
        curl[0].join(LIMIT_S + 60)
        self.assertFalse(curl[0].is_alive(), "it is held still")
        return curl[1][0]

    def test_1_two_answers_at_once_are_the_first(self):
        for host, allow, want in (("twice.ask.test", True, (200, b"hello\n")), ("again.ask.test", False, None)):
            got = self.curl(host)
            q = self.lab.question(host)
            self.lab.answer(10 + allow, q, allow)
            self.lab.answer(20 + allow, q, not allow)
            code, body = self.ended(got)
            self.assertEqual((code, body) if want else code, want or 403)
            self.assertTrue(self.lab.reply(10 + allow)["ok"])
            second = self.lab.reply(20 + allow)
            self.assertFalse(second["ok"])
            self.assertIn("not open any more", second["error"])
            self.assertEqual([n["how"] for n in self.lab.notes if n["op"] == "asked" and n["ask"] == q["ask"]], ["allowed" if allow else "denied"])
        self.assertNotIn("again.ask.test", self.server.seen)

    def test_2_who_gave_up_and_comes_again_is_the_same_question(self):
        p = self.lab.popen("curl", "-4", "-s", "http://gone.ask.test/")
        q = self.lab.question("gone.ask.test")
        p.kill()
        p.wait()
        again = self.curl("gone.ask.test")
        self.assertTrue(wait_for(lambda: [n for n in self.lab.notes if n["op"] == "ask" and n["ask"] == q["ask"] and n["count"] > 1], step=0.02))
        self.lab.answer(30, q, True)
        self.assertTrue(self.lab.reply(30)["ok"])
        self.assertEqual(self.ended(again)[0], 200)
        self.assertEqual(self.server.seen.count("gone.ask.test"), 1)
        again = self.curl("gone.ask.test")  # it was for once
        q = self.lab.question("gone.ask.test")
        self.lab.answer(31, q, False)
        self.assertEqual(self.ended(again)[0], 403)

    def test_3_the_last_who_could_answer_goes_away(self):
        got = self.curl("nobody.ask.test")
        q = self.lab.question("nobody.ask.test")
        self.lab.tell(op="askers", count=1)
        self.lab.settled()
        time.sleep(0.3)
        self.assertTrue(got[0].is_alive())  # another is there still
        began = time.monotonic()
        self.lab.tell(op="askers", count=0)
        self.assertEqual(self.ended(got)[0], 403)
        self.assertLess(time.monotonic() - began, LIMIT_S - 10)  # it does not wait for one who may come
        self.assertEqual(self.lab.how(q), "unanswered")
        self.assertEqual(self.ended(self.curl("nobody.ask.test"))[0], 403)  # and with nobody there it is denied at once
        self.assertTrue(self.lab.rows(host="nobody.ask.test", reason="nobody was there to be asked"))
        self.assertNotIn("nobody.ask.test", self.server.seen)
        self.lab.tell(op="askers", count=1)

    def test_4_rules_that_change_decide_what_is_held(self):
        h = self.lab.h
        for host, verb, code in (("ruled.ask.test", "allow", 200), ("refused.ask.test", "deny", 403)):
            got = self.curl(host)
            q = self.lab.question(host)
            h.sbx("policy", verb, "network", "-g", host)
            self.assertEqual(self.ended(got)[0], code)
            self.assertEqual(self.lab.how(q), "ruled")
            self.lab.answer(40, q, True)
            self.assertFalse(self.lab.reply(40)["ok"])
            del self.lab.replied[40]
        self.assertNotIn("refused.ask.test", self.server.seen)
        got = self.curl("off.ask.test")
        q = self.lab.question("off.ask.test")
        h.sbx("policy", "ask", "off", "-g")
        self.assertEqual(self.ended(got)[0], 403)
        self.assertEqual(self.lab.how(q), "ruled")
        self.assertNotIn("off.ask.test", self.server.seen)
        h.sbx("policy", "ask", "on", "-g")
        self.lab.in_force()

    def test_5_metadata_is_no_question(self):
        before = len(self.lab.notes)
        self.assertNotEqual(self.lab.curl("http://169.254.169.254/latest")[1], 200)
        self.assertEqual([n for n in self.lab.notes[before:] if n["op"] == "ask"], [])

    def test_9_an_answer_after_the_limit_opens_nothing(self):
        self.lab.h.sbx("config", "set", "net.ask_seconds", SHORT_S)
        self.lab.in_force()
        got = self.curl("next.ask.test")
        q = self.lab.question("next.ask.test")
        self.assertEqual((self.ended(got)[0], self.lab.how(q)), (403, "unanswered"))
        self.lab.answer(50, q, True)
        self.assertFalse(self.lab.reply(50)["ok"])
        self.assertEqual(self.server.seen.count("next.ask.test"), 0)
        self.assertTrue(self.lab.rows(host="next.ask.test", reason="nobody answered when asked"))
        self.lab.h.sbx("config", "set", "net.ask_seconds", LIMIT_S)
        self.lab.in_force()
        again = self.curl("next.ask.test")
        self.assertNotEqual(self.lab.question("next.ask.test")["ask"], q["ask"])  # a question of its own
        self.lab.answer(51, self.lab.question("next.ask.test"), False)
        self.assertEqual(self.ended(again)[0], 403)


class Dashboards(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = Home()
        cls.ape, cls.bee = (FakeBox(cls.h, n) for n in ("ape", "bee"))

    @classmethod
    def tearDownClass(cls):
        for box in (cls.ape, cls.bee):
            box.close()
        cls.h.close()

    def setUp(self):
        for box in (self.ape, self.bee):
            box.asks.clear()
            box.answers.clear()
            box.links.clear()
            box.refuse = None

    def terminal(self, **more):
        t = Terminal(self.h.env, cwd=self.h.ws, **more)
        self.addCleanup(t.close)
        self.assertTrue(wait_for(lambda: self.ape.links and self.bee.links))
        return t

    def test_a_key_for_one_question_is_no_answer_to_the_next(self):
        t = self.terminal(cols=80, rows=24)
        self.ape.ask(1, "first.example.com")
        self.bee.ask(1, "second.example.com")  # each sandbox counts its own
        text = t.wait("2 questions")
        t.wait("ape  first.example.com:443")
        t.wait("bee  second.example.com:443")
        self.assertRegex(text, "o once +s this sandbox +g all sandboxes +d deny +D deny for good")
        time.sleep(1.2)
        t.type("ooo")  # as a key that is held down too long
        self.assertTrue(wait_for(lambda: self.ape.answers))
        t.wait("bee wants to reach")
        time.sleep(0.5)
        self.assertEqual((self.ape.answers, self.bee.answers), ([(1, True)], []))
        time.sleep(0.8)
        t.keys("d")
        self.assertTrue(wait_for(lambda: self.bee.answers))
        self.assertEqual(self.bee.answers, [(1, False)])
        t.wait("wants to reach", gone=True)

    def test_what_is_looked_at_stays_when_another_goes(self):
        t = self.terminal(cols=80, rows=24)
        for i in range(1, 13):
            self.ape.ask(i, f"host{i}.example.com")
        t.wait("12 questions")
        time.sleep(1)
        for i in range(2, 8):
            t.keys("Down")
            t.wait(f"ape wants to reach\\s.*\\n.* host{i}.example.com:443")
        t.wait("ape  host7")
        list_row = next(y for y, text in enumerate(t.lines()) if "ape  host" in text)
        wheel = lambda button: t.mouse(20, list_row, button)
        for step, host in ((lambda: t.keys("End"), 12), (lambda: t.keys("Tab"), 1), (lambda: t.keys("BTab"), 12), (lambda: t.keys("Home"), 1),
                           (lambda: t.keys("NPage"), 8), (lambda: t.keys("PPage"), 1), (lambda: wheel(65), 2), (lambda: wheel(64), 1),
                           (lambda: t.click("host7"), 7)):
            step()
            t.wait(f"ape wants to reach\\s.*\\n.* host{host}.example.com:443")
        t.wait("Tab next question  Esc later")
        t.keys("F1")
        t.wait("question before")
        t.keys("Escape")
        t.wait("question before", gone=True)
        self.assertEqual(self.ape.answers, [])
        self.ape.end(2, "allowed")
        self.ape.end(12, "unanswered")
        t.wait("10 questions")
        t.wait("ape wants to reach\\s.*\\n.* host7.example.com:443")
        t.wait("nobody answered in time: host12.example.com:443|host2.example.com:443: allowed elsewhere")
        t.keys("Escape")
        t.wait("wants to reach", gone=True)
        self.ape.ask(20, "back.example.com")
        t.wait("11 questions")

    def test_an_answer_that_fails_can_be_given_again(self):
        t = self.terminal(cols=100, rows=30)
        self.ape.refuse = "the broker of ape does not answer"
        self.ape.ask(1, "slow.example.com", count=2)
        t.wait("2 attempts wait")
        t.wait("Esc later")
        self.assertFalse(t.has("next question"))  # there is none
        time.sleep(1.2)
        t.keys("o")
        t.wait("the broker of ape does not answer")
        t.wait("ape wants to reach")
        self.ape.refuse = None
        t.keys("o")
        t.wait("wants to reach", gone=True)
        self.assertEqual(self.ape.answers, [(1, True), (1, True)])
        self.ape.ask(2, "later.example.com")
        t.wait("later.example.com")
        t.keys("C-c", pause=2)  # while the question takes nothing yet, that goes nowhere
        t.wait("wants to reach")
        t.keys("C-c")
        t.wait("1 open question: it is denied")
        t.wait("wants to reach", gone=True)
        self.assertEqual(len(self.ape.answers), 2)

    def test_the_sandbox_ends(self):
        t = self.terminal(cols=100, rows=30)
        gone = FakeBox(self.h, "gone")
        self.addCleanup(gone.close)
        self.assertTrue(wait_for(lambda: gone.links))
        gone.ask(1, "held.example.com")
        t.wait("gone wants to reach")
        gone.close()
        t.wait("wants to reach", gone=True)
        t.wait("gone +stopped")


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Threat 89: what a guest prints makes the user's terminal answer nothing, and changes nothing of it.

The terminal here is a fake one, as bad as can be: it answers whatever is not in a short list of sequences that no terminal
answers.  Each control sequence of xterm's document that asks for something, and each of other terminals', is printed by a
program in a sandbox, through `sbx attach` and through the dashboard."""
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import struct
import termios
import time
import unittest

from harness import SBX, Home, wait_for

ANSWER = b"\x1bP!|LEAK\x1b\\"

SEQUENCE = re.compile(
    rb"\x1b\[(?P<csi>[<-?]*[0-9;:]*[ -/]*[@-~])|\x1b\](?P<osc>[^\x07\x1b]*)(?:\x07|\x1b\\)?|\x1b(?P<string>[PX^_k])[^\x1b]*(?:\x1b\\)?"
    rb"|\x1b(?P<esc>[ -/]*[0-~])|(?P<enq>\x05)", re.S)
HARMLESS = re.compile(
    rb"[0-9;]*[A-HJKLMPSTXZ@`adefgr]|[0-9;:]*m|[su]|(4|20|34)?[hl]|[0-9]* q|!p|\?[0-9;]+[hl]|[0-9]*b")
HARMLESS_OSC = re.compile(rb"[02];.*|9;[^0-9?].*|8;;((https?|mailto):[^\x00-\x20]*)?", re.S)


def asks(data):
    """The sequences of an output that this terminal answers."""
    found = []
    for m in SEQUENCE.finditer(data):
        if m["csi"] is not None:
            good = HARMLESS.fullmatch(m["csi"])
        elif m["osc"] is not None:
            good = HARMLESS_OSC.fullmatch(m["osc"])
        elif m["esc"] is not None:
            good = re.fullmatch(rb"[78DEMH=>\\]|[()][B0]|#8", m["esc"])
        else:
            good = False
        if not good:
            found.append(m.group(0))
    if re.search("[\x80-\x9f]", data.decode(errors="ignore")):
        found.append(b"C1")
    return found


def queries():
    csi, osc, dcs, other = [], [], [], []
    for prefix in ("", ">", "=", "?"):
        csi += [f"{prefix}c", f"{prefix}0c", f"{prefix}1c"]  # DA1, DA2, DA3
    csi += [f"{n}n" for n in (5, 6, 7, 8)] + [f"?{n}n" for n in (6, 15, 25, 26, 53, 55, 56, 62, 63, 75, 85, 996, 998)]  # DSR
    csi += ["x", "0x", "1x"]  # DECREQTPARM
    csi += [f"{n}t" for n in (11, 13, 14, 15, 16, 18, 19, 20, 21)] + ["13;2t", "14;2t", "15;2t", "21;0t"]  # reports of the window
    csi += [f"{n}t" for n in (1, 2, 5, 6, 7, 9, 10)] + ["3;0;0t", "4;10;10t", "8;10;10t", "9;1t", "22;0t", "23;0t", "24t"]  # its changes
    csi += [f"{n}$p" for n in (2, 4, 12, 20)] + [f"?{n}$p" for n in (1, 3, 7, 25, 1000, 1049, 2004, 2026, 2027, 2031, 2048, 5522)]  # DECRQM
    csi += ["1$w", "2$w", "2$u", "1$u", "2;1$u", "2;2$u", "&u", "&w"]  # DECRQPSR, DECRQTSR, DECRQUPSS, DECRQDE
    csi += ["1;1;1;1;5;5*y", "1;0;1;1;24;80*y", "1;1;24;80#|", "#|", "#R", "#S", "?63;1n", "?62n"]  # DECRQCRA, XTREPORTSGR, XTREPORTCOLORS
    csi += ["'|", "1'|", "1;1'z", "1'{", "'w"]  # DEC's locator
    csi += [">q", ">0q", ">1q", ">p", ">1p", "?1;1;0S", "?2;1;0S", "?3;1S", "?4m", "?0m", "?1f", ">4;2m", ">4n", ">1t", ">0T", "#P", "#Q"]
    csi += ["?u", ">1u", "=1;1u", "<1u", "i", "4i", "5i", "?1i", "?5i", "?10i", "0+z", "1;1+p", "?1;0;0'|", "2+T"]  # kitty, media copy
    osc += [f"{n};?" for n in (*range(10, 20), 50, 60, 61, 104, 110, 111, 112, 176, 21, 22, 3, 66, 72, 1337, 6, 7, 5522)]
    osc += ["4;0;?", "4;1;?;2;?", "4;255;?", "4;256;?", "5;0;?", "5;1;?", "6;0;?", "13;?", "12;?;?", "10;?;?;?"]  # colours
    osc += ["52;c;?", "52;;?", "52;p;?", "52;s0;?", "52;c;ZXZpbA==", "52;;ZXZpbA==", "52;c;!", "52;c;ZX?A"]  # the clipboard
    osc += ["21;foreground=?", "22;?__current__", "22;?", "3;?XTERM", "3;name=value", "50;#+1", "50;?", "51;x", "60;?", "l", "L;icon", "I/etc/passwd"]
    osc += ["1337;ReportCellSize", "1337;ReportVariable=c2Vzc2lvbg==", "1337;RequestUpload=format=tgz", "1337;Copy=;ZXZpbA==",
            "1337;CopyToClipboard=", "1337;File=inline=1:AAAA", "1337;SetUserVar=a=Yg==", "1337;OpenURL=:aHR0cDovL2E="]
    osc += ["4;1;rgb:00/00/00", "10;#000000", "11;#ffffff", "104", "110", "17;#010203", "9;4;1;50", "9;2;message", "9;3;title", "9;9;/", "9;12",
            "8;;file:///etc/passwd", "8;;javascript:alert(1)", "8;id=a;ssh://h", "777;precmd", "99;i=1:p=?;", "99;p=?;", "99;i=1:a=report;x",
            "1;icon", "7;file://h/", "30001", "30101", "697;x", "701;?", "702;?", "10;?", "708;?", "720;1", "133;A", "633;P"]
    dcs += ["$q" + s for s in ("m", "r", "s", "t", '"p', '"q', " q", "$}", "$~", "*x", "*|", ",|", "zz", "")]  # DECRQSS
    dcs += ["+q544e", "+q436f;524742", "+q6b75", "+q", "+p", "+p78746572", "=1s", "=2s", "1000p", "q#0~", "0;1|17/41", "1$t1", "2$t1;2",
            "{", "1;1!zAB", "0;0{@", "+Q;x", "$qm;1", "tmux;\x1b\x1b[c"]
    other += ["\x05", "\x1bZ", "\x1b[\x05c", "\x1b[1\x1b[c", "\x1b c", "\x1b F", "\x1b G", "\x1b%@\x1b%G", "\x1bl", "\x1bm", "\x1bn", "\x1b|", "\x1b6", "\x1bV", "\x1b`"]
    other += [f"\x1b_{s}\x1b\\" for s in ("Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA", "Ga=T,t=f,f=100;L2V0Yy9wYXNzd2Q=", "Ga=q,t=s;AA", "x", "+q", "25a1;q")]
    other += [f"\x1b^{s}\x1b\\" for s in ("x", "\x05")] + [f"\x1bX{s}\x1b\\" for s in ("x", "0c")] + ["\x1bktitle\x1b\\"]
    made = [f"\x1b[{s}" for s in csi]
    made += [f"\x1b]{s}{end}" for s in osc for end in ("\x07", "\x1b\\")]
    made += [f"\x1bP{s}\x1b\\" for s in dcs]
    made = [s.encode() for s in made + other]
    eight = [b"\x9b" + s.encode() for s in csi[:30]] + [b"\x9d" + s.encode() + b"\x9c" for s in osc[:30]] + [b"\x90$qm\x9c", b"\x9ac", b"\x9a"]
    return made, eight + [s.decode("latin-1").encode() for s in eight]


# What the filter says itself, from constants and the session's own size and cursor.
ANSWERS = re.compile(
    rb"\x1b\[0n|\x1b\[\?62;22c|\x1b\[>1;100;0c|\x1b\[\??[0-9]+;[0-9]+R|\x1b\[(4|6|8);[0-9]+;[0-9]+t|\x1b\](10|11|12|4;[0-9]+);rgb:[0-9a-f/]+\x1b\\"
    rb"|\x1bP0[$+]r\x1b\\|\x1b\[\??[0-9]+;[0-4]\$y|\x1b\[[IO]")


class Fake:
    """A terminal that answers all that can be answered."""

    def __init__(self, home, *argv):
        self.out, self.checked, self.leaks, self.watch = b"", 0, [], False
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(home.ws)
            os.execve(SBX, [SBX, *argv], {**home.env, "TERM": "xterm-256color", "COLORTERM": ""})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))

    def run(self, seconds, until=lambda: False):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            if not select.select([self.fd], [], [], 0.05)[0]:
                continue
            try:
                self.out += os.read(self.fd, 65536)
            except OSError:
                return
            if not self.watch:
                self.checked = len(self.out)
                continue
            # Whole sequences: the last one may still be under way.
            whole = max(self.checked, self.out.rfind(b"\x1b", self.checked))
            for s in asks(self.out[self.checked:whole]):
                self.leaks.append(s)
                os.write(self.fd, ANSWER)
            self.checked = whole

    def send(self, data):
        os.write(self.fd, data)

    def close(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        os.close(self.fd)


SCRIPT = r"""
rm -f /tmp/got /tmp/done
stty raw -echo
exec 3<&0
(python3 -c 'import os, select
wait = 120
while select.select([0], [], [], wait)[0]:
    os.write(1, os.read(0, 65536))
    wait = 4' <&3 > /tmp/got) &
cat /tmp/queries
wait
stty sane
printf '\033[!p\033[?1049l\033c'
touch /tmp/done
"""


class Threat89(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = Home()
        cls.home.sbx("run", "--detach", "--name", "box", "shell", ".", timeout=600)
        cls.asking, cls.eight = queries()
        for name, data in (("queries", b"".join(cls.asking + cls.eight)), ("q.sh", SCRIPT.encode())):
            cls.home.sbx("exec", "-i", "box", "sh", "-c", f"cat > /tmp/{name}", input=data)

    @classmethod
    def tearDownClass(cls):
        cls.home.close()

    def feed_through(self, t, ready):
        t.run(60, lambda: ready in t.out)
        t.run(1)
        t.watch = True
        self.home.sbx("exec", "box", "rm", "-f", "/tmp/done", "/tmp/got")
        t.send(b"sh /tmp/q.sh\r")
        for _ in range(200):  # and it reads all the while
            t.run(1)
            if self.home.run("exec", "box", "test", "-e", "/tmp/done").returncode == 0:
                break
        else:
            self.fail(t.out[-3000:])
        t.run(1)
        self.assertEqual(t.leaks, [])
        got = self.home.run("exec", "box", "cat", "/tmp/got").stdout
        self.assertNotIn(b"LEAK", got)
        self.assertNotIn(b"/etc/passwd", got)
        self.assertIn(b"\x1b[?62;22c", got)  # the questions were asked
        self.assertEqual(ANSWERS.sub(b"", got), b"")

    def test_threat_89_the_fake_terminal_answers_every_query(self):
        self.assertGreater(len(self.asking), 300)
        self.assertEqual([q for q in self.asking if not asks(q)], [])

    def test_threat_89_nothing_is_asked_through_attach(self):
        t = Fake(self.home, "attach", "box")
        self.addCleanup(t.close)
        self.feed_through(t, b"agent@box")
        self.assertNotIn(b"\x1b]52", t.out)

    def test_threat_89_nothing_is_asked_through_the_dashboard(self):
        t = Fake(self.home)
        self.addCleanup(t.close)
        t.run(60, lambda: b"[1 " in t.out)
        t.run(1)
        t.send(b"\r")
        self.feed_through(t, b"then:")
        self.assertNotIn(b"\x1b]52", t.out)

    def test_the_cursors_shape_comes_and_goes_with_the_session(self):
        """The user's terminal has it while the session has the keys: not in the help, not after leaving, nor suspended."""
        t = Fake(self.home)
        self.addCleanup(t.close)

        def sees(want, what):
            t.run(60, lambda: want in t.out)
            self.assertIn(want, t.out, what)
            t.out = b""

        sees(b"[1 ", "the session")
        t.run(1)
        t.out = b""
        t.send(b"\r")
        sees(b"then:", "attached")
        t.send(b"printf '\\033[4 q'\r")
        sees(b"\033[4 q", "set")
        for keys, back in ((b"\x1dd", b"\r"), (b"\x1d?", b"\033"), (b"\x1d[", b"q")):
            t.send(keys)
            sees(b"\033[0 q", keys)
            t.run(0.2)
            t.send(back)
            sees(b"\033[4 q", back)
        os.kill(t.pid, signal.SIGTSTP)
        sees(b"\033[0 q", "suspended")
        self.assertTrue(wait_for(lambda: pathlib.Path(f"/proc/{t.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"))
        os.kill(t.pid, signal.SIGCONT)
        sees(b"\033[4 q", "continued")
        t.send(b"printf '\\033[0 q'\r")
        sees(b"\033[0 q", "set back")

    def test_threat_89_the_clipboard_is_written_where_the_user_allows_it_and_never_read(self):
        line = rb"printf '\033]52;c;ZXZpbA==\a\033]52;c;?\a\033]52;c;ZX\\?A\a'; echo do''ne" + b"\r"
        self.addCleanup(self.home.sbx, "config", "set", "attach.clipboard", "[]")
        for allowed, argv in (("other", ("attach", "box")), ("box", ("attach", "box")), ("other", ()), ("box", ())):
            self.home.sbx("config", "set", "attach.clipboard", allowed)
            t = Fake(self.home, *argv)
            try:
                if argv:
                    t.run(60, lambda: b"agent@box" in t.out)
                else:
                    t.run(60, lambda: b"[1 " in t.out)
                    t.run(1)
                    t.send(b"\r")
                    t.run(60, lambda: b"then:" in t.out)
                t.run(0.5)
                shown = len(t.out)
                t.send(line)
                t.run(60, lambda: b"done" in t.out[shown:] and (argv or b"copy 4 bytes" in t.out or b"copied 4 bytes" in t.out))
                t.run(0.5)
                written = re.findall(rb"\x1b\]52;[^\x07\x1b]*", t.out)
                self.assertEqual(written, [b"\x1b]52;c;ZXZpbA=="] if allowed == "box" else [], (allowed, argv, t.out[-1500:]))
                if not argv:
                    self.assertIn(b"copied 4 bytes" if allowed == "box" else b"wanted to copy 4 bytes", t.out)
            finally:
                t.close()


if __name__ == "__main__":
    unittest.main()

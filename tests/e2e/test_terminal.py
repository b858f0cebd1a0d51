"""The dashboard's terminal pane, driven in tmux, with one machine for all tests."""
import base64
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time
import unittest

from harness import SBX, Home, wait_for


class Screen:
    """A tmux server of the test's own: what a user's terminal would show."""

    def __init__(self, home, name, rows=40, cols=140):
        self.home, self.socket = home, str(home.dir / f"tmux-{name}")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(cols), "-y", str(rows), "-s", "t", "cat")
        self.tmux("set", "-g", "set-clipboard", "external")
        self.tmux("set", "-g", "remain-on-exit", "on")
        self.tmux("set", "-sg", "escape-time", "0")
        self.pid = None

    def tmux(self, *args, check=True):
        r = subprocess.run(["tmux", "-S", self.socket, *args], env=self.home.env, capture_output=True, cwd=self.home.ws)
        if check and r.returncode != 0:
            raise AssertionError(f"tmux {args}: {r.stderr.decode()}")
        return r.stdout.decode()

    def dashboard(self):
        env = " ".join(f"{k}={shlex.quote(self.home.env[k])}" for k in self.home.env if k.startswith("XDG_") or k in ("HOME", "LANG"))
        self.tmux("respawn-pane", "-k", "-t", "t", f"exec env {env} {SBX}")
        self.pid = int(self.tmux("display", "-p", "-t", "t", "#{pane_pid}"))

    def keys(self, *keys):
        self.tmux("send-keys", "-t", "t", *keys)

    def type(self, text):
        self.tmux("send-keys", "-t", "t", "-l", text)

    def text(self, escapes=False):
        return self.tmux("capture-pane", "-p", "-t", "t", *(["-e"] if escapes else []))

    def sees(self, pattern, seconds=15):
        ok = wait_for(lambda: re.search(pattern, self.text()), seconds)
        if not ok:
            raise AssertionError(f"no {pattern!r} on the screen:\n{self.text()}")
        return ok

    def gone(self, pattern, seconds=15):
        if not wait_for(lambda: not re.search(pattern, self.text()), seconds):
            raise AssertionError(f"{pattern!r} is still on the screen:\n{self.text()}")

    def resize(self, rows, cols):
        self.tmux("resize-window", "-t", "t", "-x", str(cols), "-y", str(rows))

    def close(self):
        self.tmux("kill-server", check=False)


PREFIX = "C-]"


class Terminal(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = Home()
        cls.home.sbx("run", "--detach", "--name", "box", "shell", ".", timeout=300)
        cls.screen = Screen(cls.home, "one")

    @classmethod
    def tearDownClass(cls):
        cls.screen.close()
        cls.home.close()

    def setUp(self):
        self.s = self.screen
        self.s.resize(40, 140)
        self.s.dashboard()
        self.s.sees(r"\[1 ")
        self.s.keys("Enter")
        self.s.sees(r"C-\]|Ctrl-\]")
        self.s.keys("C-c")
        self.run_line("clear")

    def run_line(self, line):
        self.s.type(line)
        self.s.keys("Enter")

    def test_typing_reaches_the_session_and_its_output_the_screen(self):
        self.run_line("echo one$((1+1))three")
        self.s.sees("one2three")
        self.run_line("stty size")
        size = self.s.sees(r"(?m)^.*│\s*(\d+) (\d+)\s*│")
        self.assertGreater(int(size[2]), 60)

    def test_the_prefix_leaves_and_twice_is_sent(self):
        self.run_line("cat -v")
        self.s.keys(PREFIX, PREFIX, "Enter")
        self.s.sees(r"\^\]")
        self.s.keys("C-c")
        self.s.keys(PREFIX, "d")
        self.s.sees("create")
        self.s.keys("Enter")
        self.run_line("echo back$((40+2))")
        self.s.sees("back42")


if __name__ == "__main__":
    unittest.main()

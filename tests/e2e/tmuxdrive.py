"""A terminal of a test's own: a tmux server with one pane, whose program is driven by keys and read as cells.

    with Terminal(home.env, cols=120, rows=40) as t:
        t.keys("?")
        t.wait("Everywhere")
"""
import fcntl
import os
import re
import tempfile
import termios
import time

from harness import Limit, PATIENCE, SBX, run


class Terminal:
    """argv runs in the pane (the dashboard if there is none); shell=True: below a shell, so that its end can be seen."""

    def __init__(self, env, argv=None, cols=120, rows=40, cwd=None, shell=False, term="tmux-256color"):
        self.dir = tempfile.TemporaryDirectory(prefix="sbx-tmux-")
        self.socket = os.path.join(self.dir.name, "s")
        conf = os.path.join(self.dir.name, "conf")
        with open(conf, "w") as f:
            f.write(f"set -g default-terminal {term}\nset -g escape-time 0\nset -g status off\nset -g remain-on-exit on\n"
                    "set -g history-limit 5000\nset -g set-clipboard on\nset -g focus-events on\n"
                    "set -g default-shell /bin/sh\n")
        self.conf = conf
        env = {k: v for k, v in env.items() if not k.startswith("TMUX")}
        env.setdefault("LANG", "C.UTF-8")
        env.pop("TERM", None)
        self.env = env
        command = ["/bin/sh"] if shell else argv or [SBX]
        self.tmux("new-session", "-d", "-x", str(cols), "-y", str(rows), "-c", str(cwd or "/"), "--", *command)
        if shell:
            self.type("PS1='ready> '\n")
            self.wait("ready> ")

    def tmux(self, *args, check=True):
        r = run(["tmux", "-S", self.socket, "-f", self.conf, *args], PATIENCE, env=self.env)
        if check and r.returncode:
            raise AssertionError(f"tmux {' '.join(args)}: {r.stderr.decode()}")
        return r.stdout.decode(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.tmux("kill-server", check=False)
        self.dir.cleanup()

    # What goes in.
    def keys(self, *names, pause=0.0):
        """Keys by tmux's names: "c", "Enter", "C-s", "Escape", "BTab", "F1"."""
        for n in names:
            self.tmux("send-keys", "--", n)
            # Escape and a letter within 25 ms are Alt and the letter, to any program.
            if n == "Escape":
                self.read_all()
            time.sleep(max(pause, 0.1 if n == "Escape" else 0))

    def read_all(self):
        """Until the program has read all that was typed."""
        tty = os.open(self.get("pane_tty"), os.O_RDWR | os.O_NOCTTY)
        try:
            limit = Limit(PATIENCE)
            while int.from_bytes(fcntl.ioctl(tty, termios.FIONREAD, bytes(4)), "little") and not limit.over():
                time.sleep(0.01)
        except OSError:
            pass  # it ended
        finally:
            os.close(tty)

    def type(self, text):
        self.tmux("send-keys", "-l", "--", text)

    def mouse(self, x, y, button=0, release=True):
        """A click; x and y count from 0. Buttons: 0 left, 2 right, 64 and 65 the wheel."""
        self.type(f"\033[<{button};{x + 1};{y + 1}M")
        if release and button < 64:
            self.type(f"\033[<{button};{x + 1};{y + 1}m")

    def click(self, text, button=0):
        """Clicks on the first character of a text that the screen shows."""
        for y, line in enumerate(self.lines()):
            at = line.find(text)
            if at >= 0:
                self.mouse(at, y, button)
                return
        raise AssertionError(f"{text!r} is not there to be clicked:\n{self.text()}")

    def resize(self, cols, rows):
        self.tmux("resize-window", "-x", str(cols), "-y", str(rows))

    # What stands there.
    def text(self, scrollback=False):
        return self.tmux("capture-pane", "-p", *(["-S", "-"] if scrollback else []))

    def lines(self):
        return self.text().split("\n")

    def ansi(self):
        return self.tmux("capture-pane", "-p", "-e", "-N")

    def get(self, what):
        """A format of tmux's: alternate_on, mouse_any_flag, cursor_flag, pane_title, pane_pid, pane_dead ..."""
        return self.tmux("display-message", "-p", "#{%s}" % what).strip()

    def has(self, want):
        return re.search(want, self.text()) is not None

    def wait(self, want, seconds=PATIENCE, gone=False):
        """Until the screen matches the regular expression (or, gone, no longer does)."""
        seconds = max(seconds, PATIENCE)
        limit = Limit(seconds)
        while True:
            text = self.text()
            if (re.search(want, text) is not None) != gone:
                return text
            if limit.over():
                raise AssertionError(f"{want!r} is {'still' if gone else 'not'} on the screen after {seconds} s:\n{text}")
            time.sleep(0.05)

    def settle(self, quiet=0.4, seconds=10):
        """Until the screen stands still."""
        last, since, end = None, time.monotonic(), time.monotonic() + seconds
        while time.monotonic() < end:
            text = self.ansi()
            if text != last:
                last, since = text, time.monotonic()
            elif time.monotonic() - since >= quiet:
                break
            time.sleep(0.05)
        return self.text()

    def pid(self):
        """Of the sbx in front, or of what runs in the pane if there is none."""
        top = int(self.get("pane_pid"))
        below = [top]
        while below:
            p = below.pop()
            with open(f"/proc/{p}/comm") as f:
                if f.read().strip() == "sbx":
                    return p
            with open(f"/proc/{p}/task/{p}/children") as f:
                below += [int(c) for c in f.read().split()]
        return top

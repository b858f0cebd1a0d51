"""From a key to the screen in the dashboard's pane, idle and while the session beside it floods; and the guest's own echo,
through `sbx attach`, which is not ours to shorten."""
import fcntl
import os
import pathlib
import pty
import select
import struct
import sys
import termios
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from harness import SBX, Home  # noqa: E402

ROUNDS = 120


class Terminal:
    def __init__(self, home, *argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(home.ws)
            os.execve(SBX, [SBX, *argv], {**home.env, "TERM": "xterm-256color"})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))

    def drain(self, seconds):
        out, end = b"", time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.02)[0]:
                out += os.read(self.fd, 65536)
        return out

    def key(self, key, timeout=5):
        start = time.monotonic()
        os.write(self.fd, key)
        while time.monotonic() - start < timeout:
            if select.select([self.fd], [], [], 0.2)[0] and key in os.read(self.fd, 65536):
                return (time.monotonic() - start) * 1000
        return float("nan")

    def keys(self):
        times = []
        for i in range(ROUNDS):
            times.append(self.key(b"@" if i % 2 else b"#"))
            self.drain(0.02)
        times = sorted(t for t in times if t == t)
        return f"median {times[len(times) // 2]:.1f} ms, p99 {times[int(len(times) * 0.99) - 1]:.1f} ms ({len(times)} of {ROUNDS})"

    def close(self):
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def main():
    home = Home()
    try:
        home.sbx("run", "--detach", "--name", "box", "shell", ".", timeout=300)
        plain = Terminal(home, "attach", "box")
        plain.drain(1)
        os.write(plain.fd, b"cat >/dev/null\r")
        plain.drain(1)
        print("echo through sbx attach:       ", plain.keys(), flush=True)
        plain.close()
        dash = Terminal(home)
        dash.drain(1.5)
        os.write(dash.fd, b"\r")
        dash.drain(1)
        print("dashboard, idle:               ", dash.keys(), flush=True)
        home.sbx("exec", "-d", "-t", "box", "yes", "flood")
        dash.drain(1)
        print("dashboard, another session floods:", dash.keys(), flush=True)
        dash.close()
    finally:
        home.close()


if __name__ == "__main__":
    main()

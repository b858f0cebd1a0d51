"""The dashboard's own cost: its first frame with 50 sandboxes, and its processor time while 10 run and nothing changes."""
import fcntl
import os
import pathlib
import pty
import select
import statistics
import struct
import sys
import termios
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from harness import SBX, Home

RUNS = int(os.environ.get("RUNS", "5"))
RUNNING = int(os.environ.get("RUNNING", "10"))


class Dashboard:
    def __init__(self, env, rows=50, cols=160):
        e = {k: v for k, v in env.items() if k != "TERM"}
        e["TERM"] = "xterm-256color"
        self.began = time.monotonic()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
            os.execve(SBX, ["sbx"], e)

    def drain(self, seconds, until=None):
        """The seconds until the output holds the bytes; None if it did not within the time."""
        got, end = b"", time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                got += os.read(self.fd, 65536)
                if until and until in got:
                    return time.monotonic() - self.began
        return None

    def cpu(self):
        with open(f"/proc/{self.pid}/stat") as f:
            p = f.read().rsplit(")", 1)[1].split()
        return (int(p[11]) + int(p[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        os.write(self.fd, b"q")
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def main():
    h = Home()
    try:
        for i in range(50):
            h.sbx("create", "--name", f"box-{i:02}", "--cpus", "1", "--memory", "512", "shell", h.ws)
        times = []
        for _ in range(RUNS):
            d = Dashboard(h.env)
            # The status line is drawn after the bars and cards of the first frame.
            times.append(d.drain(10, b"attach"))
            d.drain(0.3)
            d.close()
        print(f"{'dashboard: first frame with 50 sandboxes':<52} {statistics.median(times) * 1000:10.1f} ms", flush=True)
        for i in range(RUNNING):
            h.sbx("start", f"box-{i:02}")
        time.sleep(3)
        d = Dashboard(h.env)
        d.drain(5)
        before, t = d.cpu(), time.monotonic()
        d.drain(20)
        share = (d.cpu() - before) / (time.monotonic() - t) * 100
        d.close()
        print(f"{f'dashboard: processor while {RUNNING} sandboxes idle':<52} {share:10.2f} %", flush=True)
    finally:
        h.close()


main()

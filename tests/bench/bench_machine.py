"""Figures of a whole machine, each beside a baseline of the same run (make bench).

Medians of RUNS; a shared machine is noisy, so read the ratios."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from harness import Home, wait_for

RUNS = int(os.environ.get("RUNS", "5"))


def timed(f):
    t = time.monotonic()
    f()
    return time.monotonic() - t


def median(f, n=RUNS):
    return statistics.median(timed(f) for _ in range(n))


def line(what, value, unit, baseline=None, of=None):
    text = f"{what:<52} {value:10.1f} {unit}"
    if baseline:
        text += f"   {value / baseline:6.2f} x {of}"
    print(text, flush=True)


def start_and_exec(h, name):
    def once():
        h.sbx("start", name)
        h.sbx("exec", name, "true")
    times = []
    for _ in range(RUNS):
        times.append(timed(once))
        h.sbx("stop", name)
    return statistics.median(times)


def pss(pid):
    try:
        for row in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if row.startswith("Pss:"):
                return int(row.split()[1])
    except OSError:
        pass
    return 0


def family(home, name):
    for p in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            cmd = (p / "cmdline").read_bytes().split(b"\0")
            if cmd[1:3] == [b"supervise", name.encode()] and str(home.dir).encode() in (p / "environ").read_bytes():
                kids = subprocess.run(["pgrep", "-P", p.name], capture_output=True, text=True).stdout.split()
                return p.name, kids
        except OSError:
            continue
    return None, []


def main():
    h = Home()
    try:
        h.sbx("create", "--name", "b", "--cpus", "1", "--memory", "1024", "shell", str(h.ws))
        h.sbx("config", "set", "vm.clone", "false")
        cold = start_and_exec(h, "b") * 1e3
        line("start to first output of exec, cold boot", cold, "ms")
        h.sbx("config", "set", "vm.clone", "true")
        h.sbx("start", "b")
        h.sbx("stop", "b")
        clone = start_and_exec(h, "b") * 1e3
        line("the same by a clone", clone, "ms", cold, "cold boot")
        h.sbx("start", "b")
        line("exec true, round trip", median(lambda: h.sbx("exec", "b", "true"), 20) * 1e3, "ms",
             median(lambda: subprocess.run(["true"]), 20) * 1e3, "a local process")
        size = 64
        pipe = size / median(lambda: subprocess.run(["sh", "-c", f"head -c {size}M /dev/zero | cat > /dev/null"]))
        out = size / median(lambda: h.run("exec", "b", "head", "-c", f"{size}M", "/dev/zero"), 3)
        line("exec stream out of the machine", out, "MB/s", pipe, "a local pipe")
        data = bytes(size << 20)
        into = size / median(lambda: h.run("exec", "-i", "b", "sh", "-c", "cat > /dev/null", input=data), 3)
        line("exec stream into the machine", into, "MB/s", pipe, "a local pipe")
        script = """set -e; d=$1; mkdir -p $d/f; cd $d/f; t() { s=$(date +%s%N); "$@" >/dev/null; e=$(date +%s%N); echo $(( (e-s)/1000000 )); }
        c() { for i in $(seq 500); do echo $i > $i; done; }; t c; t find . -type f -newer /nonexistent-never -o -size +0
        t sh -c 'cat * | wc -c'; t dd if=/dev/zero of=big bs=1M count=64 conv=fsync; t dd if=big of=/dev/null bs=1M; cd ..; rm -rf f"""
        shared = [int(x) for x in h.run("exec", "b", "bash", "-c", script, "x", str(h.ws)).stdout.split()]
        own = [int(x) for x in h.run("exec", "b", "bash", "-c", script, "x", "/home/agent/bench").stdout.split()]
        for what, a, b in zip(("create 500 files", "find them", "read them", "write 64 MiB and sync", "read 64 MiB"), shared, own):
            line(f"workspace: {what}", a, "ms", b or 1, "the machine's own disk")
        sup, kids = family(h, "b")
        names = {k: pathlib.Path(f"/proc/{k}/comm").read_text().strip() for k in kids}
        ours = pss(sup) + sum(pss(k) for k in kids if "qemu" not in names[k])
        line("our own processes, idle", ours / 1024, "MiB PSS")
        line("the sandbox in all, idle", (ours + sum(pss(k) for k in kids if "qemu" in names[k])) / 1024, "MiB PSS")
    finally:
        h.close()


if __name__ == "__main__":
    main()

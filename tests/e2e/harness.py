"""Runs the real sbx in homes of its own, with the machine's base image."""
import base64
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A relative SBX_BUILD is one of the repository: build-san is what `make SAN=1` builds.
BUILD = ROOT / os.environ.get("SBX_BUILD", "build")
SBX = str(BUILD / "sbx")
SANITIZED = "-san" in BUILD.name
if SANITIZED:
    # Leaks are looked for in the unit tests; what is not dumpable cannot be looked at.
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=0")
    os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
REPORT = re.compile(rb"^.*(?:ERROR: \w*Sanitizer|runtime error: ).*(?:\n.*){0,25}", re.M)
DATA = pathlib.Path(os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share")
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")


# A machine stalls for seconds at times: what is waited for gets a minute, however soon it should come. How soon it does is
# for the benchmarks.
PATIENCE = 60


class Limit:
    """A time in which what is waited for could run: while the whole machine stands still, it does not pass."""

    def __init__(self, seconds):
        self.left, self.last = seconds, time.monotonic()

    def over(self):
        now = time.monotonic()
        self.left -= min(now - self.last, 1)
        self.last = now
        return self.left < 0


def finish(p, seconds=PATIENCE):
    """p.communicate(), with such a limit; whoever is not over then is killed."""
    limit = Limit(seconds)
    while True:
        try:
            return p.communicate(timeout=1)
        except subprocess.TimeoutExpired as e:
            if limit.over():
                p.kill()
                raise subprocess.TimeoutExpired(p.args, seconds, e.output, e.stderr) from None
        except BaseException:
            p.kill()
            raise


def run(argv, timeout, input=None, **more):
    """subprocess.run(), with such a limit."""
    def feed(pipe):
        with contextlib.suppress(OSError), pipe:  # who does not read on has ended, or said enough
            pipe.write(input)

    with subprocess.Popen(argv, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more) as p:
        if input is not None:  # communicate() forgets what it has not sent when its time is up
            threading.Thread(target=feed, args=(p.stdin,), daemon=True).start()
            p.stdin = None
        out, err = finish(p, timeout)
        return subprocess.CompletedProcess(argv, p.returncode, out, err)


def popen_at(argv, fds, program=None, **more):
    """fds: what it gets as 3, 4, ...  A shell moves them, for Python code must not run between a fork and an exec in a
    process with threads: it may wait forever for what one of them held."""
    # Copied away first, above all that is open: a place may be another's descriptor.
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in fds]
    places = " ".join(f"{3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(above))
    try:
        p = subprocess.Popen(["bash", "-c", f'exec -a "$@" {places}', "bash", argv[0], program or argv[0], *argv[1:]], pass_fds=above, **more)
    finally:
        for fd in above:
            os.close(fd)
    p.args = argv
    return p


def wait_for(check, seconds=PATIENCE, step=0.1):
    return within(max(seconds, PATIENCE), check, step)


def within(seconds, check, step=0.1):
    """For what may as well not come."""
    limit = Limit(seconds)
    while True:
        value = check()
        if value or limit.over():
            return value
        time.sleep(step)


class Home:
    """XDG folders of a test's own; images and installed agents are shared, they take long to make."""

    def __init__(self, shared_templates=False):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sbx-e2e-"))
        self.reports = set()
        self.marks = 0
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "TMUX", "NODE_EXTRA", "SSL_CERT"))}
        for name in ("config", "data", "run", "home"):
            (self.dir / name).mkdir(mode=0o700)
        self.env.update(XDG_CONFIG_HOME=str(self.dir / "config"), XDG_DATA_HOME=str(self.dir / "data"),
                        XDG_CACHE_HOME=str(CACHE), XDG_RUNTIME_DIR=str(self.dir / "run"), HOME=str(self.dir / "home"),
                        LANG="C.UTF-8")
        (self.dir / "data/sbx").mkdir()
        (self.dir / "data/sbx/images").symlink_to(DATA / "sbx/images")
        if shared_templates:
            (DATA / "sbx/templates").mkdir(parents=True, exist_ok=True)
            (self.dir / "data/sbx/templates").symlink_to(DATA / "sbx/templates")
        self.ws = self.dir / "ws"
        self.ws.mkdir()
        # The package mirrors of a test machine may lie in a range that is not global.
        self.sbx("config", "set", "net.outside", "203.0.113.0/24")
        self.sbx("policy", "set-default", "balanced")

    def run(self, *args, input=None, timeout=180, cwd=None, env=None):
        e = dict(self.env)
        e.update(env or {})
        if SANITIZED and args and args[0] == "rm":
            self.look_for_reports()
        r = run([SBX, *map(str, args)], timeout, input, cwd=cwd or self.ws, env=e)
        if SANITIZED and (found := REPORT.search(r.stderr)):
            self.reports.add(found.group(0).decode(errors="replace"))
        return r

    def sbx(self, *args, **more):
        r = self.run(*args, **more)
        if r.returncode != 0:
            raise AssertionError(f"sbx {' '.join(map(str, args))}: status {r.returncode}\n{r.stdout.decode()}{r.stderr.decode()}")
        return r.stdout.decode()

    def ls(self):
        return {s["name"]: s for s in json.loads(self.sbx("ls", "--json"))}

    def sh(self, name, script, **more):
        return self.run("exec", name, "sh", "-c", script, **more)

    def in_force(self, name):
        """Returns when the rules that were set hold in a running sandbox: when one more does."""
        self.marks += 1
        mark = f"mark{self.marks}.example"
        self.sbx("policy", "allow", "network", name, mark)

        def holds():
            out = self.sh(name, f"curl -sS http://{mark}/ 2>&1; echo over").stdout
            return b"over" in out and b"sbx policy allow" not in out
        if not wait_for(holds):
            raise AssertionError(f"a rule of {name} is not in force")

    def family(self, name):
        """The sandbox's processes: {role ("supervise", "net", …) or "qemu": pid}."""
        found, machines = {}, {}
        for p in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (p / "cmdline").read_bytes().split(b"\0")
                # A supervisor's child that saves a machine's memory looks like it; it leads no session.
                if (words[0] == b"sbx" and words[2:3] == [name.encode()] and os.getsid(int(p.name)) == int(p.name)
                        and str(self.dir).encode() in (p / "environ").read_bytes()):
                    found[words[1].decode()] = int(p.name)
                elif f"sbx-{name}".encode() in words:
                    machines[int(re.search(r"^PPid:\s+(\d+)", (p / "status").read_text(), re.M)[1])] = int(p.name)
            except OSError:
                continue
        if found.get("supervise") in machines:
            found["qemu"] = machines[found["supervise"]]
        return found

    def look_for_reports(self):
        """What the sanitizers said in any process of a sandbox."""
        for log in self.dir.glob("data/sbx/sandboxes/*/sbx.log*"):
            if found := REPORT.search(log.read_bytes()):
                self.reports.add(f"{log}:\n{found.group(0).decode(errors='replace')}")

    def close(self):
        try:
            self.run("stop", "--all", "--timeout", "3", timeout=240)
            self.run("rm", "--all", "--force", timeout=240)
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)
        if self.reports:
            raise AssertionError("the sanitizers report:\n" + "\n".join(sorted(self.reports)))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kill(pid, sig=signal.SIGKILL):
    os.kill(pid, sig)


def in_memory(pid, *needles):
    """Which of these bytes, None if none, stand anywhere in a process's memory."""
    longest = max(map(len, needles))
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, perms = line.split()[:2]
            at, end = (int(x, 16) for x in span.split("-"))
            # Terabytes are the shadow that a sanitizer keeps of the rest: marks, no data.
            if perms[0] != "r" or "[v" in line or end - at > 1 << 40:
                continue
            tail = b""
            while at < end:
                try:
                    mem.seek(at)
                    chunk = mem.read(min(1 << 24, end - at))
                except (OSError, ValueError):
                    break
                if not chunk:
                    break
                tail += chunk
                for needle in needles:
                    if needle in tail:
                        return needle
                tail = tail[-longest:]
                at += len(chunk)
    return None


def authority_key(home):
    """The key of the sandboxes' certificate authority: a record of the secret store, which a key file opens here."""
    sodium = ctypes.CDLL("libsodium.so.23")
    o = json.loads((home.dir / "data/sbx/secrets/store.json").read_text())
    nonce, box, data = (base64.b64decode(x) for x in (o["wrap"]["nonce"], o["wrap"]["box"], o["data"]))
    key, state, plain = (ctypes.create_string_buffer(n) for n in (32, 256, len(data)))
    length = ctypes.c_ulonglong()
    tag = ctypes.c_ubyte()
    bound = b"sbx secrets %d" % o["version"]
    if (sodium.crypto_secretbox_open_easy(key, box, ctypes.c_ulonglong(len(box)), nonce, (home.dir / "data/sbx/secrets/key").read_bytes()) or
            sodium.crypto_secretstream_xchacha20poly1305_init_pull(state, data[:24], key) or
            sodium.crypto_secretstream_xchacha20poly1305_pull(state, plain, ctypes.byref(length), ctypes.byref(tag), data[24:],
                                                              ctypes.c_ulonglong(len(data) - 24), bound, ctypes.c_ulonglong(len(bound)))):
        raise AssertionError("the store does not open")
    fields = plain.raw[:length.value].split(struct.pack(">I", 3) + b"key" + struct.pack(">I", 32))
    if len(fields) != 2:
        raise AssertionError("the store has no authority")
    return fields[1][:32]


def spellings_of_key(key):
    """What would stand somewhere if it stood there in plain, as a number of either order, or in a PEM file with its lines."""
    encoded = [base64.b64encode(b"x" * n + key) for n in range(3)]
    return key, key[::-1], key.hex().encode(), *(e[4:16] for e in encoded), *(e[-20:-4] for e in encoded)


def keys_in_plain(home, key):
    """Files of the state folder with that key, or any private key, in plain; not in disks, which hold a guest's own."""
    needles = (*spellings_of_key(key), b"PRIVATE KEY")
    files = [p for p in (home.dir / "data").rglob("*") if p.is_file() and not p.is_symlink() and p.name != "disk" and p.stat().st_size < 1 << 26]
    return [p for p in files if any(n in p.read_bytes() for n in needles)]

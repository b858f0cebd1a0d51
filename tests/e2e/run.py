"""Runs the end-to-end tests: python3 tests/e2e/run.py [--slowest N] [PATTERN]. Ends with one line of counts.

Two processes share them out, class by class, for a test waits more than it computes and an emulated machine keeps one
processor busy.  Real agents come first in the second one, for they take longest.  Both say what they do as they do it, a
failure at once and again at the end; who ends the run is told where it was.

A few that failed run once more, by themselves.  The last line says how many passed only then: each is a test, or a
program, that something else on the machine can disturb, and is to be looked at."""
import faulthandler
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


from harness import Limit

ONCE_MORE_MAX = 5  # more of them are no accident
ENVIRONMENT = dict(os.environ)  # tests change their process's
HANGS_S = 1200  # the slowest, an agent that is installed first, takes half as long
AGENTS = re.compile(r"^test_agents\.|^test_guide\.Agents\.")


def counted(text, status):
    """The counts of a program that closes with "N passed, N failed, N skipped"; passed on, its text."""
    print(text, end="", flush=True)
    m = re.findall(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", text, re.M)
    passed, failed, skipped = (int(x or 0) for x in m[-1]) if m else (0, 1, 0)
    return passed, failed or (1 if status else 0), skipped


def standalone(path):
    """A script that counts for itself."""
    print(f"== {path.name}", flush=True)
    r = subprocess.run([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    return counted(r.stdout, r.returncode)


class Shared(unittest.TestSuite):
    """First the tests that only this process runs, then, class by class, those that nobody has begun."""
    _cleanup = False

    def __init__(self, own, classes, queue):
        super().__init__(own)
        self.classes, self.queue = classes, queue

    def __iter__(self):
        yield from self._tests
        while token := os.read(self.queue, 4):  # so few bytes come whole, to one of the readers
            yield from self.classes[int.from_bytes(token, "little")]


class Other:
    """This program in a process of its own, which says in the end what became of its tests."""

    def __init__(self, role, fds, args):
        self.said, said = os.pipe()
        fds = [*fds, said]
        self.process = subprocess.Popen([sys.executable, __file__, role, ",".join(map(str, fds)), *args], pass_fds=fds, env=ENVIRONMENT)
        os.close(said)

    def end(self):
        """(passed, skipped, the failed ones' names), or None if it did not come to its end."""
        with os.fdopen(self.said) as said:
            words = said.read().split()
        self.process.wait()
        return (int(words[0]), int(words[1]), words[2:]) if words else None


def name_of(test):
    """Of a class that could not begin or end, the class's."""
    if isinstance(test, unittest.suite._ErrorHolder):
        return test.description.partition("(")[2].rstrip(")")
    return getattr(test, "test_case", test).id()


class Lines:
    """Whole lines, for two processes write."""

    def __init__(self):
        self.part = ""

    def write(self, text):
        lines, end, self.part = (self.part + text).rpartition("\n")
        print(lines + end, end="", flush=True)

    def flush(self):
        pass


class Hangs(Exception):
    """Raised where the main thread waits."""


class Watch(threading.Thread):
    """Has a test that does not end fail where it waits, and the run go on; says where all threads are when that does not help."""

    def __init__(self):
        super().__init__(daemon=True)
        self.moves()
        signal.signal(signal.SIGUSR1, self.fail)
        self.start()

    def fail(self, *_):
        raise Hangs(f"nothing ended within {HANGS_S} s")

    def moves(self, seconds=HANGS_S):
        self.limit, self.told = Limit(seconds), 0

    def run(self):
        while True:
            time.sleep(1)
            if not self.limit.over():
                continue
            if self.told == 2:
                sys.stdout.flush()
                faulthandler.dump_traceback(sys.stdout)
                print("\ngiven up, for it waits there still", flush=True)
                os._exit(1)
            self.told += 1
            self.limit = Limit(HANGS_S / 4)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)


class Timed(unittest.TextTestResult):
    """Notes what each test took, and what went by between two: their classes' beginnings and ends."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.times, self.last, self.last_class = [], time.monotonic(), ""
        self.watch = Watch()

    def startTest(self, test):
        self.begun = time.monotonic()
        kind = test.id().rsplit(".", 1)[0]
        if kind != self.last_class:
            self.times.append((self.begun - self.last, f"(before {kind})"))
        self.last_class = kind
        self.watch.moves()
        super().startTest(test)

    def addError(self, test, err):
        super().addError(test, err)
        self.stream.write(self.errors[-1][1])

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.stream.write(self.failures[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.stream.write(f"{subtest}\n{self._exc_info_to_string(err, test)}")

    def stopTest(self, test):
        super().stopTest(test)
        self.watch.moves()
        self.last = time.monotonic()
        self.times.append((self.last - self.begun, test.id()))

    def stopTestRun(self):
        super().stopTestRun()
        self.watch.moves(float("inf"))


def main():
    args = sys.argv[1:]
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as shells start what runs in the background; a test interrupts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.register(signal.SIGTERM, sys.stdout, chain=True)
    role, fds = "", []
    if args[:1] in (["--beside"], ["--once-more"]):
        role, fds, args = args[0], [int(fd) for fd in args[1].split(",")], args[2:]
        for fd in fds:  # a sandbox that a test left would hold them
            os.set_inheritable(fd, False)
    given, slowest = args, 0
    if args[:1] == ["--slowest"]:
        slowest, args = int(args[1]), args[2:]
    pattern = args[0] if args else ""
    classes, agents, scripts = {}, [], []
    for path in sorted(HERE.glob("test_*.py")):
        if "unittest.TestCase" not in path.read_text():
            if re.search(pattern, path.name):
                scripts.append(path)
            continue
        for group in unittest.defaultTestLoader.discover(str(HERE), path.name):
            for tests in group:
                for t in tests if isinstance(tests, unittest.TestSuite) else [tests]:
                    if not re.search(pattern, t.id()):
                        continue
                    if AGENTS.search(t.id()):
                        agents.append(t)
                    else:
                        classes.setdefault(t.id().rsplit(".", 1)[0], []).append(t)
    beside = None
    passed = failed = skipped = 0
    if role == "--beside":
        own, queue = agents, fds[0]
    else:
        queue, fill = os.pipe()
        os.write(fill, b"".join(i.to_bytes(4, "little") for i in range(len(classes))))
        os.close(fill)
        several = not role and len(classes) + bool(agents) > 1
        own = [] if several else agents
        beside = Other("--beside", [queue], given) if several else None
        for path in scripts if not role else []:
            p, f, s = standalone(path)
            passed, failed, skipped = passed + p, failed + f, skipped + s
    r = unittest.TextTestRunner(stream=Lines(), verbosity=2, resultclass=Timed).run(Shared(own, list(classes.values()), queue))
    for seconds, name in sorted(r.times, reverse=True)[:slowest]:
        print(f"{seconds:7.1f} s  {name}")
    # A test with sub-tests counts once; a class that could not begin or end is none that ran.
    ran = lambda found: {name_of(t) for t, _ in found if not isinstance(t, unittest.suite._ErrorHolder)}
    bad = r.failures + r.errors
    names = sorted({name_of(t) for t, _ in bad})
    skipped += len(r.skipped)
    passed += r.testsRun - len(ran(bad)) - len(ran(r.skipped))
    if role:
        os.write(fds[-1], " ".join([str(passed), str(skipped), *names]).encode())
        return 0  # who started this one counts
    if beside:
        said = beside.end()
        failed += said is None
        p, s, more = said or (0, 0, [])
        passed, skipped, names = passed + p, skipped + s, names + more
    later = ""
    if 0 < len(names) <= ONCE_MORE_MAX:
        print("== once more, by themselves:", *names, flush=True)
        p, s, again = Other("--once-more", [], ["^(" + "|".join(map(re.escape, names)) + r")(\.|$)"]).end() or (0, 0, names)
        if len(again) < len(names):
            later = f"; {len(names) - len(again)} of those that failed passed once more by themselves: look at them"
        passed, skipped, names = passed + p, skipped + s, again
    failed += len(names)
    print(f"{passed} passed, {failed} failed, {skipped} skipped{later}")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main())

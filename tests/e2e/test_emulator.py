"""The filter and libvterm together: libvterm's own tests through our filter, and recorded programs beside tmux."""
import concurrent.futures
import glob
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unicodedata
import unittest

from harness import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
EMULATOR = ROOT / "tests/emulator"


def run(*args, **more):
    return subprocess.run([str(a) for a in args], capture_output=True, **more)


def fetch_source(into):
    """libvterm's source as Debian has it, with an apt configuration of its own; None: not to be had."""
    lines = []
    for name in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*.list")]:
        if pathlib.Path(name).exists():
            lines += [re.sub(r"^deb ", "deb-src ", line) for line in pathlib.Path(name).read_text().splitlines() if line.startswith("deb ")]
    (into / "apt").mkdir()
    (into / "apt/src.list").write_text("\n".join(lines) + "\n")
    for name in glob.glob("/etc/apt/sources.list.d/*.sources"):
        text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", pathlib.Path(name).read_text())
        (into / "apt" / pathlib.Path(name).name).write_text(text)
    (into / "lists/partial").mkdir(parents=True)
    options = ["-o", f"Dir::Etc::SourceList={into}/apt/src.list", "-o", f"Dir::Etc::SourceParts={into}/apt",
               "-o", f"Dir::State::Lists={into}/lists", "-o", "APT::Sandbox::User=root"]
    run("apt-get", *options, "update")
    run("apt-get", *options, "source", "--download-only", "libvterm", cwd=into)
    found = list(into.glob("libvterm_*.orig.tar.*"))
    if not found or "0.1.4" not in found[0].name:
        return None
    (into / "src").mkdir()
    return into / "src" if run("tar", "xf", found[0], "-C", into / "src", "--strip-components=1").returncode == 0 else None


class Libvterm(unittest.TestCase):
    def test_its_own_tests_through_our_filter(self):
        with tempfile.TemporaryDirectory() as tmp:
            src = fetch_source(pathlib.Path(tmp))
            if not src:
                self.skipTest("the source of libvterm 0.1.4 cannot be fetched")
            harness = (src / "t/harness.c").read_text()
            harness = harness.replace("vterm_input_write(", "shim_input(")
            harness = re.sub(r"(vterm_(?:state|screen)_reset\()", r"shim_reset(), \1", harness)
            harness = "#include <stddef.h>\nstruct VTerm;\nsize_t shim_input(struct VTerm *, const char *, size_t);\nvoid shim_reset(void);\n" + harness
            (src / "t/filtered.c").write_text(harness)
            ours = [EMULATOR / "libvterm_shim.c", *(ROOT / "src/core" / f for f in ("vtfilter.c", "vtfilter_csi.c", "vtfilter_string.c", "width.c", "sanitize.c"))]
            built = run("gcc", "-std=gnu17", "-w", "-g", "-fsanitize=address,undefined", "-I", src / "include", "-I", src / "src", "-I", ROOT / "src",
                        "-o", src / "harness", src / "t/filtered.c", *sorted(src.glob("src/*.c")), *ours)
            self.assertEqual(built.returncode, 0, built.stderr.decode())
            expected = {}
            for line in (EMULATOR / "libvterm.expected").read_text().splitlines():
                if line and not line.startswith("#"):
                    name, count, _ = line.split(" ", 2)
                    expected[name] = int(count)
            files = sorted(src.glob("t/*.test"))
            self.assertEqual(len(files), 39)
            got = {}
            for f in files:
                out = run("perl", src / "t/run-test.pl", "-e", src / "harness", f, timeout=60)
                self.assertNotIn(b"Sanitizer", out.stderr, f.name)
                n = out.stdout.count(b"# Test failed")
                if n:
                    got[f.stem] = n
            self.assertEqual(got, expected)


BOLD, DIM, ITALIC, UNDERLINE, DOUBLE, CURLY, BLINK, REVERSE, CONCEAL, STRIKE, OVERLINE = (1 << n for n in range(11))
# tmux's capture says nothing of cells that were erased behind a line's last character, whatever their background.
NOT_TOLD = (" ", None, None, None)
# What can be seen of a blank.
ON_BLANKS = UNDERLINE | REVERSE | STRIKE | OVERLINE


def seen(text, fg, bg, attrs):
    """A cell as one sees it: what no eye can tell apart is no difference."""
    if attrs & UNDERLINE:
        attrs &= ~(DOUBLE | CURLY)  # the kind of line is not compared: tmux writes it in a way of its own
    if text == " ":
        attrs &= ON_BLANKS
        if not attrs:
            fg = 0
    return text, fg, bg, attrs


def our_cells(out):
    rows = []
    for line in out.split("\n")[:-1]:
        f = line.split("\t")
        rows.append([seen(f[i], *(int(x, 16) for x in f[i + 1:i + 4])) for i in range(0, len(f) - 1, 4)])
    return rows


def sgr(look, params):
    """tmux's looks: (foreground, background, attributes) after one more sequence."""
    fg, bg, attrs = look
    on = {1: BOLD, 2: DIM, 3: ITALIC, 5: BLINK, 7: REVERSE, 8: CONCEAL, 9: STRIKE, 21: UNDERLINE, 53: OVERLINE}
    off = {22: BOLD | DIM, 23: ITALIC, 24: UNDERLINE, 25: BLINK, 27: REVERSE, 28: CONCEAL, 29: STRIKE, 55: OVERLINE}
    p = params.split(";") if params else ["0"]
    while p:
        head = p.pop(0)
        n = int(head.split(":")[0] or 0)
        if n == 0:
            fg, bg, attrs = 0, 0, 0
        elif n == 4:
            attrs = attrs & ~UNDERLINE if head == "4:0" else attrs | UNDERLINE
        elif n in on:
            attrs |= on[n]
        elif n in off:
            attrs &= ~off[n]
        elif n in (38, 48, 58):
            kind = p.pop(0)
            value = 0x1000000 | int(p.pop(0)) if kind == "5" else 0x2000000 | int(p.pop(0)) << 16 | int(p.pop(0)) << 8 | int(p.pop(0))
            fg, bg = (value, bg) if n == 38 else (fg, value) if n == 48 else (fg, bg)
        elif 30 <= n <= 37 or 90 <= n <= 97:
            fg = 0x1000000 | (n - 30 if n < 40 else n - 82)
        elif 40 <= n <= 47 or 100 <= n <= 107:
            bg = 0x1000000 | (n - 40 if n < 50 else n - 92)
        elif n == 39:
            fg = 0
        elif n == 49:
            bg = 0
    return fg, bg, attrs


def tmux_cells(out, rows, cols):
    look, screen, drawing = (0, 0, 0), [], False
    lines = {"`": "\u25c6", "a": "\u2592", "f": "\u00b0", "g": "\u00b1", "j": "\u2518", "k": "\u2510", "l": "\u250c", "m": "\u2514", "n": "\u253c",
             "q": "\u2500", "t": "\u251c", "u": "\u2524", "v": "\u2534", "w": "\u252c", "x": "\u2502", "~": "\u00b7"}
    for line in out.split("\n")[:rows]:
        row, width = [], 0
        for m in re.finditer(r"\x1b\[([0-9;:]*)m|\x1b\]8;[^\x1b]*\x1b\\\\|([\x0e\x0f])|([^\x1b\x0e\x0f])", line):
            if m[1] is not None:
                look = sgr(look, m[1])
            elif m[2]:
                drawing = m[2] == "\x0e"
            elif m[3]:
                c = lines.get(m[3], m[3]) if drawing else m[3]
                if unicodedata.combining(c) or c in "\u200d\ufe0f":
                    row[-1] = (row[-1][0] + c, *row[-1][1:])
                    continue
                row.append((c, *look))
                width += 2 if unicodedata.east_asian_width(c) in "WF" else 1
        screen.append([seen(*c) for c in row] + [NOT_TOLD] * (cols - width))
    return screen + [[NOT_TOLD] * cols] * (rows - len(screen))


def differences(ours, there):
    if [len(r) for r in ours] != [len(r) for r in there]:
        return [("rows", [len(r) for r in ours], [len(r) for r in there])]
    return [(y, x, a, b) for y, (mine, its) in enumerate(zip(ours, there)) for x, (a, b) in enumerate(zip(mine, its))
            if a != b and not (b == NOT_TOLD and a[0] == " " and not a[3])]


def build_show(program):
    sources = [EMULATOR / "show.c", ROOT / "src/ui/dash/term_emu.c",
               *(ROOT / "src/core" / f for f in ("termline.c", "vtfilter.c", "vtfilter_csi.c", "vtfilter_string.c", "width.c", "sanitize.c"))]
    built = run("gcc", "-std=c17", "-D_GNU_SOURCE", "-I", ROOT / "src", "-o", program, *sources, "-lvterm")
    if built.returncode:
        raise AssertionError(built.stderr.decode())


def build_answer(program):
    built = run("gcc", "-std=c17", "-D_GNU_SOURCE", "-I", ROOT / "src", "-o", program, EMULATOR / "answer.c", ROOT / "src/ui/dash/term_emu.c", ROOT / "src/vm/screen.c",
                *(ROOT / "src/core" / f for f in ("termline.c", "vtfilter.c", "vtfilter_csi.c", "vtfilter_string.c", "width.c", "sanitize.c")), "-lvterm", "-lutil")
    if built.returncode:
        raise AssertionError(built.stderr.decode())


@unittest.skipUnless(shutil.which("tmux"), "there is no tmux")
class BesideTmux(unittest.TestCase):
    """Recordings of real programs (24 x 80, or as the name says): the same characters with the same looks in the same
    places as on tmux's screen."""

    def test_recordings_make_the_same_screens(self):
        with tempfile.TemporaryDirectory() as tmp:
            tmp = pathlib.Path(tmp)
            build_show(tmp / "show")
            files = sorted((EMULATOR / "recordings").glob("*.rec"))
            self.assertGreater(len(files), 3)
            env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(tmp)}
            (tmp / "conf").write_text("set -g default-terminal tmux-256color\nset -g status off\n")
            for f in files:
                data = f.read_bytes()
                size = re.search(r"-(\d+)x(\d+)$", f.stem)
                cols, rows = map(int, size.groups()) if size else (80, 24)
                for part in (1, 2, 3, 4):
                    size = len(data) * part // 4
                    # Not within a line that a program is about to write: where it waited for a key, or at the end.
                    cut = tmp / "cut"
                    cut.write_bytes(data[:size])
                    tmux = ["tmux", "-S", tmp / f"{f.stem}{part}", "-f", tmp / "conf"]
                    run(*tmux, "new-session", "-d", "-x", str(cols), "-y", str(rows), f"stty raw -echo; cat {cut}; touch {tmp}/done; sleep 600", env=env)
                    wait_for(lambda: (tmp / "done").exists(), 10)
                    ours = our_cells(run(tmp / "show", cut, size, rows, cols).stdout.decode())
                    theirs = lambda: tmux_cells(run(*tmux, "capture-pane", "-p", "-e", "-N", env=env).stdout.decode(), rows, cols)
                    wait_for(lambda: not differences(ours, theirs()), 3)  # what cat wrote, tmux may still have to read
                    self.assertEqual(differences(ours, theirs())[:8], [], f"{f.name}, the first {size} bytes")
                    run(*tmux, "kill-server", env=env)
                    (tmp / "done").unlink(missing_ok=True)


@unittest.skipUnless(shutil.which("tmux") and shutil.which("vttest"), "there is no tmux or no vttest")
class Vttest(unittest.TestCase):
    """vttest runs in tmux, and what it prints makes the screens of vttest.screens here, which were checked by eye against
    what vttest says that they should be; cell by cell they are tmux's as well, but for those that tmux draws otherwise.
    SBX_VTTEST_WRITE=1 writes the file anew."""

    # The ways through its menus; what is not here and why is in complaints.md.
    MENUS = ["1", "2", "3", "8", "9 7", "9 9", "11 1 2 3", "11 1 2 4", "11 1 6", *(f"11 5 {n}" for n in range(1, 10)), "11 6 2", "11 6 3", "11 6 4", "11 6 5",
             *(f"11 6 6 {n}" for n in range(1, 4)), "11 6 7 2", "11 6 7 3", "11 6 7 6", "11 6 8", "11 6 9", "11 7 2", "11 7 3", "11 7 6"]
    # Those on which it shows what the terminal answered: they are given our answers, and tmux has no part in them.
    ASKING = ["6 3", "6 4", "6 5", "11 8 7 3", "11 8 7 4", "11 8 7 5"]
    # tmux's: it wraps too early behind controls, begins a region's origin at its own top, lacks sets, protection, HPR and VPR.
    OTHERWISE = {"1": [3, 4], "2": [11], "3": [1], "11 1 2 4": [1, 3], "11 5 4": [1], "11 5 5": [1], "11 5 9": [1], "11 6 6 1": [1, 2, 3, 4], "11 6 6 2": [11]}

    def screens(self, tmp, menu, in_tmux):
        """The recording, and [(bytes so far, tmux's cells)] at each place where vttest waits for Return."""
        name = "w" + menu.replace(" ", "-")
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(tmp)}
        rec = tmp / f"{name}.rec"
        size = lambda: rec.stat().st_size if rec.exists() else 0
        if in_tmux:
            tmux = ["tmux", "-S", tmp / name, "-f", tmp / "conf"]
            text = lambda: run(*tmux, "capture-pane", "-p", env=env).stdout.decode()
            press = lambda keys: run(*tmux, "send-keys", "-l", keys, env=env)
            # What it prints is recorded from its first byte on.
            run(*tmux, "new-session", "-d", "-x", "80", "-y", "24", f"until [ -e {tmp}/{name}.go ]; do sleep 0.05; done; vttest 24x80.80", env=env)
            run(*tmux, "pipe-pane", "-o", f"cat > {rec}", env=env)
            (tmp / f"{name}.go").touch()
            end = lambda: run(*tmux, "kill-server", env=env)
        else:
            p = subprocess.Popen([tmp / "answer", "24", "80", "vttest", "24x80.80"], stdin=subprocess.PIPE, env={**env, "ANSWER_RECORD": str(rec)})
            text = lambda: "\n".join("".join(c[0] for c in row) for row in our_cells(run(tmp / "show", rec, size(), 24, 80).stdout.decode()))
            press = lambda keys: os.write(p.stdin.fileno(), keys.encode())
            end = lambda: (p.kill(), p.wait(), p.stdin.close())

        def rest(sign):
            """Waits until it has said `sign`, and no more comes, on a busy machine as well."""
            last, same = [-1], [0]

            def still():
                before, last[0] = last[0], size()
                same[0] = same[0] + 1 if before == last[0] else 0
                return same[0] >= 5 and re.search(sign, text())
            if not wait_for(still, 30, 0.1):
                raise AssertionError(f"{menu}: no {sign} on\n{text()}")
        out = []
        try:
            for key in menu.split():
                rest(r"Enter choice number")
                before = size()
                press(key + "\r")
                wait_for(lambda: size() > before + 3, 10, 0.02)
            # Menus end with a question for a number: there the chosen test is over.
            while len(out) < 30:
                rest(r"(?i)push <return>|Enter choice number")
                if "Enter choice number" in text():
                    break
                theirs = tmux_cells(run(*tmux, "capture-pane", "-p", "-e", "-N", env=env).stdout.decode(), 24, 80) if in_tmux else None
                out.append((size(), theirs))
                before = size()
                press("\r")
                wait_for(lambda: size() > before + 2, 10, 0.02)
        finally:
            end()
        return rec, out

    def test_its_screens(self):
        with tempfile.TemporaryDirectory() as tmp:
            tmp = pathlib.Path(tmp)
            build_show(tmp / "show")
            (tmp / "conf").write_text("set -g default-terminal xterm-256color\nset -g status off\n")
            build_answer(tmp / "answer")
            menus = self.MENUS + self.ASKING
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                runs = list(pool.map(lambda menu: self.screens(tmp, menu, menu in self.MENUS), menus))
            written, otherwise = [], {}
            for menu, (rec, screens) in zip(menus, runs):
                self.assertTrue(screens, menu)
                for i, (size, theirs) in enumerate(screens):
                    ours = our_cells(run(tmp / "show", rec, size, 24, 80).stdout.decode())
                    rows = ["".join(c[0] for c in row).rstrip() for row in ours]
                    while not rows[-1]:
                        rows.pop()
                    written.append(f"== {menu}: {i + 1}\n" + "\n".join(rows) + "\n")
                    if theirs and differences(ours, theirs):
                        otherwise.setdefault(menu, []).append(i + 1)
            file = EMULATOR / "vttest.screens"
            if os.environ.get("SBX_VTTEST_WRITE"):
                file.write_text("".join(written))
                print(otherwise)
            expected = re.split(r"(?m)^(?=== )", file.read_text())[1:]
            self.assertEqual(len(written), len(expected))
            for got, want in zip(written, expected):
                self.assertEqual(got, want)
            self.assertEqual(otherwise, self.OTHERWISE)


if __name__ == "__main__":
    unittest.main()

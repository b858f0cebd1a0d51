"""The filter and libvterm together: libvterm's own tests through our filter, and recorded programs beside tmux."""
import glob
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
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
            ours = [EMULATOR / "libvterm_shim.c", *(ROOT / "src/core" / f for f in ("vtfilter.c", "width.c", "sanitize.c"))]
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


@unittest.skipUnless(shutil.which("tmux"), "there is no tmux")
class BesideTmux(unittest.TestCase):
    """Recordings of real programs (24 x 80): the same characters in the same places as on tmux's screen."""

    def test_recordings_make_the_same_screens(self):
        with tempfile.TemporaryDirectory() as tmp:
            tmp = pathlib.Path(tmp)
            sources = [EMULATOR / "show.c", ROOT / "src/ui/dash/term_emu.c",
                       *(ROOT / "src/core" / f for f in ("termline.c", "vtfilter.c", "width.c", "sanitize.c"))]
            built = run("gcc", "-std=c17", "-D_GNU_SOURCE", "-I", ROOT / "src", "-o", tmp / "show", *sources, "-lvterm")
            self.assertEqual(built.returncode, 0, built.stderr.decode())
            files = sorted((EMULATOR / "recordings").glob("*.rec"))
            self.assertGreater(len(files), 3)
            env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(tmp)}
            for f in files:
                data = f.read_bytes()
                for part in (1, 2, 3, 4):
                    size = len(data) * part // 4
                    # Not within a line that a program is about to write: where it waited for a key, or at the end.
                    cut = tmp / "cut"
                    cut.write_bytes(data[:size])
                    tmux = ["tmux", "-S", tmp / f"{f.stem}{part}", "-f", "/dev/null"]
                    run(*tmux, "new-session", "-d", "-x", "80", "-y", "24", f"stty raw -echo; cat {cut}; touch {tmp}/done; sleep 60", ";",
                        "set", "-g", "status", "off", env=env)
                    wait_for(lambda: (tmp / "done").exists(), 10)
                    clean = lambda rows: [r.rstrip() for r in rows + [""] * (24 - len(rows))]
                    ours = clean(run(tmp / "show", cut, size, 24, 80).stdout.decode().splitlines())
                    theirs = lambda: clean(run(*tmux, "capture-pane", "-p", env=env).stdout.decode().splitlines())
                    wait_for(lambda: theirs() == ours, 3)  # what cat wrote, tmux may still have to read
                    self.assertEqual(ours, theirs(), f"{f.name}, the first {size} bytes")
                    run(*tmux, "kill-server", env=env)
                    (tmp / "done").unlink(missing_ok=True)


if __name__ == "__main__":
    unittest.main()

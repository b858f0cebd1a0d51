"""The filter and libvterm together: libvterm's own tests through our filter, and recorded programs beside tmux."""
import glob
import pathlib
import re
import subprocess
import tempfile
import unittest

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


if __name__ == "__main__":
    unittest.main()

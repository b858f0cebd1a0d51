#!/usr/bin/env python3
"""Which attack of the list (1 to 100) has which test.  A test says so by its name: threat_NN_... (cmocka), with several
numbers threat_05_15_16_..., test_threat_NN_... (python).  What needs none stands in tests/threats.md, a line each:

    threat_NN: not applicable, because ...

With --check the exit status is 1 if a number has neither."""
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
NAME = re.compile(r"\b(?:test_)?threat_((?:\d{2,3}_)+)[a-z]\w*")
LINE = re.compile(r"^threat_(\d{2,3}): not applicable, because \S.*", re.M)


def tests():
    found = {}
    for path in sorted([*HERE.glob("unit/*.c"), *HERE.glob("e2e/*.py"), *HERE.glob("bench/*.*")]):
        for m in NAME.finditer(path.read_text(errors="replace")):
            for number in m.group(1).strip("_").split("_"):
                found.setdefault(int(number), set()).add(f"{path.relative_to(HERE)}: {m.group(0)}")
    return found


def main():
    found = tests()
    excused = {int(m.group(1)): m.group(0).split(": ", 1)[1] for m in LINE.finditer((HERE / "threats.md").read_text())}
    missing = []
    for number in range(1, 101):
        lines = sorted(found.get(number, [])) or ([excused[number]] if number in excused else [])
        if not lines:
            missing.append(number)
        if "--check" not in sys.argv:
            print(f"{number:3}  " + ("\n     ".join(lines) if lines else "MISSING"))
    if missing:
        print(f"no test and no reason: {', '.join(map(str, missing))}", file=sys.stderr)
    return 1 if missing and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Writes src/core/width_table.h from the Unicode data that Python carries: run it when Unicode grows.

Zero columns: marks (Mn, Me) and format characters (Cf) but the soft hyphen, Hangul vowels and finals.
Two columns: East Asian Wide and Fullwidth."""
import sys
import unicodedata as u


def zero(c):
    return (u.category(chr(c)) in ("Mn", "Me", "Cf") and c != 0xAD) or 0x1160 <= c <= 0x11FF


def wide(c):
    if u.category(chr(c)) == "Cn":  # Python's answer for what is not assigned is no good; Unicode's is these blocks
        return 0x3400 <= c <= 0x9FFF or 0xF900 <= c <= 0xFAFF or 0x20000 <= c <= 0x3FFFD
    return u.east_asian_width(chr(c)) in "WF" and not zero(c)


def ranges(test):
    out, start = [], None
    for c in range(0x80, 0x110001):
        hit = c < 0x110000 and not 0xD800 <= c < 0xE000 and test(c)
        if hit and start is None:
            start = c
        elif not hit and start is not None:
            out.append((start, c - 1))
            start = None
    return out


def table(name, rows):
    print(f"static const struct range {name}[] = {{")
    cells = [f"{{0x{a:04x}, 0x{b:04x}}}," for a, b in rows]
    for i in range(0, len(cells), 5):
        print("    " + " ".join(cells[i:i + 5]))
    print("};\n")


print(f"/* Written by scripts/gen-width.py from Unicode {u.unidata_version}; not by hand. */")
table("zero_width", ranges(zero))
table("double_width", ranges(wide))
sys.stdout.flush()

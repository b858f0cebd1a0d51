"""A terminal's screen as a picture: reads `tmux capture-pane -N -e -p` on standard input, writes a PNG.
usage: ansi2png.py OUT.png COLUMNS ROWS [light]"""
import re
import sys
import unicodedata

from PIL import Image, ImageDraw, ImageFont

FONTS = "/usr/share/fonts/truetype/dejavu/"
BG, FG = ((250, 250, 248), (40, 44, 52)) if sys.argv[4:] == ["light"] else ((13, 18, 25), (200, 208, 220))
# Neighbours of characters that no font of Debian's base has.
ALIKE = {"\u23bf": "\u2514", "\u23f5": "\u25b8"}
BASE = [(0, 0, 0), (205, 60, 60), (60, 190, 90), (205, 170, 60), (70, 120, 220), (190, 90, 200), (60, 180, 190), (210, 210, 210),
        (110, 110, 110), (255, 110, 110), (100, 230, 130), (255, 215, 100), (120, 160, 255), (230, 130, 240), (100, 225, 235), (255, 255, 255)]


def colour(n):
    if n < 16:
        return BASE[n]
    if n < 232:
        n -= 16
        return tuple(0 if v == 0 else 55 + 40 * v for v in (n // 36, n // 6 % 6, n % 6))
    return (8 + 10 * (n - 232),) * 3


def main():
    out, cols, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    size = 16
    fonts = {(b, i): ImageFont.truetype(FONTS + name, size) for (b, i), name in {
        (0, 0): "DejaVuSansMono.ttf", (1, 0): "DejaVuSansMono-Bold.ttf", (0, 1): "DejaVuSansMono-Oblique.ttf", (1, 1): "DejaVuSansMono-BoldOblique.ttf"}.items()}
    others = [ImageFont.truetype(FONTS + "DejaVuSans.ttf", size)]
    nothing = {f: f.getmask("\U000fffff").getbbox() for f in [*fonts.values(), *others]}

    def font_for(c, style):
        """The first font that has the character."""
        for f in (fonts[style], *others):
            m = f.getmask(c)
            if ord(c) < 0x250 or m.getbbox() != nothing[f] or bytes(m) != bytes(f.getmask("\U000fffff")):
                return f
        return fonts[style]

    w, h = round(fonts[0, 0].getlength("M")), 19
    image = Image.new("RGB", (cols * w + 16, rows * h + 16), BG)
    draw = ImageDraw.Draw(image)
    glyphs = []
    # tmux writes changes alone, also from line to line.
    fg, bg, bold, dim, italic, under, reverse, strike = None, None, 0, 0, 0, 0, 0, 0
    for y, line in enumerate(sys.stdin.read().split("\n")[:rows]):
        x = 0
        for m in re.finditer(r"\x1b\[([0-9;:]*)m|\x1b[()].|[\x0e\x0f]|\x1b\][^\x1b]*\x1b\\|(.)", line):
            if m.group(2) is None:
                if m.group(1) is None:
                    continue
                p = [int(v or 0) for v in re.split("[;:]", m.group(1) or "0")]
                i = 0
                while i < len(p):
                    v = p[i]
                    if v == 0:
                        fg, bg, bold, dim, italic, under, reverse, strike = None, None, 0, 0, 0, 0, 0, 0
                    elif v in (1, 2, 3, 4, 7, 9):
                        bold, dim, italic, under, reverse, strike = (bold | (v == 1), dim | (v == 2), italic | (v == 3), under | (v == 4),
                                                                     reverse | (v == 7), strike | (v == 9))
                    elif v == 22:
                        bold = dim = 0
                    elif v in (23, 24, 27, 29):
                        italic, under, reverse, strike = italic & (v != 23), under & (v != 24), reverse & (v != 27), strike & (v != 29)
                    elif 30 <= v <= 37 or 90 <= v <= 97:
                        fg = BASE[v - 30 if v < 90 else v - 82]
                    elif 40 <= v <= 47 or 100 <= v <= 107:
                        bg = BASE[v - 40 if v < 100 else v - 92]
                    elif v in (39, 49):
                        fg, bg = (None, bg) if v == 39 else (fg, None)
                    elif v in (38, 48) and i + 1 < len(p):
                        if p[i + 1] == 5:
                            c, i = colour(p[i + 2]), i + 2
                        else:
                            c, i = tuple(p[i + 2:i + 5]), i + 4
                        fg, bg = (c, bg) if v == 38 else (fg, c)
                    i += 1
                continue
            ch = ALIKE.get(m.group(2), m.group(2))
            if unicodedata.combining(ch):
                continue
            n = 2 if unicodedata.east_asian_width(ch) in "WF" else 1
            f, b = fg or FG, bg
            if reverse:
                f, b = b or BG, f
            if dim:
                f = tuple((a * 6 + c * 4) // 10 for a, c in zip(f, b or BG))
            if b:
                draw.rectangle([8 + x * w, 8 + y * h, 8 + (x + n) * w - 1, 8 + (y + 1) * h - 1], fill=b)
            if ch != " ":
                glyphs.append((8 + x * w, 8 + y * h, ch, font_for(ch, (int(bool(bold)), int(bool(italic)))), f))
            if under:
                draw.line([8 + x * w, 8 + y * h + h - 3, 8 + (x + n) * w, 8 + y * h + h - 3], fill=f)
            if strike:
                draw.line([8 + x * w, 8 + y * h + h // 2, 8 + (x + n) * w, 8 + y * h + h // 2], fill=f)
            x += n
    for x, y, ch, font, f in glyphs:  # after every cell's ground, which would cut a wide one
        draw.text((x, y), ch, font=font, fill=f)
    image.save(out)


main()

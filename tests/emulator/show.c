/* Prints the screen that a recording makes: show FILE BYTES ROWS COLS.  A cell is its text, then its colours and
 * attributes (term_cell's, in hexadecimal), fields ended by tabs; a row of the screen is a line. */
#include <stdio.h>
#include <stdlib.h>

#include "ui/dash/term_emu.h"

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    FILE *f = fopen(argv[1], "re");
    int cols = atoi(argv[4]);
    struct term_emu *t = term_emu_new(atoi(argv[3]), cols, 100, NULL, NULL);
    static struct term_cell cells[TERM_COLS_MAX];
    char buf[777];
    size_t n, left = (size_t)atol(argv[2]);
    if (!f || !t || cols > TERM_COLS_MAX)
        return 1;
    while (left && (n = fread(buf, 1, left < sizeof buf ? left : sizeof buf, f)) > 0) {
        term_emu_feed(t, buf, n);
        left -= n;
    }
    for (uint64_t line = term_emu_top(t); line < term_emu_end(t); line++) {
        term_emu_line(t, line, cells, cols);
        for (int i = 0; i < cols; i++) {
            unsigned char text[4];
            if (cells[i].width == 0)
                continue;
            if (!cells[i].ch[0])
                putchar(' ');
            for (int k = 0; k < TERM_CHARS && cells[i].ch[k]; k++)
                fwrite(text, 1, term_utf8(text, cells[i].ch[k]), stdout);
            printf("\t%x\t%x\t%x\t", cells[i].fg, cells[i].bg, cells[i].attrs);
        }
        putchar('\n');
    }
    fclose(f);
    term_emu_free(t);
    return 0;
}

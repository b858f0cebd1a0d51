/* Prints the screen that a recording makes, as text: show FILE BYTES ROWS COLS. */
#include <stdio.h>
#include <stdlib.h>

#include "ui/dash/term_emu.h"

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    FILE *f = fopen(argv[1], "re");
    struct term_emu *t = term_emu_new(atoi(argv[3]), atoi(argv[4]), 100, NULL, NULL);
    char buf[777];
    size_t n, left = (size_t)atol(argv[2]), len;
    if (!f || !t)
        return 1;
    while (left && (n = fread(buf, 1, left < sizeof buf ? left : sizeof buf, f)) > 0) {
        term_emu_feed(t, buf, n);
        left -= n;
    }
    for (uint64_t line = term_emu_top(t); line < term_emu_end(t); line++) {
        char *text = term_emu_text(t, (struct term_place){line, 0}, (struct term_place){line, TERM_COLS_MAX - 1}, false, &len);
        puts(text);
        free(text);
    }
    fclose(f);
    term_emu_free(t);
    return 0;
}

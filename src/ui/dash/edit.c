#include "ui/dash/edit.h"

#include <string.h>

bool edit_tail(char *text, size_t cap, const struct input *in)
{
    size_t n = strlen(text);
    bool ctrl = in->mods & MOD_CTRL;
    if (in->type == INPUT_KEY && in->key == K_BACKSPACE) {
        while (n && ((unsigned char)text[n - 1] & 0xc0) == 0x80)
            n--;
        n -= n > 0;
    } else if (in->type == INPUT_KEY && ctrl && (in->key == 'u' || in->key == 'w')) {
        while (n && text[n - 1] == ' ')
            n--;
        while (n && (in->key == 'u' || text[n - 1] != ' '))
            n--;
    } else if (in->type == INPUT_PASTE || (in->type == INPUT_KEY && in->key < 0x110000 && !(in->mods & (MOD_CTRL | MOD_ALT)))) {
        for (size_t i = 0; i < in->raw_len && n + 1 < cap; i++)
            if ((unsigned char)in->raw[i] >= 32 && in->raw[i] != 127)
                text[n++] = in->raw[i];
        while (n && n + 1 == cap && ((unsigned char)text[n - 1] & 0x80)) /* no half of a character at the brim */
            n--;
    } else {
        return false;
    }
    text[n] = '\0';
    return true;
}

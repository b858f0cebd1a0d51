#include "core/name.h"

#include <string.h>

static bool is_number(const char *label, size_t len)
{
    size_t i = 0;
    bool hex = len > 1 && label[0] == '0' && label[1] == 'x';
    if (hex)
        i = 2;
    for (; i < len; i++) {
        char c = label[i];
        if (!(c >= '0' && c <= '9') && !(hex && c >= 'a' && c <= 'f'))
            return false;
    }
    return true;
}

bool name_canonical(const char *in, size_t len, char out[NAME_MAX_LEN + 1])
{
    if (len && in[len - 1] == '.')
        len--;
    if (len == 0 || len > NAME_MAX_LEN)
        return false;
    size_t label = 0;
    for (size_t i = 0; i <= len; i++) {
        char c = i < len ? in[i] : '.';
        if (c == '.') {
            size_t n = i - label;
            if (n == 0 || n > 63 || out[label] == '-' || out[i - 1] == '-')
                return false;
            if (i == len)
                break;
            label = i + 1;
        } else if (c >= 'A' && c <= 'Z') {
            c = (char)(c - 'A' + 'a');
        } else if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_') {
            return false;
        }
        out[i] = c;
    }
    out[len] = '\0';
    return !is_number(out + label, len - label);
}

bool name_is_canonical(const char *text, size_t len)
{
    char out[NAME_MAX_LEN + 1];
    return name_canonical(text, len, out) && strlen(out) == len && memcmp(out, text, len) == 0;
}

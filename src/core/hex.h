/* Hexadecimal digits. */
#ifndef SBX_CORE_HEX_H
#define SBX_CORE_HEX_H

/* The value of one digit, in either case; -1: it is none. */
static inline int hex_digit(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

#endif

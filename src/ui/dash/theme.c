#include "ui/dash/theme.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/paths.h"

static const char *const style_names[ST_COUNT] = {
    "text", "dim", "strong", "accent", "title", "status", "key", "frame", "frame.on", "heading", "selected",
    "selected.off", "marked", "running", "waiting", "busy", "stopped", "failed", "allow", "deny", "warn", "good",
    "badge", "field", "field.on", "button", "button.on", "bar", "bar.empty", "match",
};

static struct look looks[ST_COUNT];
static char current[32] = "dark";

/* The 6 levels of the colour cube. */
static const int levels[] = {0, 95, 135, 175, 215, 255};

static int nearest_level(int v)
{
    int best = 0;
    for (int i = 1; i < 6; i++)
        if (abs(levels[i] - v) < abs(levels[best] - v))
            best = i;
    return best;
}

static long apart(uint32_t a, uint32_t b)
{
    long dr = (long)(a >> 16 & 255) - (long)(b >> 16 & 255), dg = (long)(a >> 8 & 255) - (long)(b >> 8 & 255),
         db = (long)(a & 255) - (long)(b & 255);
    return 2 * dr * dr + 4 * dg * dg + 3 * db * db;
}

int theme_to_256(uint32_t rgb)
{
    int r = (int)(rgb >> 16 & 255), g = (int)(rgb >> 8 & 255), b = (int)(rgb & 255);
    int lr = nearest_level(r), lg = nearest_level(g), lb = nearest_level(b);
    uint32_t cube = (uint32_t)levels[lr] << 16 | (uint32_t)levels[lg] << 8 | (uint32_t)levels[lb];
    int grey = (r + g + b) / 3, step = grey < 8 ? 0 : grey > 238 ? 23 : (grey - 3) / 10;
    uint32_t v = (uint32_t)(8 + 10 * step), shade = v << 16 | v << 8 | v;
    return apart(shade, rgb) < apart(cube, rgb) ? 232 + step : 16 + 36 * lr + 6 * lg + lb;
}

static const uint32_t base[16] = {0x000000, 0xcd0000, 0x00cd00, 0xcdcd00, 0x0000ee, 0xcd00cd, 0x00cdcd, 0xe5e5e5,
                                      0x7f7f7f, 0xff0000, 0x00ff00, 0xffff00, 0x5c5cff, 0xff00ff, 0x00ffff, 0xffffff};

int theme_to_16(uint32_t rgb)
{
    int best = 0;
    for (int i = 1; i < 16; i++)
        if (apart(base[i], rgb) < apart(base[best], rgb))
            best = i;
    return best;
}

int theme_rgb(uint32_t rgb)
{
    if (COLORS > 0xffff) /* a terminal description with direct colours; the first 8 numbers are the palette's */
        return (int)((rgb & 0xffffff) < 8 ? 8 : (rgb & 0xffffff));
    if (COLORS >= 256)
        return theme_to_256(rgb);
    int c = theme_to_16(rgb);
    return COLORS >= 16 ? c : c & 7;
}

int theme_pair(int fg, int bg)
{
    if (COLORS < 8 || !has_colors() || (fg < 0 && bg < 0))
        return 0;
    int pair = alloc_pair(fg, bg);
    return pair < 0 ? 0 : pair;
}

struct look theme_look(enum style s)
{
    return looks[s];
}

void theme_set(WINDOW *win, enum style s)
{
    int pair = looks[s].pair;
    wattr_set(win, looks[s].attrs, (short)(pair > 32767 ? 0 : pair), &pair);
}

/* A number of the palette as xterm has it. */
static uint32_t palette(long n)
{
    if (n < 16)
        return base[n];
    if (n < 232) {
        n -= 16;
        return (uint32_t)levels[n / 36] << 16 | (uint32_t)levels[n / 6 % 6] << 8 | (uint32_t)levels[n % 6];
    }
    return (uint32_t)(8 + 10 * (n - 232)) * 0x10101u;
}

static bool colour(const char *word, int *out)
{
    char *end;
    if (strcmp(word, "-") == 0) {
        *out = -1;
        return true;
    }
    if (word[0] == '#' && strlen(word) == 7) {
        unsigned long v = strtoul(word + 1, &end, 16);
        *out = theme_rgb((uint32_t)v);
        return *end == '\0';
    }
    long n = strtol(word, &end, 10);
    if (*end || end == word || n < 0 || n > 255)
        return false;
    *out = COLORS > 0xffff && n >= 8 ? theme_rgb(palette(n)) : COLORS >= 256 ? (int)n : (int)(n & 7);
    return true;
}

static bool attribute(const char *word, attr_t *out)
{
    static const struct {
        const char *name;
        attr_t bit;
    } table[] = {{"bold", A_BOLD}, {"dim", A_DIM}, {"italic", A_ITALIC}, {"underline", A_UNDERLINE}, {"reverse", A_REVERSE}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, word) == 0) {
            *out |= table[i].bit;
            return true;
        }
    return false;
}

static int read_line(char *line, bool seen[ST_COUNT], bool mono)
{
    char *save = NULL, *name = strtok_r(line, " \t\n", &save);
    if (!name || name[0] == '#')
        return 0;
    char *eq = strtok_r(NULL, " \t\n", &save), *word;
    int s = 0, colours[2] = {-1, -1}, n = 0;
    attr_t attrs = 0;
    while (s < ST_COUNT && strcmp(style_names[s], name) != 0)
        s++;
    if (s == ST_COUNT || !eq || strcmp(eq, "=") != 0)
        return -1;
    while ((word = strtok_r(NULL, " \t\n", &save))) {
        if (attribute(word, &attrs))
            continue;
        if (n == 2 || !colour(word, &colours[n]))
            return -1;
        n++;
    }
    looks[s] = (struct look){.attrs = attrs, .pair = mono ? 0 : theme_pair(colours[0], colours[1])};
    seen[s] = true;
    return 0;
}

static FILE *open_theme(const char *name)
{
    char rel[64];
    if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != strlen(name) || strlen(name) > 30 || !*name)
        return NULL;
    snprintf(rel, sizeof rel, "themes/%s.theme", name);
    char *own = path_in(PATH_CONFIG, NULL, "themes/%s.theme", name), *ours = path_asset(rel, NULL);
    FILE *f = own ? fopen(own, "re") : NULL;
    if (!f && ours)
        f = fopen(ours, "re");
    free(own);
    free(ours);
    return f;
}

/* "15;0": the last number is the background; 7 and 9 to 15 are light. */
static bool light_terminal(void)
{
    const char *v = getenv("COLORFGBG"), *semi = v ? strrchr(v, ';') : NULL;
    int bg = semi ? atoi(semi + 1) : 0;
    return bg == 7 || (bg > 8 && bg < 16);
}

int theme_load(const char *name, struct err *e)
{
    const char *no = getenv("NO_COLOR");
    bool mono = (no && *no) || COLORS < 8 || !has_colors(), seen[ST_COUNT] = {false};
    if (mono)
        name = "monochrome";
    else if (!name || !*name || strcmp(name, "auto") == 0)
        name = light_terminal() ? "light" : "dark";
    int rc = 0, line_no = 0;
    FILE *f = open_theme(name);
    if (!f) {
        char all[200];
        theme_names(all, sizeof all);
        rc = err_set(e, STATUS_NOT_FOUND, "there is no theme \"%s\"; there are: %s", name, all);
        name = mono ? "monochrome" : "dark";
        f = open_theme(name);
    }
    memset(looks, 0, sizeof looks);
    looks[ST_SELECTED].attrs = looks[ST_BUTTON_ON].attrs = A_REVERSE; /* if there is no file at all */
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        line_no++;
        if (read_line(line, seen, mono) < 0 && rc == 0)
            rc = err_set(e, STATUS_USAGE, "theme %s, line %d: write STYLE = FOREGROUND BACKGROUND ATTRIBUTE...", name, line_no);
    }
    if (f) {
        fclose(f);
        for (int s = 0; s < ST_COUNT; s++)
            if (!seen[s])
                looks[s] = looks[ST_TEXT];
    }
    snprintf(current, sizeof current, "%.31s", name);
    return rc;
}

const char *theme_current(void)
{
    return current;
}

void theme_names(char *out, size_t cap)
{
    char *dirs[2] = {path_asset("themes", NULL), path_in(PATH_CONFIG, NULL, "themes")};
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < 2; i++) {
        struct dirent **list = NULL;
        int n = dirs[i] ? scandir(dirs[i], &list, NULL, alphasort) : -1;
        for (int j = 0; j < n; j++) {
            char *dot = strrchr(list[j]->d_name, '.');
            if (dot && dot != list[j]->d_name && strcmp(dot, ".theme") == 0 && used + strlen(list[j]->d_name) + 2 < cap)
                used += (size_t)snprintf(out + used, cap - used, "%s%.*s", used ? " " : "", (int)(dot - list[j]->d_name), list[j]->d_name);
            free(list[j]);
        }
        if (n >= 0)
            free(list);
        free(dirs[i]);
    }
}

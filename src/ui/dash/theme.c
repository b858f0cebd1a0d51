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
static int outer = -1;      /* the terminal's own background: 1 light, 0 dark */
static int text_fg, text_bg; /* of ordinary text; -1: the terminal's own */
static bool light;

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

/* Of 8 there is no grey: it is white or black, whatever is nearer, so that a faint text is seen on a dark ground. */
int theme_to_8(uint32_t rgb)
{
    int r = (int)(rgb >> 16 & 255), g = (int)(rgb >> 8 & 255), b = (int)(rgb & 255);
    int most = r > g ? (r > b ? r : b) : g > b ? g : b, least = r < g ? (r < b ? r : b) : g < b ? g : b;
    if (most < 96)
        return 0;
    if (most - least < 48)
        return 7;
    int much = least + (most - least) * 56 / 100; /* a little above the middle: a dim blue ground stays blue */
    return (r > much) | (g > much) << 1 | (b > much) << 2;
}

int theme_rgb(uint32_t rgb)
{
    if (COLORS > 0xffff) /* a terminal description with direct colours; the first 8 numbers are the palette's */
        return (int)((rgb & 0xffffff) < 8 ? 8 : (rgb & 0xffffff));
    if (COLORS >= 256)
        return theme_to_256(rgb);
    return COLORS >= 16 ? theme_to_16(rgb) : theme_to_8(rgb);
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
    *out = COLORS >= 256 && (COLORS <= 0xffff || n < 8) ? (int)n : n < COLORS && n < 16 ? (int)n : theme_rgb(palette(n));
    return true;
}

/* Is "#rrggbb", or a number of the palette, a light colour? -1: neither of them. */
static int is_light(const char *word)
{
    char *end;
    long n = strtol(word, &end, 10);
    uint32_t c;
    if (word[0] == '#' && strlen(word) == 7)
        c = (uint32_t)strtoul(word + 1, NULL, 16);
    else if (*word && !*end && n >= 0 && n < 256)
        c = palette(n);
    else
        return -1;
    return 3 * (c >> 16 & 255) + 6 * (c >> 8 & 255) + (c & 255) > 1275;
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

/* A style as its line gives it. */
struct drawn {
    bool seen;
    int fg, bg;
    attr_t attrs;
};

static int read_line(char *line, struct drawn all[ST_COUNT])
{
    char *save = NULL, *name = strtok_r(line, " \t\n", &save);
    if (!name || name[0] == '#')
        return 0;
    char *eq = strtok_r(NULL, " \t\n", &save), *word;
    int s = 0, colours[2] = {-1, -1}, n = 0, ground = -1;
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
        if (n++ == 1)
            ground = is_light(word);
    }
    if (s == ST_TEXT)
        light = ground < 0 ? outer == 1 : ground == 1;
    all[s] = (struct drawn){true, colours[0], colours[1], attrs};
    return 0;
}

/* "-" is as ordinary text has it, and of that the terminal's own. */
static void settle(struct drawn all[ST_COUNT], bool mono)
{
    text_fg = mono || !all[ST_TEXT].seen ? -1 : all[ST_TEXT].fg;
    text_bg = mono || !all[ST_TEXT].seen ? -1 : all[ST_TEXT].bg;
    for (int s = 0; s < ST_COUNT; s++) {
        const struct drawn *d = all[s].seen ? &all[s] : &all[ST_TEXT];
        int fg = d->fg < 0 ? text_fg : d->fg, bg = d->bg < 0 ? text_bg : d->bg;
        if (fg >= 0 && fg == bg) /* where colours are few, two become one: it must be read all the same */
            fg = bg == COLOR_BLACK ? COLOR_WHITE : COLOR_BLACK;
        looks[s] = (struct look){.attrs = d->attrs, .pair = mono ? 0 : theme_pair(fg, bg)};
    }
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

void theme_terminal(bool is_light)
{
    outer = is_light;
}

bool theme_light(void)
{
    return light;
}

void theme_default(int *fg, int *bg)
{
    *fg = text_fg;
    *bg = text_bg;
}

int theme_load(const char *name, struct err *e)
{
    const char *no = getenv("NO_COLOR");
    bool mono = (no && *no) || COLORS < 8 || !has_colors();
    struct drawn all[ST_COUNT] = {0};
    if (mono)
        name = "monochrome";
    else if (!name || !*name || strcmp(name, "auto") == 0)
        name = outer == 1 ? "light" : "dark";
    int rc = 0, line_no = 0, bad = 0;
    FILE *f = open_theme(name);
    if (!f) {
        char names[200];
        theme_names(names, sizeof names);
        rc = err_set(e, STATUS_NOT_FOUND, "there is no theme \"%s\"; there are: %s", name, names);
        name = mono ? "monochrome" : "dark";
        f = open_theme(name);
    }
    memset(looks, 0, sizeof looks);
    text_fg = text_bg = -1;
    light = outer == 1;
    looks[ST_SELECTED].attrs = looks[ST_BUTTON_ON].attrs = A_REVERSE; /* if there is no file at all */
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        line_no++;
        if (read_line(line, all) < 0 && bad++ == 0)
            rc = err_set(e, STATUS_USAGE, "theme %s, line %d: write STYLE = FOREGROUND BACKGROUND ATTRIBUTE...", name, line_no);
    }
    if (f) {
        fclose(f);
        settle(all, mono);
    }
    if (bad > 1 && e)
        snprintf(e->text + strlen(e->text), sizeof e->text - strlen(e->text), " (and %d more of its lines)", bad - 1);
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

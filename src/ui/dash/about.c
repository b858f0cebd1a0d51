/* All that is known of a sandbox, for people: what `sbx inspect` prints as JSON. */
#include "ui/dash/about.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/sanitize.h"
#include "ui/dash/paint.h"
#include "ui/session.h"

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static long long number(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static void field(FILE *f, const char *label, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void field(FILE *f, const char *label, const char *fmt, ...)
{
    char raw[1200], safe[1200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof raw, fmt, ap);
    va_end(ap);
    sanitize_line(safe, sizeof safe, raw, strlen(raw));
    if (safe[0])
        fprintf(f, "\005%s\t%s\n", label, safe);
}

static void moment(long long when, char *out, size_t cap)
{
    time_t t = (time_t)when;
    struct tm tm;
    strftime(out, cap, "%Y-%m-%d %H:%M", localtime_r(&t, &tm));
}

static void size(long long kib, char *out, size_t cap)
{
    paint_kib(kib, out, cap);
    char *nought = strstr(out, ".0 ");
    if (nought) /* 20 GiB */
        memmove(nought, nought + 2, strlen(nought + 2) + 1);
}

static void session(FILE *f, const json_t *s)
{
    char command[300] = "", more[120] = "", quiet[24], label[16];
    size_t i, used = 0;
    json_t *word;
    json_array_foreach(json_object_get(s, "command"), i, word)
        if (used < sizeof command)
            used += (size_t)snprintf(command + used, sizeof command - used, "%s%s", i ? " " : "", json_string_value(word));
    if (json_is_string(json_object_get(s, "command")))
        snprintf(command, sizeof command, "%s", text(s, "command"));
    snprintf(label, sizeof label, "%lld", number(s, "session"));
    if (!session_is_live(s)) {
        field(f, label, "%s: ended", command);
        return;
    }
    if (json_is_true(json_object_get(s, "tty")))
        snprintf(more, sizeof more, ", %lld x %lld%s", number(s, "cols"), number(s, "rows"), number(s, "clients") ? ", shown somewhere" : "");
    paint_span(number(s, "quiet_ms") / 1000, quiet, sizeof quiet);
    field(f, label, "%s%s, as %s%s, quiet for %s", command, json_is_true(json_object_get(s, "agent")) ? " (the agent)" : "", text(s, "user"), more, quiet);
    field(f, "", "%s", text(s, "title"));
}

void about_write(FILE *f, const json_t *o)
{
    const json_t *m = json_object_get(o, "machine");
    char when[32], span[32], room[32];
    size_t i;
    json_t *v;
    fprintf(f, "\001Sandbox\n");
    field(f, "Agent", "%s", text(o, "agent"));
    if (m)
        paint_span(number(m, "uptime_ms") / 1000, span, sizeof span);
    field(f, "State", "%s%s%s%s%s", text(o, "state"), m ? " for " : "", m ? span : "", text(o, "reason")[0] ? ": " : "", text(o, "reason"));
    json_array_foreach(json_object_get(o, "folders"), i, v)
        field(f, i ? "" : "Folders", "%s%s", text(v, "path"), json_is_true(json_object_get(v, "read_only")) ? " (read-only)" : "");
    field(f, "Starts from", "%s", text(o, "template"));
    moment(number(o, "created"), when, sizeof when);
    field(f, "Created", "%s", when);
    json_array_foreach(json_object_get(o, "publish"), i, v)
        field(f, i ? "" : "Ports", "%s:%lld of this host to %lld", text(v, "address")[0] ? text(v, "address") : "127.0.0.1", number(v, "host"), number(v, "guest"));
    json_array_foreach(json_object_get(o, "env"), i, v)
        field(f, i ? "" : "Variables", "%s", json_string_value(v));
    field(f, "Network", "%s", text(o, "network_trouble"));
    fprintf(f, "\n\001Machine\n");
    field(f, "Processors", "%lld", number(o, "cpus"));
    size(number(o, "memory_mib") * 1024, room, sizeof room);
    if (m)
        size(number(m, "mem_kib"), span, sizeof span);
    field(f, "Memory", "%s%s%s", room, m ? ", takes " : "", m ? span : "");
    size(number(o, "disk_mib") * 1024, room, sizeof room);
    field(f, "Disk", "%s at most", room);
    if (m) {
        paint_span(number(m, "cpu_us") / 1000000, span, sizeof span);
        field(f, "Has used", "%s of a processor", span);
        field(f, "Runs on", "%s", strcmp(text(m, "accel"), "kvm") == 0 ? "KVM" : "emulation");
        field(f, "", "%s", text(m, "notice"));
        field(f, "Process", "%lld", number(m, "pid"));
        field(f, "Blocked", "%lld attempt%s", number(m, "blocked"), number(m, "blocked") == 1 ? "" : "s");
        if (json_array_size(json_object_get(m, "sessions")))
            fprintf(f, "\n\001Sessions\n");
        json_array_foreach(json_object_get(m, "sessions"), i, v)
            session(f, v);
    }
    if (json_array_size(json_object_get(o, "changed_host_files")))
        fprintf(f, "\n\001What programs of this host obey, changed by it\n");
    json_array_foreach(json_object_get(o, "changed_host_files"), i, v)
        field(f, "", "%s", json_is_string(v) ? json_string_value(v) : text(v, "path"));
}

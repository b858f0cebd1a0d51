#include "vm/parcels.h"

#include <stdbool.h>
#include <string.h>

#include "core/link.h"

#define PIECE 8192u /* of a file: as JSON it grows to six times that at most */
#define FULL (LINK_PAYLOAD_MAX - 1024u) /* room for what is around the files */

/* Puts one entry into the last parcel, or into a new one; takes the entry. */
static bool put(json_t *parcels, size_t *used, json_t *entry)
{
    size_t len = entry ? json_dumpb(entry, NULL, 0, JSON_COMPACT) + 1 : 0;
    if (len && (json_array_size(parcels) == 0 || *used + len > FULL)) {
        if (json_array_append_new(parcels, json_array()) < 0)
            len = 0;
        *used = 0;
    }
    *used += len;
    json_t *last = json_array_get(parcels, json_array_size(parcels) - 1);
    if (!len) {
        json_decref(entry);
        return false;
    }
    return json_array_append_new(last, entry) == 0;
}

/* How much of the text goes into a piece: whole characters. */
static size_t piece(const char *text, size_t len)
{
    size_t n = len < PIECE ? len : PIECE;
    while (n < len && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static bool put_file(json_t *parcels, size_t *used, json_t *file)
{
    const char *key = json_object_get(file, "content") ? "content" : "base64";
    const json_t *whole = json_object_get(file, key);
    const char *text = json_string_value(whole);
    size_t len = json_string_length(whole), n;
    if (!text || len <= PIECE)
        return put(parcels, used, json_incref(file));
    for (; len; text += n, len -= n) {
        n = piece(text, len);
        json_t *part = json_copy(file);
        json_object_set_new(part, key, json_stringn(text, n));
        if (n < len)
            json_object_set_new(part, "more", json_true());
        if (!json_is_string(json_object_get(part, key))) {
            json_decref(part);
            return false;
        }
        if (!put(parcels, used, part))
            return false;
    }
    return true;
}

json_t *parcels_of(const json_t *files)
{
    json_t *parcels = json_array(), *file;
    size_t i, used = 0;
    json_array_foreach((json_t *)files, i, file)
        if (!parcels || !put_file(parcels, &used, file)) {
            json_decref(parcels);
            return NULL;
        }
    return parcels;
}

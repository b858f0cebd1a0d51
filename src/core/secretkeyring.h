/* The user's own keyring (GNOME Keyring, KWallet, KeePassXC): a key in the Secret Service of the session bus
 * (freedesktop.org, "Secret Service API", 0.2). */
#ifndef SBX_CORE_SECRETKEYRING_H
#define SBX_CORE_SECRETKEYRING_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

/* Whether a session bus answers and has the service. */
bool secretkeyring_available(void);
/* The key that was put there under that id.  prompt: the keyring may ask the user to unlock it, and is waited for. */
int secretkeyring_get(const char *id, bool prompt, unsigned char *key, size_t len, struct err *e);
int secretkeyring_put(const char *id, const unsigned char *key, size_t len, struct err *e);
/* Takes it out, where that needs no asking. */
void secretkeyring_forget(const char *id);

#endif

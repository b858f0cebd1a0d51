/* Local sockets by path, also where the path is longer than a socket address can hold. */
#ifndef SBX_CORE_UNIXSOCK_H
#define SBX_CORE_UNIXSOCK_H

#include "core/err.h"

/* A listening stream socket, mode 0600, replacing a stale one.  Descriptor or -1. */
int unixsock_listen(const char *path, struct err *e);
/* STATUS_NOT_FOUND if nobody listens; STATUS_TIMEOUT if who does takes nobody in for wait_ms.  0: not to wait at all. */
int unixsock_connect(const char *path, int wait_ms, struct err *e);
/* Is the peer of a connection this very user (or root)? */
int unixsock_peer_ok(int fd);
/* One descriptor over a stream socket, with one byte. -1 on failure. */
int unixsock_send_fd(int sock, int fd);
int unixsock_recv_fd(int sock);

#endif

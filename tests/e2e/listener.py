"""What accepts for the servers of tests."""
import socket
import threading


class Listener:
    """Serves each connection of a listening socket, which it owns, in a thread of its own."""

    def __init__(self, sock, serve):
        self.sock, self.serve = sock, serve
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                s, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def close(self):
        """Whoever accepts is woken first: a process that was stopped, or frozen with its machine, begins such a call anew,
        and by then the descriptor may be another server's, whose connection it would take."""
        if self.sock.fileno() >= 0:
            self.sock.shutdown(socket.SHUT_RDWR)
            self.thread.join()
            self.sock.close()

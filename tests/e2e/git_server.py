"""A private repository over HTTPS behind Basic auth: git's own http-backend, for who knows the token alone."""
import base64
import http.server
import os
import pathlib
import ssl
import subprocess
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while (size := int(self.rfile.readline().split(b";")[0], 16)):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def serve(self):
        body = self.body()
        self.server.seen.append((self.command, self.path, self.headers.get("Authorization")))
        want = "Basic " + base64.b64encode(f"x-access-token:{self.server.token}".encode()).decode()
        if self.headers.get("Authorization") != want:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="private"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.server.root), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "me", "PATH_INFO": path,
               "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
               "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
               "GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}
        out = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True).stdout
        head, _, data = out.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        self.send_response(int(dict(fields).get("Status", "200").split()[0]))
        for k, v in fields:
            if k != "Status":
                self.send_header(k, v)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = serve


class GitServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, certificate, root, token):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.token, self.seen = pathlib.Path(root), token, []
        repository = self.root / "private.git"
        run = lambda *a: subprocess.run(["git", *a], check=True, capture_output=True)
        run("init", "--bare", "-b", "main", repository)
        run("-C", repository, "config", "http.receivepack", "true")
        tree = subprocess.run(["git", "-C", repository, "mktree"], input=b"", check=True, capture_output=True).stdout.decode().strip()
        commit = subprocess.run(["git", "-C", repository, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit-tree", "-m", "first", tree],
                                check=True, capture_output=True).stdout.decode().strip()
        run("-C", repository, "update-ref", "refs/heads/main", commit)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *a):
        pass

    @property
    def port(self):
        return self.server_address[1]

    def log_of(self, branch):
        r = subprocess.run(["git", "-C", self.root / "private.git", "log", "--format=%s", branch], capture_output=True, text=True)
        return r.stdout.split("\n")[:-1]

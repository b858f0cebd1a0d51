"""A provider of models on the host's loopback: HTTPS, server-sent events.  It makes the agent write one file.

Speaks Anthropic's Messages and OpenAI's Responses as far as Claude Code and Codex use them; it refuses the WebSocket
that Codex tries first (426)."""
import http.server
import json
import os
import pathlib
import ssl
import subprocess
import threading


def make_ca(directory, *names):
    """A throw-away authority and a server certificate for the names. Returns (ca, certificate with key)."""
    d = pathlib.Path(directory)
    d.mkdir(exist_ok=True)
    run = lambda *a: subprocess.run(a, check=True, capture_output=True, cwd=d)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
        "/CN=sbx test authority", "-keyout", "ca.key", "-out", "ca.pem", "-addext", "basicConstraints=critical,CA:TRUE")
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={names[0]}", "-keyout",
        "server.key", "-out", "server.csr")
    (d / "ext").write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in names) + "\n")
    run("openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
        "-extfile", "ext", "-out", "server.pem")
    (d / "both.pem").write_text((d / "server.pem").read_text() + (d / "server.key").read_text())
    return d / "ca.pem", d / "both.pem"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def body(self):
        n = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            data = b""
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                data += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
        else:
            data = self.rfile.read(n)
        enc = self.headers.get("Content-Encoding", "")
        if enc == "gzip":
            import gzip
            data = gzip.decompress(data)
        elif enc == "zstd":
            data = subprocess.run(["zstd", "-dc"], input=data, capture_output=True).stdout
        try:
            return json.loads(data)
        except ValueError:
            return {}

    def reply(self, status, obj):
        data = json.dumps(obj).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-GitHub-Request-Id", "0000:1111:2222")  # Copilot believes no answer without it
        self.end_headers()
        self.wfile.write(data)

    def events(self, events):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for name, obj in events:
            data = f"event: {name}\ndata: {json.dumps(obj)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self):
        self.server.seen.append(("GET", self.path, dict(self.headers)))
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.reply(426, {"error": {"message": "upgrade required"}})
        elif self.path.startswith("/copilot_internal/user"):
            self.reply(200, {"login": "someone", "copilot_plan": "individual", "access_type_sku": "monthly_subscriber", "chat_enabled": True,
                             "cli_enabled": True, "is_mcp_enabled": True, "organization_list": [],
                             "endpoints": {"api": "https://api.individual.githubcopilot.com", "telemetry": "https://telemetry.individual.githubcopilot.com"}})
        elif self.headers.get("Copilot-Integration-Id") and self.path.startswith("/models"):
            self.reply(200, {"data": [self.copilot_model("claude-sonnet-4.5", "Anthropic"), self.copilot_model("gpt-5-mini", "OpenAI")]})
        elif self.path == "/user":
            self.reply(200, {"login": "someone", "id": 1, "type": "User"})
        elif "/models" in self.path:
            self.reply(200, {"object": "list", "data": [], "models": []})
        else:
            self.reply(404, {"error": {"type": "not_found_error", "message": "no such page"}})

    def do_POST(self):
        body = self.body()
        self.server.seen.append(("POST", self.path, dict(self.headers)))
        if self.server.key and not any(self.server.key in v for v in self.headers.values()):
            self.reply(401, {"type": "error", "error": {"type": "authentication_error", "message": "this is not the key"}})
            return
        if self.path.startswith("/mcp"):
            self.reply(404, {})
        elif self.path.startswith("/v1/messages/count_tokens"):
            self.reply(200, {"input_tokens": 10})
        elif self.path.startswith("/v1/messages"):
            self.messages(body)
        elif self.path.endswith("/responses"):
            self.openai(body)
        elif self.path.endswith("/chat/completions"):
            self.chat(body)
        elif "/models/" in self.path:
            self.gemini(body)
        else:
            self.reply(200, {})

    # -- Anthropic

    def messages(self, body):
        tools = {t.get("name") for t in body.get("tools") or []}
        last = (body.get("messages") or [{}])[-1].get("content")
        done = isinstance(last, list) and any(c.get("type") == "tool_result" for c in last)
        name = next((n for n in ("Write", "write") if n in tools), None)  # Claude Code's, opencode's
        if name and not done:
            block = {"type": "tool_use", "id": "toolu_01", "name": name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps({"file_path" if name == "Write" else "filePath": self.server.path, "content": self.server.text})}
            reason = "tool_use"
        else:
            block, reason = {"type": "text", "text": ""}, "end_turn"
            delta = {"type": "text_delta", "text": "The file is written."}
        message = {"id": "msg_01", "type": "message", "role": "assistant", "model": body.get("model", "m"), "content": [],
                   "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 10, "output_tokens": 1}}
        if not body.get("stream"):
            message.update(content=[{"type": "text", "text": "ok"}], stop_reason="end_turn")
            self.reply(200, message)
            return
        self.events([("message_start", {"type": "message_start", "message": message}),
                     ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}),
                     ("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}),
                     ("content_block_stop", {"type": "content_block_stop", "index": 0}),
                     ("message_delta", {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None},
                                        "usage": {"output_tokens": 20}}),
                     ("message_stop", {"type": "message_stop"})])

    # -- Copilot

    @staticmethod
    def copilot_model(name, vendor):
        return {"id": name, "name": name, "vendor": vendor, "version": name, "object": "model", "preview": False, "model_picker_enabled": True,
                "policy": {"state": "enabled", "terms": ""}, "supported_endpoints": ["/chat/completions"], "billing": {"is_premium": False, "multiplier": 0},
                "capabilities": {"type": "chat", "family": name, "object": "model_capabilities", "tokenizer": "o200k_base",
                                 "limits": {"max_context_window_tokens": 128000, "max_output_tokens": 16000, "max_prompt_tokens": 112000},
                                 "supports": {"streaming": True, "tool_calls": True, "parallel_tool_calls": True}}}

    def chat(self, body):
        done = any(m.get("role") == "tool" for m in body.get("messages") or [])
        tools = {t["function"]["name"]: t["function"] for t in body.get("tools") or []}
        command = f"printf %s {json.dumps(self.server.text)} > {json.dumps(self.server.path)}"
        if "bash" in tools and not done:
            delta = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {
                "name": "bash", "arguments": json.dumps({"command": command, "description": "write", "sessionId": "s", "mode": "sync", "initial_wait": 30})}}]}
            reason = "tool_calls"
        else:
            delta, reason = {"role": "assistant", "content": "The file is written."}, "stop"
        out = {"id": "chatcmpl-1", "created": 1, "model": body.get("model", "m"), "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        if not body.get("stream"):
            self.reply(200, dict(out, object="chat.completion", choices=[{"index": 0, "message": delta, "finish_reason": reason}]))
            return
        out["object"] = "chat.completion.chunk"
        lines = [dict(out, choices=[{"index": 0, "delta": delta, "finish_reason": None}]), dict(out, choices=[{"index": 0, "delta": {}, "finish_reason": reason}])]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"".join(b"data: " + json.dumps(x).encode() + b"\n\n" for x in lines) + b"data: [DONE]\n\n")
        self.close_connection = True

    # -- Gemini

    def gemini(self, body):
        if self.path.split("?")[0].endswith(":countTokens"):
            self.reply(200, {"totalTokens": 5})
            return
        part = {"functionCall": {"name": "write_file", "args": {"file_path": self.server.path, "content": self.server.text}}}
        if "functionResponse" in json.dumps(body.get("contents", "")):
            part = {"text": "The file is written."}
        if "flash-lite" in self.path:  # the one that chooses a model
            part = {"text": json.dumps({"reasoning": "simple", "model_choice": "flash", "complexity_reasoning": "simple", "complexity_score": 10})}
        out = {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}], "modelVersion": "m",
               "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}}
        if "alt=sse" not in self.path:
            self.reply(200, out)
            return
        data = b"data: " + json.dumps(out).encode() + b"\r\n\r\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # -- OpenAI

    def openai(self, body):
        done = any(i.get("type") in ("function_call_output", "custom_tool_call_output") for i in body.get("input") or [] if isinstance(i, dict))
        tools = {t.get("name") for t in body.get("tools") or []}
        command = f"printf %s {json.dumps(self.server.text)} > {json.dumps(self.server.path)}"
        if done:
            item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                    "content": [{"type": "output_text", "text": "The file is written.", "annotations": []}]}
        elif any(i.get("type") == "additional_tools" for i in body.get("input") or [] if isinstance(i, dict)):
            # Newer models write a program that calls the tools.
            code = f"const r = await tools.exec_command({{cmd: {json.dumps(command)}}}); text(r.output);"
            item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "exec", "namespace": "functions",
                    "status": "completed", "input": code}
        elif "exec_command" in tools:
            item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "exec_command", "status": "completed",
                    "arguments": json.dumps({"cmd": command})}
        elif "shell_command" in tools:
            item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "shell_command", "status": "completed",
                    "arguments": json.dumps({"command": command})}
        else:
            item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "shell", "status": "completed",
                    "arguments": json.dumps({"command": ["bash", "-lc", command]})}
        response = {"id": "resp_1", "object": "response", "status": "in_progress", "output": [], "model": body.get("model", "m")}
        finished = dict(response, status="completed", output=[item], usage={
            "input_tokens": 10, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15})
        self.events([("response.created", {"type": "response.created", "response": response}),
                     ("response.output_item.added", {"type": "response.output_item.added", "output_index": 0, "item": item}),
                     ("response.output_item.done", {"type": "response.output_item.done", "output_index": 0, "item": item}),
                     ("response.completed", {"type": "response.completed", "response": finished})])


class Provider:
    def __init__(self, certificate, path, text, key=None):
        """key: the only one that is good."""
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.seen, self.server.path, self.server.text, self.server.key = [], str(path), text, key
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.server.daemon_threads = True
        if not os.environ.get("MOCK_DEBUG"):
            self.server.handle_error = lambda *a: None
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]

    @property
    def seen(self):
        return self.server.seen

    def close(self):
        self.server.shutdown()
        self.server.server_close()

"""Records what Claude Code and Codex write to their terminal, in a real machine beside a provider of ours:

    python3 tests/emulator/record.py [claude|codex ...]

Each session is started, asked, streams an answer, shows a menu and its completion; `script` in the guest keeps the bytes
before anything of ours has read them.  The result goes to recordings/NAME-COLSxROWS.rec."""
import json
import pathlib
import re
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import mock_provider
from harness import SBX, Home, wait_for
from tmuxdrive import Terminal

ANSWER = """Here is what I found:

## A plan

1. **Read** the files, then *write* the new one.
2. Run `make test`, and look at the result.

```c
int main(void)
{
    return 0; /* 漢字, é, 🚀 */
}
```

| file | lines |
|------|-------|
| a.c  | 12    |
| b.c  | 345   |

- one point that is so long that it has to be wrapped at the edge of the terminal, wherever that may be in this case
- and another
"""


class Streaming(mock_provider.Handler):
    def slowly(self, begin, parts, end):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for name, data in begin + parts + end:
            self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
            self.wfile.flush()
            if (name, data) in parts:
                time.sleep(0.05)
        self.close_connection = True

    def messages(self, body):
        if not body.get("stream") or not body.get("tools"):
            return super().messages(body)
        message = {"id": "msg_01", "type": "message", "role": "assistant", "model": body.get("model", "m"), "content": [],
                   "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 10, "output_tokens": 1}}
        self.slowly([("message_start", {"type": "message_start", "message": message}),
                     ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})],
                    [("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}})
                     for t in re.findall(r"\s*\S+\s?", ANSWER)],
                    [("content_block_stop", {"type": "content_block_stop", "index": 0}),
                     ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                                        "usage": {"output_tokens": 20}}),
                     ("message_stop", {"type": "message_stop"})])

    def openai(self, body):
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": ANSWER, "annotations": []}]}
        empty = dict(item, status="in_progress", content=[])
        response = {"id": "resp_1", "object": "response", "status": "in_progress", "output": [], "model": body.get("model", "m")}
        finished = dict(response, status="completed", output=[item], usage={
            "input_tokens": 10, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15})
        self.slowly([("response.created", {"type": "response.created", "response": response}),
                     ("response.output_item.added", {"type": "response.output_item.added", "output_index": 0, "item": empty})],
                    [("response.output_text.delta", {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,
                                                     "content_index": 0, "delta": t}) for t in re.findall(r"\s*\S+\s?", ANSWER)],
                    [("response.output_item.done", {"type": "response.output_item.done", "output_index": 0, "item": item}),
                     ("response.completed", {"type": "response.completed", "response": finished})])


AGENTS = {
    "claude": ("anthropic", "api.anthropic.com", "sk-ant-api03-" + "0" * 40, "claude --dangerously-skip-permissions", "bypass permissions on"),
    "codex": ("openai", "api.openai.com", "sk-proj-" + "0" * 40, "codex --dangerously-bypass-approvals-and-sandbox", "OpenAI Codex"),
}


def record(home, certificate, agent):
    service, host, key, command, ready = AGENTS[agent]
    folder = pathlib.Path("/tmp/project")
    folder.mkdir(exist_ok=True)
    mock_provider.Handler = Streaming
    provider = mock_provider.Provider(certificate, folder / "a.txt", "text", key)
    home.sbx("config", "set", "net.map", f"{host}:443=127.0.0.1:{provider.port}")
    home.sbx("secret", "set", "-g", service, "--password-stdin", input=key.encode())
    home.sbx("run", agent, "--name", f"rec-{agent}", "--detach", folder, timeout=600)
    time.sleep(4)
    for cols, rows in ((80, 24), (120, 40)):
        out = f"/tmp/{agent}-{cols}.rec"
        argv = [SBX, "exec", "-t", "-i", f"rec-{agent}", "sh", "-c", f"cd {folder}; exec script -q -f -O {out} -c '{command}'"]
        with Terminal(home.env, argv, cols=cols, rows=rows, cwd=folder) as t:
            if not wait_for(lambda: re.search(ready, t.text()), 60, 0.5):
                print(t.text())
            time.sleep(1.5)
            t.type("what is here?")
            time.sleep(1)
            t.keys("Enter")
            wait_for(lambda: "and another" in t.text(), 20, 0.3)
            time.sleep(1.5)
            t.type("/")
            time.sleep(1.2)
            t.keys("Down", "Down", "Up", pause=0.3)
            t.type("mo")
            time.sleep(1)
            t.keys("Enter")
            time.sleep(1.5)
            t.keys("Down", "Down", pause=0.3)
            time.sleep(0.5)
            print(t.text())
            data = home.run("exec", f"rec-{agent}", "cat", out).stdout
        data = data[data.index(b"\n") + 1:] if data.startswith(b"Script started") else data
        (HERE / f"recordings/{agent}-{cols}x{rows}.rec").write_bytes(data)
        print(agent, cols, rows, len(data), flush=True)
    home.run("rm", "--force", f"rec-{agent}")
    provider.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    h = Home(shared_templates=True)
    try:
        ca, certificate = mock_provider.make_ca(h.dir / "ca", *[a[1] for a in AGENTS.values()])
        h.env["NODE_EXTRA_CA_CERTS"] = str(ca)
        h.sbx("config", "set", "net.ca", ca)
        for name in sys.argv[1:] or AGENTS:
            record(h, certificate, name)
    finally:
        h.close()

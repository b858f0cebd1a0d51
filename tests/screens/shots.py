"""Pictures of the dashboard from real sessions: text, text with colours, and PNG, in build/screens (make screenshots).
usage: shots.py [--docs] [NAME...]; --docs: the ones that the documentation shows go there, too."""
import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from harness import DATA, ROOT, SBX, Home, wait_for
from mock_provider import Provider, make_ca
from tmuxdrive import Terminal

OUT = ROOT / "build/screens"
DOCS = {"dashboard", "rule-form", "ask", "new-sandbox", "rules", "light"}


class Shots:
    def __init__(self, docs):
        self.docs = docs
        OUT.mkdir(parents=True, exist_ok=True)

    def take(self, t, name, quiet=0.5):
        if quiet:
            t.settle(quiet, 6)
        ansi, cols, rows = t.ansi(), int(t.get("pane_width")), int(t.get("pane_height"))
        (OUT / f"{name}.ansi").write_text(ansi)
        (OUT / f"{name}.txt").write_text(t.text())
        subprocess.run([sys.executable, str(HERE / "ansi2png.py"), str(OUT / f"{name}.png"), str(cols), str(rows), *(["light"] if name == "light" else [])], input=ansi, text=True, check=True)
        if self.docs and name in DOCS:
            (ROOT / "docs/screens").mkdir(exist_ok=True)
            shutil.copy(OUT / f"{name}.png", ROOT / "docs/screens" / f"{name}.png")
        print(f"{name}: {cols} x {rows}", flush=True)


def repository(path, branch, files):
    path.mkdir(parents=True)
    git = ["git", "-C", str(path), "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=" + branch]
    subprocess.run([*git, "init", "-q"], check=True)
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "Begin"], check=True)


def home_of_ada(h):
    """A home that reads like one: in a mount namespace of our own, where that is possible and hides nothing that is needed."""
    if os.geteuid() != 0 or str(DATA).startswith("/home/") or ctypes.CDLL(None).unshare(0x20000):  # CLONE_NEWNS
        return pathlib.Path(h.env["HOME"])
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/home"], check=True)
    home = pathlib.Path("/home/ada")
    home.mkdir(mode=0o700)
    h.env["HOME"] = str(home)
    return home


def have_written(t, path):
    t.type(f"Write the checkout in src/{path.name}")
    for _ in range(3):  # an Enter that comes together with the text, as on a slow machine, is a line's end to the agent
        t.settle(1, 10)
        t.keys("Enter")
        if wait_for(path.exists, 25):
            break
    t.settle(2, 20)


def main():
    args = [a for a in sys.argv[1:] if a != "--docs"]
    shots = Shots("--docs" in sys.argv)
    h = Home(shared_templates=True)
    home = home_of_ada(h)
    h.env["COLORTERM"] = "truecolor"
    try:
        with Terminal(h.env, cols=120, rows=36, cwd=h.ws) as t:
            t.wait("Welcome")
            shots.take(t, "welcome")
        shop, api, notes = home / "web-shop", home / "billing-api", home / "notes"
        repository(shop, "feature/checkout", {"README.md": "# Web shop\n", "src/cart.js": "export const total = (items) => items.reduce((s, i) => s + i.price, 0);\n",
                                              "package.json": '{ "name": "web-shop", "version": "2.4.0" }\n'})
        repository(api, "main", {"README.md": "# Billing\n", "api.py": "def charge(amount):\n    return amount\n"})
        notes.mkdir()
        ca, certificate = make_ca(h.dir / "ca", "api.anthropic.com")
        h.env["NODE_EXTRA_CA_CERTS"] = str(ca)
        h.sbx("config", "set", "net.ca", ca)
        provider = Provider(certificate, shop / "src/checkout.js", "export const checkout = (cart) => ({ ...cart, paid: true });")
        # The agent comes from the registry, before names lead elsewhere.
        h.sbx("create", "--name", "first", "claude", notes, timeout=900)
        h.sbx("rm", "-f", "first")
        # Nothing else outside is needed: what rules allow finds somebody who listens.
        h.sbx("config", "set", "net.map", ",".join(f"{host}:443=127.0.0.1:{provider.port}" for host in (
            "api.anthropic.com", "downloads.claude.ai", "github.com", "pypi.org", "registry.npmjs.org")))
        h.sbx("secret", "set", "-g", "anthropic", "--password-stdin", input=b"sk-ant-api03-picture0123456789abcdefghijklmnopqrstuv")
        h.sbx("run", "claude", "--name", "claude-web-shop", "--detach", shop, timeout=600)
        h.sbx("run", "shell", "--name", "billing", "--memory", "1024", "--detach", api, timeout=120)
        h.sbx("create", "--name", "scratch", "--memory", "1024", "shell", notes)
        h.sbx("policy", "allow", "network", "-g", "*.internal.example.com", "--comment", "company services")
        h.sbx("policy", "allow", "network", "billing", "GET api.stripe.com/v1/prices", "--comment", "prices only")
        h.sbx("policy", "deny", "network", "-g", "telemetry.example.com", "--comment", "phones home")
        h.sbx("policy", "allow", "network", "claude-web-shop", "pastebin.com:443", "--for", "1h", "--comment", "asked for by Ada")
        with Terminal(h.env, cols=160, rows=46, cwd=shop) as t:
            t.wait("claude-web-shop")
            t.wait("2 running")
            t.click("claude-web-shop")
            t.keys("Enter")
            t.wait(r"Claude Code", 90)
            t.settle(2, 30)
            have_written(t, shop / "src/checkout.js")
            for host in ("https://registry.npmjs.org/lodash", "https://ads.example.com/pixel.gif", "https://telemetry.example.com/v2", "https://pypi.org/simple/",
                         "https://cdn.tracker.example.net/a.js", "http://10.0.0.7/admin", "https://github.com/"):
                h.run("exec", "claude-web-shop", "curl", "-sS", "-o", "/dev/null", "--max-time", "4", host)
            for host in ("https://evil.example.org/upload", "https://api.stripe.com/v1/charges"):
                h.run("exec", "billing", "curl", "-sS", "-o", "/dev/null", "--max-time", "4", host)
            h.sbx("exec", "-d", "-t", "billing", "bash", "-c", r"printf 'Apply migration 0042_invoices to staging? [y/N] \a'; read x")
            t.wait("needs you", 20)
            shots.take(t, "dashboard")
            t.keys("C-]", "[", *["Up"] * 12, "V", *["Up"] * 4)
            shots.take(t, "scroll-and-copy")
            t.keys("q", "C-]", "s")
            t.settle(1)
            shots.take(t, "split")
            t.keys("C-]", "s")
            t.keys("C-]", "d")
            t.wait("Enter attach")
            # What is pressed, what has come then, and how many times Escape leads back.
            for name, keys, sign, back in (
                    ("help", ["?"], "Everywhere", 1), ("messages", ["m"], "Messages", 1),
                    ("rules", ["R"], "company", 1), ("rule-new", ["R", "a", "Tab", *"*.githubusercontent.com"], "It will stand as", 2), ("rule-test", ["R", "t", *"pypi.org:443"], "What would happen", 2),
                    ("posture", ["R", "p"], "throw-away", 2), ("secrets", ["S"], "anthropic", 1), ("secret-set", ["S", "a", "Tab", "Tab", *"sk-ant-api"], "sentinel", 2),
                    ("settings", ["O"], "ui.theme", 1), ("setting", ["O", "Down", "Down", "Down", "Enter"], "Value", 2), ("new-sandbox", ["c"], "New sandbox", 1),
                    ("command-line", [":", *"policy ", "Tab"], "allow", 1), ("filter", ["/", *"web"], "keeps the filter", 1), ("run-in", ["e"], "Run a command", 1),
                    ("copy-files", ["y"], "Copy files", 1), ("inspect", ["i"], "About", 1), ("console", ["L"], "Console of", 1), ("remove", ["r"], "Remove", 1), ("stop", ["s"], "What runs in it", 1)):
                for k in keys:
                    t.keys(k, pause=0.3 if k in ("R", "S", "O", "c") and k is keys[0] else 0)
                t.wait(sign)
                shots.take(t, name)
                for _ in range(back):
                    t.keys("Escape")
                t.settle(0.3)
            t.click("scratch")
            for name, key, sign in (("rename", "E", "Rename"), ("template", "t", "Save as a template"), ("copy-sandbox", "Y", "Copy a sandbox")):
                t.keys(key)
                t.wait(sign)
                shots.take(t, name)
                t.keys("Escape")
                t.settle(0.3)
            t.keys("Home", "Space", "Space")
            shots.take(t, "marked")
            t.keys("Escape")
            t.click("claude-web-shop")
            t.keys("Tab")
            t.settle(0.3)
            t.keys("End")
            shots.take(t, "log")
            t.click("ads.example.com")
            t.keys("Enter")
            t.wait("What happened")
            t.wait("to change that", 10)
            shots.take(t, "details")
            t.keys("Escape")
            t.click("ads.example.com")
            t.keys("a")
            t.settle(0.5)
            shots.take(t, "rule-form")
            t.keys("Escape")
            t.keys("/", *"deny example")
            t.settle(0.5)
            shots.take(t, "log-filter")
            t.keys("Enter", "Escape", "g")
            t.settle(0.5)
            shots.take(t, "log-grouped")
            t.keys("g", "*")
            t.settle(0.5)
            shots.take(t, "log-all")
            t.keys("*", "z")
            shots.take(t, "log-zoomed")
            t.keys("z", "Tab")
            t.wait("Enter attach")
            h.sbx("policy", "ask", "on", "billing")
            time.sleep(1)
            p = subprocess.Popen([SBX, "exec", "billing", "curl", "-sS", "--max-time", "30", "https://models.example.ai/v1"], env=h.env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                t.wait("wants to reach", 15)
                time.sleep(2)  # from then on a key is an answer
                shots.take(t, "ask")
                t.keys("d")
            except AssertionError as e:
                print(e)
            p.wait()
            t.wait("wants to reach", gone=True)
            t.click("scratch")
            t.keys("s")
            time.sleep(0.4)
            shots.take(t, "start", 0)
            t.wait("3 running", 30)
            t.click("claude-web-shop")
            for name in ("monochrome", "contrast"):
                while f"theme: {name}" not in t.text():
                    t.keys("T")
                    t.wait("theme: ")
                    time.sleep(0.3)
                shots.take(t, name)
            while "theme: dark" not in t.text():
                t.keys("T")
                time.sleep(0.3)
            for cols, rows in ((80, 24), (100, 30), (200, 60), (70, 20), (50, 12)):
                t.resize(cols, rows)
                t.settle(0.6, 5)
                shots.take(t, f"size-{cols}x{rows}")
        # The light theme from the start, so that the agent chooses its colours for it.
        h.sbx("config", "set", "ui.theme", "light")
        h.run("exec", "claude-web-shop", "sh", "-c", "kill $(pidof claude node); kill -HUP $(pidof bash)")
        (shop / "src/checkout.js").unlink(missing_ok=True)
        with Terminal(h.env, cols=160, rows=46, cwd=shop) as t:
            t.wait("3 running")
            t.click("claude-web-shop")
            time.sleep(2)
            t.keys("Enter")
            t.wait("Claude Code", 90)
            t.settle(2, 30)
            have_written(t, shop / "src/checkout.js")
            shots.take(t, "light")
    finally:
        h.close()


main()

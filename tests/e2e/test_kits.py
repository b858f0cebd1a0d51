"""Agents that are the user's own data: a kit's recipe runs once, reaches where it is installed from and nothing else, and is the
template of what comes later (issue 2)."""
import json
import pathlib
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import SBX, Home, alive, wait_for
from webservers import Web

KIT = {"version": 1, "title": "Tiny", "check": "test -s ~/tiny", "command": ["sh", "-c", "cat ~/tiny; pwd"], "build_hosts": ["builds.test"],
       "hosts": [], "secrets": [], "env": {}, "files": []}


class Own(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        cls.web = Web()
        hosts = ("builds.test", "registry.test", "elsewhere.test")
        h.sbx("config", "set", "net.map", ",".join(f"{n}:80=127.0.0.1:{cls.web.port}" for n in hosts))
        (h.dir / "home/.npmrc").write_text("registry=http://registry.test/npm/\n")

    @classmethod
    def tearDownClass(cls):
        cls.web.shutdown()
        cls.h.close()

    def kit(self, name, *install, **more):
        folder = self.h.dir / "config/sbx/agents"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps({**KIT, "name": name, "install": install, **more}))

    def test_a_recipe_runs_once_where_it_may(self):
        """The registry that this host's npm is set to is where agents come from, as for the host."""
        get = "curl -sS -o /dev/null -w '%{http_code} ' "
        self.kit("tiny", f"{get} http://builds.test/ok >> ~/tiny", f"{get} ${{npm_config_registry}}x >> ~/tiny", f"{get} http://elsewhere.test/ok >> ~/tiny || true; date +%N >> ~/tiny")
        first = self.h.run("run", "tiny", timeout=300)
        self.assertEqual(first.returncode, 0, first.stderr)
        words, where = first.stdout.decode().splitlines()
        self.assertEqual(where, str(self.h.ws))
        self.assertEqual(words.split()[:3], ["200", "200", "403"], words)
        self.assertEqual(list(self.h.ls()), ["tiny-ws"])
        second = self.h.run("run", "--name", "again", "tiny", timeout=300)
        self.assertEqual(second.stdout, first.stdout)  # the same disk, from the template
        self.assertNotIn(b"installed now", second.stderr)

    def test_a_recipe_that_fails_leaves_nothing(self):
        self.kit("bad", "echo fine; echo 'npm error code E404' >&2; echo the end; exit 3")
        r = self.h.run("run", "bad", timeout=300)
        self.assertEqual(r.returncode, 1)
        self.assertIn(b"bad could not be installed: npm error code E404 (status 3", r.stderr)
        self.assertNotIn("bad-ws", self.h.ls())
        self.assertFalse([n for n in self.h.ls() if n.startswith("install-")])

    def test_a_recipe_that_is_interrupted_leaves_nothing(self):
        self.kit("slow", "curl -sS http://builds.test/began; sleep 1000")
        p = subprocess.Popen([SBX, "run", "slow"], cwd=self.h.ws, env=self.h.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: any("/began" in str(seen) for seen in self.web.seen), 120)
        box, = [n for n in self.h.ls() if n.startswith("install-slow")]
        family = self.h.family(box)
        self.assertIn("qemu", family)
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=120)
        self.assertEqual(p.returncode, -signal.SIGTERM)
        self.assertFalse([n for n in self.h.ls() if n.startswith(("install-", "slow"))])
        wait_for(lambda: not any(map(alive, family.values())), 60)


if __name__ == "__main__":
    unittest.main()

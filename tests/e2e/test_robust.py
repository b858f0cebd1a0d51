"""Any process of sbx may die at any time: `ls` tells the truth, `start` or `rm` gets out of it, nothing is left behind."""
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import SBX, Home, alive, kill, wait_for

ROUNDS = int(os.environ.get("SBX_ROUNDS", "8"))
ROLES = ("supervise", "broker", "net", "fs", "screen", "qemu", "command")


class Kills(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        h.sbx("create", "--name", "victim", "--cpus", "1", "--memory", "768", "shell", h.ws)
        h.sbx("exec", "victim", "sh", "-c", "echo kept > /home/agent/kept; sync")
        (h.dir / "big").write_bytes(os.urandom(1 << 20) * 24)

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def begin(self, *words):
        return subprocess.Popen([SBX, *map(str, words)], env=self.h.env, cwd=self.h.ws, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def one(self, rng):
        h = self.h
        what = rng.choice(("start", "start", "stop", "exec", "cp in", "cp out", "save", "rm"))
        role = rng.choice(ROLES)
        said = f"{what}, {role}"
        name = "victim"
        if what == "rm":
            name = "other"
            h.sbx("create", "--name", name, "--cpus", "1", "--memory", "768", "shell", h.ws)
        if what == "start":
            h.sbx("stop", name)
        else:
            h.sbx("start", name)
        command = self.begin(*{"start": ("start", name), "stop": ("stop", name), "exec": ("exec", name, "sh", "-c", "yes | head -c 80000000"),
                               "cp in": ("cp", h.dir / "big", f"{name}:/home/agent/big"), "cp out": ("cp", f"{name}:/usr/lib/git-core", h.dir / "out"),
                               "save": ("template", "save", name, "saved"), "rm": ("rm", "--force", name)}[what])
        time.sleep(rng.random() ** 2 * (0.2 if what == "exec" else 1.2))
        victim = command.pid if role == "command" else h.family(name).get(role)
        if victim and alive(victim):
            kill(victim)
        else:
            said += " (was not there)"
        try:
            out = command.communicate(timeout=90)[0]
        except subprocess.TimeoutExpired:
            command.kill()
            self.fail(f"{said}: the command hangs")
        said += f": {command.returncode} {out[-100:]}"
        subprocess.run(["rm", "-rf", h.dir / "out"])
        self.settled(name, said)
        if what == "rm":
            if name in h.ls():
                h.sbx("rm", "--force", name)
            h.sbx("prune", "--filter", "until=900h")
        else:
            h.sbx("start", name)
            self.assertEqual(h.sbx("exec", name, "cat", "/home/agent/kept"), "kept\n", said)
            if what == "save":
                h.run("template", "save", name, "saved")
                self.assertIn("saved", h.sbx("template", "ls"), said)
                h.sbx("template", "rm", "saved")
                h.sbx("start", name)
        return said

    def settled(self, name, said):
        """It is what it is called."""
        h = self.h

        def truth():
            state = h.ls().get(name, {"state": "gone"})["state"]
            if state == "running":
                return h.run("exec", name, "true").returncode == 0 and {"supervise", "qemu", "net", "fs", "broker"} <= set(h.family(name))
            return state in ("stopped", "failed", "gone") and not h.family(name)
        self.assertTrue(wait_for(truth, 40), (said, h.ls().get(name), h.family(name)))

    def test_any_process_at_any_moment(self):
        seed = int(os.environ.get("SBX_SEED", time.time()))
        rng = random.Random(seed)
        for i in range(ROUNDS):
            try:
                said = self.one(rng)
            except Exception as e:
                raise AssertionError(f"round {i} of SBX_SEED={seed}") from e
            if ROUNDS > 20:
                print(f"{i}: {said}", flush=True)
        self.h.sbx("stop", "victim")
        self.assertEqual(self.h.family("victim"), {})
        self.assertEqual([p.name for p in (self.h.dir / "data/sbx/sandboxes").iterdir() if p.is_dir()], ["victim"])
        self.assertEqual([p.name for p in (self.h.dir / "run/sbx").iterdir() if p.suffix != ".told"], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)

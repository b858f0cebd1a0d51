"""docker pull, run, build and push in a guest against a real registry on the host's loopback under a mapped name: allowed,
denied, and allowed on one path only."""
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import Home
from mock_provider import make_ca


@unittest.skipUnless(shutil.which("docker-registry"), "needs docker-registry")
class Registry(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        cls.registry = None
        cls.addClassCleanup(cls.finish)
        ca, both = make_ca(h.dir / "pki", "reg.example", "whole.example")
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        config = h.dir / "registry.yml"
        config.write_text(f"""version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {h.dir}/registry}}}}
http: {{addr: "127.0.0.1:{port}", tls: {{certificate: {h.dir}/pki/server.pem, key: {h.dir}/pki/server.key}}}}
""")
        cls.log = open(h.dir / "registry.log", "ab")
        cls.registry = subprocess.Popen(["docker-registry", "serve", config], stdin=subprocess.DEVNULL, stdout=cls.log, stderr=cls.log)
        h.sbx("config", "set", "net.ca", ca)
        h.sbx("config", "set", "net.map", f"reg.example:443=127.0.0.1:{port},whole.example:443=127.0.0.1:{port}")
        h.sbx("policy", "set-default", "locked-down")
        h.sbx("create", "--name", "d", "--memory", "2048", "shell", h.ws)
        h.sbx("start", "d")
        shutil.copy(ca, h.ws / "ca.crt")
        # A host that is allowed whole shows its own certificate, whose authority is nobody's but this test's.
        r = h.run("exec", "-u", "root", "d", "sh", "-c", f"mkdir -p /etc/docker/certs.d/whole.example && cp {h.ws}/ca.crt /etc/docker/certs.d/whole.example/")
        assert r.returncode == 0, r.stderr
        # A tiny image of a shell and curl, made here: nothing is fetched.
        r = h.sh("d", "set -e; mkdir -p /tmp/r/bin /tmp/r/etc; cp /bin/sh /bin/cat /tmp/r/bin; for f in $(ldd /bin/sh /bin/cat | grep -o '/[^ ]*\\.so[^ ]*' | sort -u); "
                      "do cp --parents -L $f /tmp/r; done; tar -C /tmp/r -c . | docker import - tiny >/dev/null")
        assert r.returncode == 0, r.stderr

    @classmethod
    def finish(cls):
        if cls.registry:
            cls.registry.kill()
            cls.registry.wait()
            cls.log.close()
        cls.h.close()

    def sh(self, script, good=True):
        r = self.h.sh("d", script, timeout=400)
        text = (r.stdout + r.stderr).decode(errors="replace")
        self.assertEqual(r.returncode == 0, good, (script, text[-1500:]))
        return text

    def allow(self, *rules):
        self.h.sbx("policy", "allow", "network", "d", *rules)
        self.addCleanup(self.h.run, "policy", "rm", "d", *rules)
        self.h.in_force("d")

    def stored(self):
        root = self.h.dir / "registry/docker/registry/v2/repositories"
        return sorted(str(p.relative_to(root)) for p in root.glob("*/*") if (p / "_manifests").is_dir()) if root.exists() else []

    def requests(self, verdict):
        rows = json.loads(self.h.sbx("policy", "log", "d", "--raw", "--json", "--verdict", verdict))
        return {(r["method"], r["path"]) for r in rows if r["kind"] == "request"}

    def test_pushed_pulled_run_and_built(self):
        # Nothing is allowed: it says so, and says the command.
        out = self.sh("docker tag tiny reg.example/open/tiny; docker push reg.example/open/tiny 2>&1", False)
        self.assertIn("denied", out.lower())
        out = self.sh("docker pull reg.example/open/tiny 2>&1", False)
        self.assertRegex(out, "403|denied by posture")  # its own words for the status, or ours: it tells either
        self.assertEqual(self.stored(), [])
        # One path of it: push, and pull what is there no more; other paths stay shut.
        self.allow("reg.example/v2/open")
        self.sh("docker push -q reg.example/open/tiny && docker rmi reg.example/open/tiny tiny >/dev/null && docker pull -q reg.example/open/tiny")
        self.assertEqual(self.stored(), ["open/tiny"])
        self.assertEqual(self.sh("docker run --rm reg.example/open/tiny sh -c 'echo ran'").strip(), "ran")
        self.sh("docker tag reg.example/open/tiny reg.example/shut/tiny; docker push reg.example/shut/tiny", False)
        self.sh("docker pull reg.example/shut/tiny", False)
        self.assertEqual(self.stored(), ["open/tiny"])
        denied, allowed = self.requests("deny"), self.requests("allow")
        self.assertTrue([p for _, p in denied if p.startswith("/v2/shut/")], denied)
        self.assertTrue({"POST", "PATCH", "PUT"} & {m for m, p in allowed if p.startswith("/v2/open/")}, allowed)
        # Reading alone; and a build that begins with what it pulls.
        self.h.sbx("policy", "deny", "network", "d", "POST|PUT|PATCH|DELETE reg.example/v2/")
        self.addCleanup(self.h.run, "policy", "rm", "d", "POST|PUT|PATCH|DELETE reg.example/v2/")
        self.h.in_force("d")
        self.sh("docker rmi -f $(docker images -q) >/dev/null; printf 'FROM reg.example/open/tiny\\nRUN echo built > /built\\n' | docker build -q -t mine - >/dev/null")
        self.assertEqual(self.sh("docker run --rm mine cat /built").strip(), "built")
        self.sh("docker tag mine reg.example/open/other; docker push reg.example/open/other", False)
        self.sh("printf 'FROM reg.example/shut/tiny\\n' | docker build -q -", False)
        self.assertEqual(self.stored(), ["open/tiny"])
        # The same registry under a name that is allowed whole: relayed untouched.
        self.sh("docker pull whole.example/open/tiny", False)
        self.allow("whole.example")
        self.sh("docker pull -q whole.example/open/tiny && docker push -q whole.example/open/tiny")
        self.assertEqual([r for r in json.loads(self.h.sbx("policy", "log", "d", "--raw", "--json", "--host", "whole.example", "--verdict", "allow")) if r["kind"] == "request"], [])


if __name__ == "__main__":
    unittest.main()

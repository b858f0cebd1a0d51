"""Names and addresses, from inside a hostile guest: two machines, a server on the host's loopback under a mapped name."""
import json
import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import Home
from test_policy import Server

# Connects to the name that is allowed, and says another; prints what came back for each.
HOSTS = r"""
import socket, sys, json
for host in json.load(open("hosts.json")):
    raw = host.encode("latin-1")
    try:
        s = socket.create_connection(("one.test", 80), 60)
        s.settimeout(60)
        s.sendall(b"GET / HTTP/1.1\r\nHost: " + raw + b"\r\nConnection: close\r\n\r\n")
        got = b""
        while True:
            more = s.recv(4096)
            if not more:
                break
            got += more
    except OSError as e:
        got = repr(e).encode()
    print(json.dumps([host, b"hello" in got, got[:60].decode("latin-1")]))
"""

# Queries of any bytes to the guest's name server; prints the answers' codes and counts.
NAMES = r"""
import socket, struct, json
server = [l.split()[1] for l in open("/etc/resolv.conf") if l.startswith("nameserver")][0]
family = socket.AF_INET6 if ":" in server else socket.AF_INET
for name in json.load(open("names.json")):
    q = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0)
    for label in name.split("|"):
        raw = label.encode("latin-1")
        q += bytes([len(raw) & 255]) + raw
    q += b"\0\0\1\0\1"
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(60 if name == "one|test" else 3)
    s.sendto(q, (server, 53))
    try:
        r = s.recv(4096)
        print(json.dumps([name, r[3] & 15, struct.unpack(">H", r[6:8])[0]]))
    except OSError:
        print(json.dumps([name, -1, 0]))
"""


class Guest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        cls.server = Server()
        h.sbx("config", "set", "net.map", f"one.test:80=127.0.0.1:{cls.server.port},other.test:80=127.0.0.1:{cls.server.port}")
        h.sbx("policy", "set-default", "locked-down")
        h.sbx("create", "--name", "a", "--cpus", "1", "--memory", "1024", "shell", str(h.ws))
        # A variable of the host that would send everything through a proxy must not reach the data path (98).
        h.sbx("policy", "allow", "network", "a", "one.test")
        cls.proxy = Server()
        proxy = f"http://127.0.0.1:{cls.proxy.port}"
        h.run("start", "a", env={"http_proxy": proxy, "https_proxy": proxy, "all_proxy": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy})

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.proxy.shutdown()
        cls.h.close()

    def say(self, hosts):
        (self.h.ws / "hosts.json").write_text(json.dumps(hosts))
        (self.h.ws / "hosts.py").write_text(HOSTS)
        r = self.h.run("exec", "a", "python3", "hosts.py", timeout=400)
        self.assertEqual(r.returncode, 0, r.stderr)
        return [json.loads(line) for line in r.stdout.decode().splitlines()]

    def test_threat_04_05_07_08_10_11_hosts_that_are_none(self):
        hosts = ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1", "0", "169.254.169.254", "0xa9fea9fe", "2852039166",
                 "[::1]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[fe80::1%25eth0]", "[one.test]", "::1",
                 "one..test", ".one.test", "one.test..", "-one.test", "a" * 64 + ".test", "one.test\0.evil.test", "one.test\tx", "one test",
                 "one.test%00", "one.test%2eevil.test", "g\xe4thub.test", "one.test@evil.test", "evil.test@one.test", "user:pw@one.test",
                 "one.test:080", "one.test:80:80", "one.test:+80", "one.test:65616", "one.test:", "one.test:443", "one.test, evil.test", "",
                 "evilone.test", "one.test.evil.test", "other.test", "*.test", "one.test/", "http://one.test"]
        for host, hello, got in self.say(hosts):
            self.assertFalse(hello, (host, got))

    def test_threat_06_case_and_the_last_dot_are_the_same_name(self):
        for host, hello, got in self.say(["one.test", "ONE.Test", "one.test.", "one.test:80", "One.Test.:80"]):
            self.assertTrue(hello, (host, got))

    def test_threat_09_names_of_other_bytes_do_not_resolve(self):
        names = ["g\xef\xbd\x87ithub|test", "one\xe3\x80\x82test", "one.test|", "\0|test", "a b|test", "one|te\\st", "*|test", "-x|test", "x-|test"]
        (self.h.ws / "names.json").write_text(json.dumps([*names, "one|test"]))
        (self.h.ws / "names.py").write_text(NAMES)
        r = self.h.run("exec", "a", "python3", "names.py", timeout=400)
        self.assertEqual(r.returncode, 0, r.stderr)
        answers = {name: (code, count) for name, code, count in map(json.loads, r.stdout.decode().splitlines())}
        self.assertEqual(answers.pop("one|test"), (0, 1))
        for name, (code, count) in answers.items():
            self.assertEqual(count, 0, (name, code))

    def test_threat_19_nothing_of_ours_listens_to_the_guest(self):
        h = self.h
        script = """gw=$(ip route | awk '/^default/ {print $3; exit}'); ns=$(awk '/^nameserver/ {print $2; exit}' /etc/resolv.conf)
            for ip in $gw $ns 10.0.2.2 100.64.0.1; do for port in 80 443 3128 8080 9090 2375; do
              for path in / /metrics /v1/policy /sandboxes /admin /.well-known/x; do
                case $path in /) ;; *) [ $port = 80 ] || continue;; esac
                curl -ks -m 3 -o /dev/null -w "$ip:$port$path %{http_code}\\n" http://$ip:$port$path; done; done; done"""
        out = h.run("exec", "a", "sh", "-c", script, timeout=400).stdout.decode()
        self.assertEqual(len(out.splitlines()), out.count("\n"))
        self.assertTrue(out)
        for line in out.splitlines():
            self.assertNotIn(line.split()[-1][0], "23", line)
        r = h.run("exec", "a", "sh", "-c", "ls -d /run/sbx/*.sock /run/user/*/sbx 2>/dev/null")
        self.assertEqual(r.stdout, b"")

    def test_threat_20_the_rules_of_one_sandbox_are_not_anothers(self):
        h = self.h
        h.sbx("create", "--name", "b", "--cpus", "1", "--memory", "1024", "shell", str(h.ws))
        h.sbx("start", "b")
        mine = h.run("exec", "a", "sh", "-c", "getent ahostsv4 one.test | awk 'NR==1 {print $1}'").stdout.decode().strip()
        self.assertEqual(h.run("exec", "a", "curl", "-s", "http://one.test/").stdout, b"hello\n")
        before = self.server.accepted
        for args in (["http://one.test/"], ["-H", "Host: one.test", f"http://{mine}/"], ["--resolve", f"one.test:80:{mine}", "http://one.test/"],
                     ["-H", "X-Sandbox: a", "-H", "Forwarded: for=a", "http://one.test/"]):
            self.assertNotEqual(h.run("exec", "b", "curl", "-s", "-m", "10", *args).stdout, b"hello\n", args)
        self.assertEqual(self.server.accepted, before)
        # One cannot reach the other either.
        addr = h.run("exec", "b", "sh", "-c", "hostname -I").stdout.decode().split()[0]
        h.run("exec", "-d", "b", "python3", "-m", "http.server", "8099")
        time.sleep(1)
        own = h.run("exec", "a", "hostname", "-I").stdout.decode().split()
        if addr not in own:  # the same address in each machine is that machine itself
            self.assertNotEqual(h.run("exec", "a", "curl", "-s", "-m", "5", "-o", "/dev/null", f"http://{addr}:8099/").returncode, 0)

    def test_threat_98_proxies_of_the_hosts_environment_are_not_used(self):
        self.assertEqual(self.h.run("exec", "a", "curl", "-s", "http://one.test/").stdout, b"hello\n")
        self.assertEqual(self.proxy.accepted, 0)


if __name__ == "__main__":
    unittest.main()

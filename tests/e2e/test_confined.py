"""What `sbx net`, `sbx screen` and QEMU of a real sandbox could do if somebody took them over: system calls made in their name."""
import os
import pathlib
import platform
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import SANITIZED, Home
from inject import CALLS, Inside

DEADLY = ("execve", "execveat", "ptrace", "mount", "setns", "unshare", "bpf", "process_vm_readv", "io_uring_setup", "userfaultfd", "chroot", "keyctl")


@unittest.skipUnless(os.geteuid() == 0 and platform.machine() == "x86_64", "needs root's ptrace on x86-64")
@unittest.skipIf(SANITIZED, "a sanitizer's run-time makes calls of its own, which its filter lets pass")
class Confined(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = h = Home()
        h.sbx("create", "--name", "c", "--cpus", "1", "--memory", "1024", "shell", str(h.ws))
        h.sbx("start", "c")
        h.sbx("exec", "c", "true")

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def helper(self, role):
        for p in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (p / "cmdline").read_bytes().split(b"\0")[:3] == [b"sbx", role.encode(), b"c"] and str(self.h.dir).encode() in (p / "environ").read_bytes():
                    return int(p.name)
            except OSError:
                continue
        return None

    def status(self, pid):
        try:
            return dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        except OSError:
            return {} # it ended meanwhile

    def test_threat_54_74_what_they_hold(self):
        for role in ("net", "screen"):
            pid = self.helper(role)
            s = self.status(pid)
            self.assertEqual((s["Seccomp"], s["NoNewPrivs"], s["CapEff"], s["CapPrm"]), ("2", "1", "0" * 16, "0" * 16), role)
            limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
            self.assertRegex(limits, r"Max core file size +0 +0 ")
            self.assertRegex(limits, r"Max address space +\d+ +\d+ ")
            self.assertRegex(limits, r"Max open files +\d{2,3} +\d{2,3} ")
            # Sockets and pipes that it was given; no file and no folder of the host.
            for fd in os.listdir(f"/proc/{pid}/fd"):
                self.assertRegex(os.readlink(f"/proc/{pid}/fd/{fd}"), r"^(/dev/null|socket:\[\d+\]|pipe:\[\d+\]|anon_inode:.*)$", (role, fd))
        net = self.helper("net")
        self.assertNotEqual(os.readlink(f"/proc/{net}/ns/net"), os.readlink("/proc/self/ns/net"))
        devices = re.findall(r"^ *([^ :|]+):", pathlib.Path(f"/proc/{net}/net/dev").read_text(), re.M)
        self.assertEqual(devices, ["lo"])

    def test_no_file_no_socket_no_program(self):
        for role in ("net", "screen"):
            pid = self.helper(role)
            with Inside(pid) as p:
                self.assertEqual(p.call("getpid"), pid)  # what may be done is done
                got = {n: p.call(n, b"/etc/passwd", 0, 0) for n in CALLS if n not in DEADLY and n != "getpid"}
                got["socket"] = p.call("socket", 2, 1, 0)
                got["tgkill"] = p.call("tgkill", os.getpid(), os.getpid(), 0)
                got["socket6"] = p.call("socket", 10, 2, 0)
                got["clone"] = p.call("clone", 17, 0, 0, 0, 0)
            self.assertEqual({n: v for n, v in got.items() if v not in ("ENOSYS", "EPERM")}, {}, role)
            self.assertTrue(os.path.exists(f"/proc/{pid}"))
        self.assertEqual(self.h.sbx("exec", "c", "echo", "alive"), "alive\n")

    def test_a_machine_that_was_broken_out_of_calls_nobody(self):
        """QEMU runs as the user where root does not run it: the sockets of his session, of his agents and of other sandboxes are open
        to him, and his processes take his signals, for a network of its own is no wall to either."""
        supervisor = self.status(self.helper("net"))["PPid"]
        pid = next(int(p.name) for p in pathlib.Path("/proc").glob("[0-9]*")
                   if (s := self.status(p.name)).get("PPid") == supervisor and s["Name"].startswith("qemu"))
        address = b"\1\0" + str(self.h.dir).encode() + b"/x\0"
        with Inside(pid) as p:
            self.assertEqual(p.call("getpid"), pid)
            got = {n: p.call(n, 1, 1, 0) for n in ("socket", "socketpair", "listen", "pidfd_open", "keyctl", "io_uring_setup")}
            got |= {n: p.call(n, 3, address, len(address)) for n in ("connect", "bind")}
            got["kill"] = p.call("kill", os.getpid(), 0)
            got["tgkill"] = p.call("tgkill", os.getpid(), os.getpid(), 0)
            self.assertEqual((p.call("kill", pid, 0), p.call("tgkill", pid, pid, 0)), (0, 0)) # itself
        self.assertEqual({n: v for n, v in got.items() if v not in ("ENOSYS", "EPERM")}, {})
        self.assertEqual(self.h.sbx("exec", "c", "echo", "alive"), "alive\n")


if __name__ == "__main__":
    unittest.main()

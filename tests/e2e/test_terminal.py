"""The dashboard's terminal pane, driven in tmux, with one machine for all tests."""
import os
import re
import shlex
import signal
import time
import unittest

from harness import SBX, Home, alive, run, wait_for, within


class Screen:
    """A tmux server of the test's own: what a user's terminal would show."""

    def __init__(self, home, name, rows=40, cols=140):
        self.home, self.socket = home, str(home.dir / f"tmux-{name}")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(cols), "-y", str(rows), "-s", "t", "cat")
        self.tmux("set", "-g", "set-clipboard", "on")
        self.tmux("set", "-g", "remain-on-exit", "on")
        self.tmux("set", "-sg", "escape-time", "0")
        self.pid = None

    def tmux(self, *args, check=True):
        r = run(["tmux", "-S", self.socket, *args], 60, env=self.home.env, cwd=self.home.ws)
        if check and r.returncode != 0:
            raise AssertionError(f"tmux {args}: {r.stderr.decode()}")
        return r.stdout.decode()

    def dashboard(self, more=""):
        env = " ".join(f"{k}={shlex.quote(self.home.env[k])}" for k in self.home.env if k.startswith("XDG_") or k in ("HOME", "LANG"))
        self.tmux("respawn-pane", "-k", "-t", "t", f"exec env {env} {more} {SBX}")
        self.pid = int(self.tmux("display", "-p", "-t", "t", "#{pane_pid}"))

    def keys(self, *keys):
        self.tmux("send-keys", "-t", "t", *keys)

    def type(self, text):
        self.tmux("send-keys", "-t", "t", "-l", text)

    def raw(self, text):
        """Bytes as a terminal sends them, in one piece."""
        self.tmux("set-buffer", "-b", "raw", text)
        self.tmux("paste-buffer", "-d", "-r", "-b", "raw", "-t", "t")

    def text(self, escapes=False):
        return self.tmux("capture-pane", "-p", "-t", "t", *(["-e"] if escapes else []))

    def sees(self, pattern):
        ok = wait_for(lambda: re.search(pattern, self.text()))
        if not ok:
            raise AssertionError(f"no {pattern!r} on the screen:\n{self.text()}")
        return ok

    def gone(self, pattern):
        if not wait_for(lambda: not re.search(pattern, self.text())):
            raise AssertionError(f"{pattern!r} is still on the screen:\n{self.text()}")

    def resize(self, rows, cols):
        self.tmux("resize-window", "-t", "t", "-x", str(cols), "-y", str(rows))

    def close(self):
        self.tmux("kill-server", check=False)


PREFIX = "C-]"


class Terminal(unittest.TestCase):
    asked = 0

    @classmethod
    def setUpClass(cls):
        cls.home = Home()
        cls.home.sbx("run", "--detach", "--name", "box", "shell", ".", timeout=600)
        cls.screen = Screen(cls.home, "one")
        cls.screen.dashboard()
        cls.screen.sees(r"│\S+[$#] ")  # ^C before its first prompt would end the shell

    @classmethod
    def tearDownClass(cls):
        cls.screen.close()
        cls.home.close()

    def setUp(self):
        self.s = self.screen
        self.s.resize(40, 140)
        self.home.run("exec", "box", "true")
        self.s.dashboard()
        self.s.sees(r"\[1 ")
        self.s.keys("Enter")
        self.s.sees(r"Ctrl-\] then")
        self.interrupt()
        self.run_line("clear; echo re'ady'")
        self.s.sees(r"│ready")

    def interrupt(self):
        """^C flushes what was typed after it, too: until the shell hears again."""
        self.s.keys("C-c")
        for _ in range(20):
            type(self).asked += 1
            self.run_line(f"echo he''ars{self.asked}")
            if within(3, lambda: f"hears{self.asked}" in self.s.text()):
                return
        self.fail(f"the shell does not hear:\n{self.s.text()}")

    def run_line(self, line):
        self.s.type(line)
        self.s.keys("Enter")

    def pane(self, screen=None):
        """The rows of the terminal pane, without its frame."""
        rows = (screen or self.s).text().splitlines()
        at = [i for i, r in enumerate(rows) if "╮╭─ box" in r or r.startswith("╭─ box")]
        out = []
        for r in rows[at[0] + 1:] if at else []:
            if "╰" in r[1:]:
                break
            out.append(r.split("│")[-2].rstrip())
        return out

    def test_typing_reaches_the_session_and_its_output_the_screen(self):
        self.run_line("echo one$((1+1))three")
        self.s.sees("one2three")
        self.run_line("stty size")
        self.s.sees(r"│(\d+) (\d+) ")
        rows, cols = map(int, re.search(r"│(\d+) (\d+) +│", self.s.text()).groups())
        self.assertEqual(rows, len(self.pane()))
        self.assertGreater(cols, 60)

    def test_the_prefix_leaves_and_twice_is_sent(self):
        self.run_line("cat -v")
        self.s.keys(PREFIX, PREFIX, "Enter")
        self.s.sees(r"\^\]")
        self.s.keys("C-c")
        self.s.keys(PREFIX, "d")
        self.s.sees("c create")
        self.s.keys("Enter")
        self.s.sees(r"Ctrl-\] then")
        self.run_line("echo back$((40+2))")
        self.s.sees("back42")

    def test_a_killed_dashboard_leaves_the_session_and_a_new_one_shows_it_as_it_stands(self):
        self.run_line(r"printf '\033[2J\033[5;10H\033[1;35mhere\033[0m\033[7;3Hthere\033[10;1H'; read x")
        self.s.sees("there")
        time.sleep(0.3)
        before, looks = self.pane(), self.s.text(True).count("\033[1m")
        os.kill(self.s.pid, signal.SIGKILL)
        self.assertTrue(wait_for(lambda: not alive(self.s.pid)))
        self.s.dashboard()
        self.s.sees("there")
        self.s.keys("Enter")
        self.s.sees(r"Ctrl-\] then")
        self.assertEqual(self.pane(), before)
        self.assertEqual(self.s.text(True).count("\033[1m"), looks)
        self.s.keys("Enter")
        self.run_line("echo alive$((1+1))")
        self.s.sees("alive2")

    def test_scrollback_comes_back_with_the_session(self):
        self.run_line("seq 10000 21000")
        self.s.sees(r"│21000")
        self.s.resize(30, 90)
        time.sleep(0.3)
        self.s.resize(40, 140)
        self.s.dashboard()
        self.s.sees(r"│21000")
        self.s.keys("Enter", PREFIX, "/")
        self.s.sees("Search:")
        self.s.type("11234")  # nearly ten thousand lines back
        self.s.keys("Enter")
        self.s.sees(r"│11234")
        self.s.sees(r"COPY")
        self.s.keys("q")
        self.s.gone(r"│11234 ")

    def test_the_prefix_is_the_users_choice(self):
        self.home.sbx("config", "set", "attach.prefix", "ctrl-a")
        self.addCleanup(self.home.sbx, "config", "unset", "attach.prefix")
        self.s.dashboard()
        self.s.sees(r"│ready")
        self.s.keys("Enter")
        self.s.sees(r"Ctrl-A then")
        self.run_line("echo ca''t; cat -v")
        self.s.sees(r"│cat ")  # the shell has let go of the terminal: what is typed now is echoed and waits for its line's end
        self.s.keys("C-a", "C-a", "C-]", "Enter")
        self.s.sees(r"│\^A\^\] (?s:.*)│\^A\^\] ")  # the echo, and what cat says: it runs
        self.interrupt()
        self.run_line("")
        self.s.sees(r"\$ +│\n.*\$ +│")
        self.s.keys("C-a", "z")
        self.s.gone("Network:")
        self.run_line("clear; stty size")
        self.s.sees(r"│36 138 ")  # the whole screen, and the session knows it
        self.s.keys("C-a", "z", "C-a", "d")
        self.s.sees("Network:")
        self.s.sees("c create")

    def test_a_search_and_a_copy_reach_the_users_clipboard(self):
        self.run_line("echo needle-$((6*7)); seq 1 200")
        self.s.sees(r"│200")
        self.s.keys(PREFIX, "/")
        self.s.sees("Enter finds it, upwards")
        self.s.type("eedle-4")  # edited as every text
        self.s.keys("Home")
        self.s.type("n")
        self.s.keys("Enter")
        self.s.sees(r"│needle-42")
        self.s.keys("/", "Up")
        self.s.sees("Search: needle-4 ")
        self.s.keys("Escape")
        self.s.sees("q leave")
        self.s.keys("V", "y")
        self.s.sees("copied 9 bytes")
        self.assertTrue(wait_for(lambda: self.s.tmux("show-buffer").strip() == "needle-42"), self.s.tmux("show-buffer"))
        # As tmux comes: it takes nothing that a program says (OSC 52), but what its own command says.
        self.s.tmux("set", "-g", "set-clipboard", "external")
        self.addCleanup(self.s.tmux, "set", "-g", "set-clipboard", "on")
        self.run_line("echo other-$((6*7))")
        self.s.sees(r"│other-42")
        self.s.keys(PREFIX, "[", "k", "V", "y")
        self.assertTrue(wait_for(lambda: self.s.tmux("show-buffer").strip() == "other-42"), self.s.tmux("show-buffer"))

    def test_the_wheel_scrolls_and_never_becomes_keys(self):
        self.run_line("seq 1 300; cat -v")
        self.s.sees(r"│300")
        x = self.s.text().splitlines()[1].index("╮╭") + 10
        self.s.raw(f"\033[<64;{x};10M" * 4)
        self.s.sees("PAUSED")
        self.assertNotIn("300", self.pane())
        self.s.raw(f"\033[<65;{x};10M" * 4)
        self.s.sees(r"│300")
        self.s.gone("PAUSED")
        self.assertFalse([r for r in self.pane() if "^[" in r])
        self.s.keys("C-c")

    def test_the_mouse_selects_within_the_pane(self):
        self.run_line("clear; echo first; echo second")
        self.s.sees(r"│second")
        lines = self.s.text().splitlines()
        y = next(i for i, r in enumerate(lines) if "│first" in r)
        x = lines[y].index("│first") + 2
        # Dragged far beyond the pane's edge: what lies there is not in it.
        self.s.raw(f"\033[<0;{x};{y + 1}M\033[<32;{x + 3};{y + 1}M\033[<32;139;{y + 2}M\033[<0;139;{y + 2}m")
        self.s.sees("copied")
        self.assertTrue(wait_for(lambda: self.s.tmux("show-buffer").splitlines()[:2] == ["first", "second"]), self.s.tmux("show-buffer"))
        # A flood does not carry away what is being selected.
        self.run_line("clear; for i in $(seq 1 6000); do echo line$i; sleep 0.01; done")
        self.s.sees(r"│line50")
        self.s.raw(f"\033[<0;{x};12M\033[<32;{x + 2};12M")
        self.s.sees("PAUSED")
        before = self.pane()
        time.sleep(0.5)
        self.assertEqual(self.pane(), before)
        self.s.raw(f"\033[<32;{x + 6};12M\033[<0;{x + 6};12m")
        self.s.gone("PAUSED")
        self.assertTrue(wait_for(lambda: self.s.tmux("show-buffer").strip() == before[9][:7]), (self.s.tmux("show-buffer"), before))
        self.interrupt()

    def test_a_selection_grows_beyond_the_edge_and_the_middle_button_pastes_it(self):
        self.run_line("clear; seq 1001 1200; echo middle''word")
        self.s.sees(r"│middleword")
        lines = self.s.text().splitlines()
        y = next(i for i, r in enumerate(lines) if "│middleword" in r)
        x = lines[y].index("│middleword") + 3
        click = f"\033[<0;{x};{y + 1}M\033[<0;{x};{y + 1}m"
        self.s.raw(click + click)
        self.s.sees("copied 10 bytes")
        self.s.type("echo pasted-")
        self.s.raw(f"\033[<1;{x};{y - 2}M\033[<1;{x};{y - 2}m")
        self.s.keys("Enter")
        self.s.sees(r"│pasted-middleword")
        # Held above the pane, the pointer goes on selecting: more than was to be seen, without a move of the mouse.
        time.sleep(0.5)
        y = next(i for i, r in enumerate(self.s.text().splitlines()) if "│middleword" in r)
        self.s.raw(f"\033[<0;{x};{y + 1}M\033[<32;{x};1M")
        self.s.sees(r"│1100")
        self.s.raw(f"\033[<0;{x};1m")
        copied = wait_for(lambda: (words := self.s.tmux("show-buffer").split()) and "1200" in words and words)
        self.assertTrue(copied, self.s.tmux("show-buffer"))
        self.assertLess(int(copied[0][-3:]), 150)

    def test_the_mouse_is_the_programs_when_it_asks(self):
        self.run_line(r"printf '\033[?1000h\033[?1006h'; echo as''ked; cat -v")
        self.s.sees(r"│asked")
        x = self.s.text().splitlines()[1].index("╮╭") + 10
        self.s.raw(f"\033[<0;{x};8M\033[<0;{x};8m")
        self.s.keys("Enter")
        self.s.sees(r"\^\[\[<0;\d+;\d+M")
        self.interrupt()
        self.run_line(r"printf '\033[?1000l\033[?1006l'")

    def test_the_users_terminal_has_what_the_program_asks_for_while_it_has_the_keys(self):
        def flags():
            return self.s.tmux("display", "-p", "-t", "t", "#{keypad_flag} #{mouse_all_flag} #{mouse_button_flag}").split()

        self.run_line(r"printf '\033=\033[?1003h\033[?1006h'; cat -v")
        self.assertTrue(wait_for(lambda: flags()[:2] == ["1", "1"]), flags())
        x = self.s.text().splitlines()[1].index("╮╭") + 10
        self.s.raw(f"\033[<35;{x};10M")
        self.s.sees(r"\^\[\[<35;\d+;\d+M")  # a movement without a button
        for keys, back in (((PREFIX, "d"), ("Enter",)), ((PREFIX, "?"), ("Escape",)), ((PREFIX, "["), ("q",))):
            self.s.keys(*keys)
            self.assertTrue(wait_for(lambda: flags() == ["0", "0", "1"]), (keys, flags()))
            time.sleep(0.1)
            self.s.keys(*back)
            self.assertTrue(wait_for(lambda: flags()[:2] == ["1", "1"]), (back, flags()))
        self.interrupt()
        self.run_line(r"printf '\033>\033[?1003l\033[?1006l'")
        self.assertTrue(wait_for(lambda: flags() == ["0", "0", "1"]), flags())

    def test_a_paste_is_bracketed_only_where_the_program_asked(self):
        self.run_line(r"printf '\033[?2004l'; echo pl''ain; cat -v")
        self.s.sees(r"│plain")
        self.s.raw("\033[200~pasted\033[201~")
        self.s.keys("Enter")
        self.s.sees("pasted")
        self.assertFalse([r for r in self.pane() if "200~" in r and r.startswith("^[")])
        self.interrupt()
        self.run_line(r"printf '\033[?2004h'; echo as''ked; cat -v")
        self.s.sees(r"│asked")
        self.s.raw("\033[200~pasted\033[201~")
        self.s.keys("Enter")
        self.s.sees(r"\^\[\[200~pasted\^\[\[201~")
        self.s.keys("C-c")

    def test_tabs_and_a_split(self):
        self.s.keys(PREFIX, "c")
        self.s.sees(r"1 \w+  \[\d+ bash\]")
        self.run_line("echo second$((1+1))")
        self.s.sees("second2")
        self.s.keys(PREFIX, "s")
        self.s.sees(r"\(\d+ |\d+ bash\)")
        shown = int(re.search(r"\[(\d+) bash\]", self.s.text())[1])
        other = int(re.search(r"\((\d+) bash\)", self.s.text())[1])

        def digit(n):  # the number that the tab shows, or its place among the two
            return str(n if n < 10 else 1 + (n > min(shown, other)))

        self.s.keys(PREFIX, digit(other))
        self.s.sees(rf"\({shown} bash\).*\[{other} bash\]|\[{other} bash\].*\({shown} bash\)")
        self.s.keys(PREFIX, digit(shown))
        self.s.sees(rf"\[{shown} bash\]")
        if shown == 1:
            self.s.keys(PREFIX, "o")
            self.s.sees(r"\(1 bash\)")
        self.run_line("exit")  # half a split that has nothing to show is none
        self.s.gone(r"\(\d+ bash\)")
        self.s.sees(r"\[1 ")

    def test_a_resize_while_output_floods_leaves_no_wrong_cell(self):
        self.run_line("while :; do echo 'abcdefghijklmnopqrstuvwxyz 0123456789'; done")
        self.s.sees("abcdefghij")
        for rows, cols in ((30, 110), (45, 170), (24, 90), (40, 140)):
            self.s.resize(rows, cols)
            time.sleep(0.25)
        self.interrupt()
        self.run_line(r"clear; for i in 1 2 3 4 5; do echo row$i; done; stty size")
        self.s.sees(r"│row5")
        self.assertTrue(wait_for(lambda: any(re.fullmatch(r"\d+ \d+", r) for r in self.pane())), self.s.text())
        time.sleep(0.5)
        pane = self.pane()
        i = pane.index("row1")
        self.assertEqual(pane[i:i + 5], [f"row{n}" for n in range(1, 6)])
        self.assertEqual(int(pane[i + 5].split()[0]), len(pane))
        self.assertEqual([r for r in pane[i + 7:] if r], [])

    def test_two_dashboards_show_one_session(self):
        other = Screen(self.home, "two", 32, 100)
        self.addCleanup(other.close)
        other.dashboard()
        other.sees(r"│ready")
        self.run_line("echo both$((2+2))")
        other.sees("both4")
        other.keys("Enter")
        other.sees(r"Ctrl-\] then")
        other.type("echo other$((3+3))")
        other.keys("Enter")
        self.s.sees("other6")
        other.sees("other6")
        # The size is that of who typed last; the other one shows it as it is.
        other.type("clear; stty size")
        other.keys("Enter")
        other.sees(r"│\d+ \d+ ")
        size = next(r for r in self.pane(other) if re.match(r"\d+ \d+$", r)).split()
        self.assertEqual(int(size[0]), len(self.pane(other)))
        self.run_line("clear; stty size")
        wait_for(lambda: any(re.match(rf"{len(self.pane())} \d+$", r) for r in self.pane()), 5)
        self.assertTrue(any(re.match(rf"{len(self.pane())} \d+$", r) for r in self.pane()), self.s.text())

    def test_a_flood_delays_no_key(self):
        self.run_line("yes floooood")
        self.s.sees("floooood")
        self.s.keys(PREFIX, "d")
        self.s.sees("c create")
        self.s.keys("?")
        self.s.sees("(?i)next theme")
        self.s.keys("Escape")
        self.s.gone("(?i)next theme")
        self.s.keys("Enter")
        self.s.sees(r"Ctrl-\] then")
        self.interrupt()
        self.run_line("echo done$((1+1))")
        self.s.sees("done2")

    def test_hostile_output_reaches_nothing(self):
        """Questions to the user's terminal, its title, its clipboard: nothing of a session's comes through."""
        self.s.tmux("set-buffer", "untouched")
        title = self.s.tmux("display", "-p", "#{pane_title}")
        self.run_line(r"printf '\033]52;c;%s\a\033]0;owned\a\033[21t\033P$qm\033\\\033]11;?\a\033[c' $(echo evil | base64); echo; echo pas''sed; cat -v")
        self.s.sees(r"│passed")
        time.sleep(1)
        self.assertEqual(self.s.tmux("show-buffer").strip(), "untouched")
        self.assertEqual(self.s.tmux("display", "-p", "#{pane_title}"), title)
        self.s.keys("Enter")
        self.assertFalse([r for r in self.pane() if "tmux" in r.lower()], self.s.text())
        self.s.keys("C-c")

    def test_what_libvterm_has_no_attribute_for_is_seen(self):
        self.run_line(r"printf '\033[2mdimmed\033[0m \033[8mhidden\033[0m \033[1mbold\033[0m\n'")
        self.s.sees(r"│dimmed")
        line = next(r for r in self.s.text(True).splitlines() if "dimmed" in r and "bold" in r and "printf" not in r)
        self.assertRegex(line, r"\033\[2m(\033\[[0-9;]*m)*dimmed|\033\[[0-9;]*;2mdimmed|2;[0-9;]*mdimmed")
        self.assertRegex(line, r"\033\[8m(\033\[[0-9;]*m)*hidden|\033\[[0-9;]*8mhidden")

    def test_direct_colours_and_all_attributes_where_the_terminal_has_them(self):
        self.s.dashboard("COLORTERM=truecolor TERM=tmux-256color")
        self.s.sees(r"│ready")
        self.s.keys("Enter")
        self.s.sees(r"Ctrl-\] then")
        self.run_line(r"printf '\033[9mstruck\033[0m \033[53mlined\033[0m \033[38;2;18;52;86mcoloured\033[0m\n'")
        self.s.sees(r"│struck")
        line = next(r for r in self.s.text(True).splitlines() if "struck" in r and "printf" not in r)
        self.assertRegex(line, r"\033\[9m(\033\[[0-9;]*m)*struck")
        self.assertRegex(line, r"\033\[(53|5:3)m(\033\[[0-9;]*m)*lined")
        self.assertIn("38;2;18;52;86m", line)


if __name__ == "__main__":
    unittest.main()

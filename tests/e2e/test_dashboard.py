"""The dashboard as a user meets it: the real program in tmux, with a real sandbox that the tests share (issue 5)."""
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from fakebox import FakeBox
from harness import SBX, Home, Limit, alive, wait_for, within
from tmuxdrive import Terminal

COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


class Empty(unittest.TestCase):
    """Without any sandbox, and without a machine."""

    @classmethod
    def setUpClass(cls):
        cls.h = Home()

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def terminal(self, **more):
        env = dict(self.h.env)
        env.update(more.pop("env", {}))
        t = Terminal(env, cwd=self.h.ws, **more)
        self.addCleanup(t.close)
        return t

    def test_not_a_terminal_is_help_and_2(self):
        r = self.h.run()
        self.assertEqual(r.returncode, 2)
        self.assertIn(b"sbx run", r.stdout + r.stderr)

    def test_sizes(self):
        t = self.terminal(cols=120, rows=40)
        t.wait("Welcome")
        t.keys("Escape")
        t.wait("no sandboxes yet")
        t.resize(50, 12)
        text = t.wait("needs a little more room")
        self.assertIn("50 columns and 12 rows", text)
        t.keys("c")  # keys do nothing that cannot be seen
        for cols, rows in ((1, 1), (300, 1), (2, 50)):
            t.resize(cols, rows)
            time.sleep(0.2)
        t.resize(80, 24)
        t.wait("no sandboxes yet")
        self.assertFalse(t.has("New sandbox"))
        for cols, rows in ((60, 16), (79, 20), (200, 60), (80, 24)):
            t.resize(cols, rows)
            t.wait("Sandboxes")

            def fits():
                frame = [line for line in t.lines() if line.startswith("╰")]
                return frame and len(frame[-1].rstrip()) == cols
            self.assertTrue(wait_for(fits), t.text())
            text = t.settle()
            self.assertTrue(text.rstrip("\n").split("\n")[-1].strip(), text)  # the status line stands in the last row

    def test_left_clean_however_it_ends(self):
        for how in ("q", signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV, signal.SIGABRT):
            t = Terminal(self.h.env, cwd=self.h.ws, shell=True, cols=100, rows=30)
            try:
                t.type(f"before=1; stty -g > a; {SBX}; echo status=$?\n")
                t.wait("Welcome")
                self.assertEqual(t.get("alternate_on"), "1")
                t.keys("Escape")
                t.wait("Welcome", gone=True)
                if how == "q":
                    t.keys("q")
                else:
                    os.kill(t.pid(), how)
                t.wait(r"status=\d+")
                for flag in ("alternate_on", "mouse_any_flag", "mouse_sgr_flag", "keypad_flag", "keypad_cursor_flag"):
                    self.assertEqual(t.get(flag), "0", f"{how}: {flag}")
                self.assertEqual(t.get("cursor_flag"), "1", how)
                t.type("stty -g > b; cmp a b && echo same\n")
                t.wait(r"\nsame")
            finally:
                t.close()

    def test_terminals_that_cannot(self):
        t = self.terminal(shell=True)
        t.type(f"TERM=dumb {SBX}; echo status=$?\n")
        self.assertIn("cannot place a cursor", t.wait("status=1"))
        t.type(f"TERM=no-such {SBX}; echo again=$?\n")
        self.assertIn("is not known here", t.wait("again=1"))
        # What this host does not know, but does what xterm does, as over ssh.
        for term in ("vt100", "xterm-unheard-of"):
            t.type(f"clear; TERM={term} {SBX}; echo {term}=$?\n")
            t.wait("Welcome")
            t.keys("Escape", "q")
            t.wait(f"{term}=0")

    def test_suspended_and_continued(self):
        t = self.terminal(shell=True, cols=100, rows=30)
        t.type(f"set -m; {SBX}\n")
        t.wait("Welcome")
        t.keys("Escape", "C-z")
        t.wait(r"Stopped|ready> $")
        self.assertEqual(t.get("alternate_on"), "0")
        t.resize(90, 28)
        t.type("fg\n")
        t.wait("no sandboxes yet")
        self.assertTrue(wait_for(lambda: [len(line) for line in t.lines() if line.startswith("╰")][:1] == [90]), t.text())
        t.keys("q")
        t.wait("ready> ")

    def test_killed_and_the_shell_goes_on(self):
        t = self.terminal(shell=True)
        t.type(f"{SBX}\n")
        t.wait("Welcome")
        os.kill(t.pid(), signal.SIGKILL)
        t.type("\nstty sane; reset; echo alive\n")
        t.wait("alive")

    def test_help_is_the_keymap_that_is_in_force(self):
        keys = pathlib.Path(self.h.env["XDG_CONFIG_HOME"]) / "sbx/keys"
        keys.write_text("[sandboxes]\nF6 sandbox.create make one now\n[global]\nq none\n")
        self.addCleanup(keys.unlink)
        t = self.terminal(rows=60)
        t.wait("Welcome")
        t.keys("Escape", "?")
        text = t.wait("Everywhere")
        self.assertRegex(text, r"c F6\s+create")
        t.keys("Escape", "q")
        t.wait("no sandboxes yet")
        time.sleep(0.3)
        self.assertEqual(t.get("pane_dead"), "0")  # q was taken away
        t.keys("F6")
        t.wait("New sandbox")
        t.keys("Escape")
        t.wait("New sandbox", gone=True)

    def test_borders_are_moved_and_scroll_bars_pressed(self):
        def drag(x, y, to_x, to_y):
            t.type(f"\033[<0;{x + 1};{y + 1}M\033[<32;{to_x + 1};{to_y + 1}M\033[<0;{to_x + 1};{to_y + 1}m")

        t = self.terminal(cols=120, rows=40)
        t.wait("Welcome")
        t.keys("Escape")
        t.wait("no sandboxes yet")
        x = t.lines()[1].index("╮")
        drag(x, 9, 49, 9)
        t.wait(r"\n╭─ Sandboxes ─{36}╮")
        t.keys("<")
        t.wait(r"\n╭─ Sandboxes ─{34}╮")
        y = next(i for i, line in enumerate(t.lines()) if "Network:" in line)
        drag(80, y - 1, 80, 19)
        t.wait(rf"(?s)^(?:[^\n]*\n){{20}}[^\n]*Network:")
        t.keys("+")
        t.wait(rf"(?s)^(?:[^\n]*\n){{19}}[^\n]*Network:")
        t.click("follow")
        t.wait("PAUSED")
        t.resize(80, 24)
        t.wait("Network:")  # what was given is what there is room for
        t.keys("?")
        t.wait("f Space +follow")
        lines = t.lines()
        y, bar = next((i, line.index("┃")) for i, line in enumerate(lines) if "┃" in line)
        t.mouse(bar, len(lines) - 4)
        t.wait("Your own keys")

    def test_first_and_last_of_a_list(self):
        t = self.terminal(rows=24)
        t.wait("Welcome")
        t.keys("Escape", "?")
        t.wait("c  +create")
        t.keys("G")
        t.wait("c  +create", gone=True)
        t.keys("g")
        t.wait("c  +create")

    def test_a_bad_line_in_the_keys_is_told(self):
        keys = pathlib.Path(self.h.env["XDG_CONFIG_HOME"]) / "sbx/keys"
        keys.write_text("[global]\nctrl-nonsense app.quit\nF5 no.such.action\n[log]\nd none\nF5 log.deny no to it\n[nowhere]\n")
        self.addCleanup(keys.unlink)
        t = self.terminal(cols=80, rows=24)
        t.wait("line 2.*is no")
        t.keys("Escape", "m")
        t.wait(r"\(and 2\W+(│\W*)?more of its lines\)")  # all of it can be read, however narrow
        t.keys("Escape", "Tab")
        t.wait("F5|f follow")
        t.keys("?")
        self.assertNotRegex(t.wait("Network log"), r"[│ ]d  +")  # what took the key away took it from the help, too
        t.keys("/")
        t.type("no to it")
        t.wait("Enter  +details", gone=True)
        t.wait(r"F5 +no to it")
        t.keys("Enter", "Escape")  # the filter goes first
        t.wait("Network log")

    def test_help_says_first_what_holds_here(self):
        t = self.terminal(cols=100, rows=30)
        t.wait("Welcome")
        t.keys("?")
        t.wait(r"─ Keys.*\n.*Welcome")
        t.keys("Escape", "Escape", "R")
        t.wait("Posture:")
        t.keys("?")
        t.wait(r"─ Keys.*\n.*Rules")
        t.keys("?")
        t.wait("─ Keys", gone=True)
        t.keys("a")
        t.wait("New rule")
        t.keys("F1")
        t.wait(r"─ Keys.*\n.*In every form")
        t.keys("Escape", "Escape", "Escape")
        t.wait("Posture:", gone=True)

    def test_a_question_has_keys_that_can_be_changed(self):
        keys = pathlib.Path(self.h.env["XDG_CONFIG_HOME"]) / "sbx/keys"
        keys.write_text("[confirm]\ny none\nF3 confirm.yes do it\n")
        self.addCleanup(keys.unlink)
        self.h.sbx("policy", "allow", "network", "-g", "gone.example.com")
        t = self.terminal(cols=120, rows=30)
        t.wait("Welcome")
        t.keys("Escape", "R")
        t.wait("gone.example.com")
        t.keys("r")
        t.wait("Take back")
        time.sleep(0.6)
        t.keys("y")
        time.sleep(0.3)
        self.assertTrue(t.has("Take back"))
        time.sleep(0.5)
        t.keys("F3")
        t.wait("the rule is gone")

    def test_light_where_the_terminal_is(self):
        for ground, want in (("ffff/ffff/ffff", b"48;2;250;250;248"), ("0000/0000/0000", b"48;2;13;17;23")):
            pid, fd = pty.fork()
            if pid == 0:
                os.chdir(self.h.ws)
                os.execve(SBX, [SBX], {**self.h.env, "TERM": "xterm-256color", "COLORTERM": "truecolor"})
            try:
                fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
                out, answered, limit = b"", False, Limit(60)
                while want not in out and not limit.over():
                    if select.select([fd], [], [], 0.2)[0]:
                        out += os.read(fd, 65536)
                    if not answered and b"\x1b]11;?" in out:
                        answered = True
                        os.write(fd, f"\x1b]11;rgb:{ground}\x1b\\\x1b[?62;22c".encode())
                self.assertIn(want, out)
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(fd)

    def test_what_is_faint_is_seen_where_there_are_8_colours(self):
        t = self.terminal(term="xterm")
        t.wait("Welcome")
        self.assertRegex(t.ansi(), r"\x1b\[[0-9;]*37[0-9;]*m[^\x1b]*coding agents")

    def test_command_line(self):
        t = self.terminal()
        t.wait("Welcome")
        t.keys("Escape")
        t.keys(":")
        t.type("polic")
        t.keys("Tab")
        t.wait(r":policy ")
        t.type("ls")
        t.keys("Enter")
        t.wait(r"policy ls .*╮", 10)
        t.keys("Escape")
        t.keys(":")
        t.type("nonsense here")
        t.keys("Enter")
        t.wait('there is no command "nonsense"')
        t.keys("m")
        t.wait("Messages")
        t.wait('there is no command "nonsense"')
        t.keys("Escape", ":", "Up")
        t.wait(":nonsense here")
        t.keys("Escape")
        t.wait(":nonsense here", gone=True)

    def test_a_command_that_takes_away_asks_first(self):
        self.h.sbx("policy", "allow", "network", "-g", "kept.example.com")
        self.h.sbx("create", "--name", "doomed", "shell", str(self.h.ws))
        t = self.terminal(cols=120, rows=30)
        t.wait("doomed")
        for line, asks, then in (("rm doomed", "Remove doomed. The machine goes", lambda: "doomed" not in self.h.ls()),
                                 ("policy reset", "Remove every rule and go back", lambda: self.rules() == [])):
            t.keys(":")
            t.type(line)
            t.keys("Enter")
            t.wait(asks)
            t.keys("Enter")  # Cancel is what stands there
            t.wait(asks, gone=True)
            self.assertFalse(then(), line)
            t.keys(":", "Up", "Enter")
            t.wait(asks)
            time.sleep(0.5)
            t.keys("y")
            t.wait(asks, gone=True)
            self.assertTrue(wait_for(then, 10), line)
        self.assertNotIn(r"\x0a", t.wait("posture: "))
        t.keys(":")
        t.type("policy")
        t.keys("Enter")
        t.wait("rules in force")  # what belongs to it
        t.keys("Escape", ":")
        t.type("theme mono")
        t.keys("Tab")
        t.wait(":theme monochrome")
        t.keys("Enter")
        t.wait("theme: monochrome")
        t.keys(":")
        t.type("sett")
        t.keys("Tab", "Enter")
        t.wait("ui.theme")
        t.keys("Escape", ":")
        t.type("secret set -g openai")
        t.keys("Enter")
        t.wait("OpenAI .not shown.", 10)
        t.wait("Sandboxes", gone=True)  # it asks on the terminal, without an echo
        t.keys("C-c")
        t.wait("Sandboxes")
        t.wait("secret set -g openai: status")

    def test_command_line_lists_what_may_follow(self):
        t = self.terminal(cols=140, rows=30)
        t.wait("Welcome")
        t.keys("Escape", ":")
        t.type("re")
        t.keys("Tab")
        t.wait(r":re  +(?=.*rename)(?=.*restart)")
        t.click("restart")
        t.wait(r":restart ")
        t.mouse(60, 10)  # elsewhere: the line is left
        t.wait(":restart", gone=True)
        t.keys(":")
        t.keys("C-u")
        t.type("run cl")
        t.keys("Tab")
        t.wait(r":run claude ")
        t.keys("C-u")
        t.type("config get ui.th")
        t.keys("Tab")
        t.wait(r":config get ui.theme ")
        t.keys("Home")
        t.type("sbx ")
        t.keys("Right", "Delete", "C-e", "BSpace")
        t.wait(r":sbx cnfig get ui.theme(?! c)")
        t.keys("C-a", *["Right"] * 5)
        t.type("o")
        t.keys("Enter")
        t.wait("auto")
        t.keys(":")
        t.type("nothing-like-it")
        t.keys("Tab")
        t.wait("nothing begins so")
        t.keys("Escape")

    def test_a_click_does_what_the_key_does(self):
        t = self.terminal(cols=140, rows=30)
        t.wait("Welcome")
        t.click("codex")
        t.wait("▸ 2  codex")
        t.click("c more choices  Esc")
        t.wait("New sandbox")
        t.click("Branch")
        t.type("feature/mouse")
        t.wait(r"Branch +feature/mouse")
        t.click("  Cancel  ")
        t.wait("New sandbox", gone=True)
        t.click("? help")
        t.wait("Everywhere")
        t.click("Esc close")
        t.wait("Everywhere", gone=True)
        t.click("command")
        t.wait(r"\n :")
        t.type("nonsense")
        t.keys("Enter")
        t.wait("no command")
        t.wait("1 unread")
        t.click("1 unread")
        t.wait("Messages")
        t.wait("unread", gone=True)  # they were read
        t.keys("Escape")
        t.click("Network:")
        t.wait("f follow")
        t.click("f follow")
        t.wait("PAUSED")

    def test_what_is_wrong_is_said_while_typing_also_where_there_is_little_room(self):
        for cols, rows in ((80, 24), (60, 16)):
            t = self.terminal(cols=cols, rows=rows)
            t.wait("Welcome")
            t.keys("Escape", "c")
            t.wait("New sandbox")
            t.keys("Down")
            t.wait("Tab comp")  # what the field is for
            t.keys("C-u")
            t.type("/nowhere")
            t.wait("no such folder")
            t.wait("Cancel")
            t.keys("C-u")
            t.type("/")
            t.keys(*["Down"] * 4)
            t.type("two words")
            t.wait("git takes no such name")
            t.keys(*["Down"] * 4)
            t.wait("Starts from")
            t.wait("Cancel")
            t.keys("Escape")
            t.wait("New sandbox", gone=True)

    def test_themes_and_no_colour(self):
        t = self.terminal()
        t.wait("Welcome")
        self.assertRegex(t.ansi(), COLOUR)
        t.keys("Escape")
        seen, last = set(), "none"
        for _ in range(4):
            t.keys("T")
            last = re.search(r"theme: (\S+)", t.wait(rf"theme: (?!{last}\b)\S+ ")).group(1)
            seen.add(last)
        self.assertEqual(seen, {"contrast", "dark", "light", "monochrome"})
        for more in ({"env": {"NO_COLOR": "1"}}, {"term": "vt100"}):
            t = self.terminal(**more)
            t.wait("Welcome")
            self.assertNotRegex(t.ansi(), COLOUR, more)

    def test_direct_colours_where_the_terminal_has_them(self):
        for more, want, never in (({"env": {"COLORTERM": "truecolor"}}, "\x1b[38;2;90;200;250m", "38;5;"), ({}, "38;5;", "38;2;"),
                                  ({"env": {"COLORTERM": "truecolor"}, "term": "xterm-256color"}, "38;2;90;200;250m", "38;5;"),
                                  ({"env": {"COLORTERM": "truecolor"}, "term": "screen"}, "38;2;", "38;5;")):
            t = self.terminal(**more)
            t.wait("Welcome")
            ansi = t.settle() and t.ansi()
            self.assertIn(want, ansi, more)
            self.assertNotIn(never, ansi, more)

    def test_plain_characters_where_the_locale_has_no_others(self):
        t = self.terminal(env={"LC_ALL": "C"})
        text = t.wait("Welcome")
        self.assertTrue(all(ord(c) < 128 for c in text), text)

    def test_create_form(self):
        t = self.terminal(rows=40)
        t.wait("Welcome")
        t.keys("c")
        t.wait("New sandbox")
        for _ in range(20):  # the one that needs no installation
            if not t.has("Agent +. shell ."):
                t.keys("Right")
                t.settle(0.1)
        t.keys("Tab")
        t.keys("C-u")
        t.type("/nowhere/at/all")
        t.wait("there is no such folder")
        t.keys("C-s")
        t.wait("New sandbox")
        self.assertEqual(self.h.ls(), {})
        t.keys("C-u")
        t.type(str(self.h.dir / "w"))
        t.keys("Tab")
        t.wait(re.escape(str(self.h.ws)[-12:]) + "/")
        t.keys("Tab", "Tab")
        t.type("Not A Name!")
        t.wait("name")
        t.keys("C-u")
        t.type("kept-name")
        t.keys("Tab", "Right", "Tab")  # on a branch: that there is no repository only the command finds
        t.type("my-branch")
        t.keys("C-s")
        t.wait(r"(?s)Name +kept-name .*Branch +my-branch .*repository")
        self.assertEqual(self.h.ls(), {})
        t.keys("Escape")
        t.wait("New sandbox", gone=True)
        t.keys("c")
        t.wait("New sandbox")
        self.assertFalse(t.has("kept-name"))  # what was left is left
        t.keys("Escape")
        t.wait("New sandbox", gone=True)

    def test_paths_are_completed(self):
        """Folders alone, with blanks and wide letters in their names, and behind links."""
        base = self.h.dir / "paths"
        for name in ("two words", "日本語", "deep/inside"):
            (base / name).mkdir(parents=True)
        (base / "two words.txt").touch()
        (base / "link").symlink_to(base / "deep")
        for i in range(30):
            (base / f"many/folder-{i:02}/in").mkdir(parents=True)
        t = self.terminal(cols=80, rows=24)
        t.wait("Welcome")
        t.keys("c")
        t.wait("New sandbox")
        t.keys("Down", "C-u")
        t.type(f"{base}/tw")
        t.keys("Tab")
        t.wait("two words/")
        t.keys("C-u")
        t.type(f"{base}/l")
        t.keys("Tab")
        t.type("i")
        t.keys("Tab")
        t.wait("link/inside/")
        t.keys("C-u")
        t.type(f"{base}/many/f")
        t.keys("Tab")  # several are listed, in their order, though what stands there is no folder yet
        t.wait("folder-00/  folder-01/  .*Tab: 2[0-9] more")
        t.keys("Tab")
        t.wait("folder-00/", gone=True)
        listed = t.wait("folder-05/.*Tab: ")
        t.click("Tab: ")
        t.wait("folder-05/", gone=True)
        t.click(re.search("(folder-../) .*Tab: ", t.wait("folder-../ .*Tab: ")).group(1))
        taken = re.search(r"many/(folder-..)/ ", t.wait(r"many/folder-../ ")).group(1)
        self.assertNotIn(taken, listed)
        t.keys("Tab")
        t.wait(f"many/{taken}/in/")
        t.keys("C-w", "C-w", "Tab")
        t.wait("Folder  +.*/many/folder- ")
        t.wait("folder-00/.*Tab: ")
        line = next(y for y, text in enumerate(t.lines()) if "folder-00/" in text)
        t.mouse(30, line, button=65)
        t.wait("folder-00/", gone=True)
        t.mouse(30, line, button=64)
        t.wait("folder-00/")
        t.click("More folders")
        t.wait("folder-00/", gone=True)  # it was for the other field
        t.type(f"{base}/tw")
        t.keys("Tab")
        t.wait(re.escape("two\\ words/"))
        t.type(f" {base}/日")
        t.keys("Tab")
        t.wait("日本語/")
        t.type(":ro /nowhere/else")
        t.wait("there is no folder /nowhere/else")
        t.keys("C-w", "C-w", "BSpace", "BSpace")
        t.wait("there is no folder", gone=True)
        t.keys(*["Down"] * 5)
        for bad in ("64K", "1e4", "0x900", "nan", "100"):
            t.keys("C-u")
            t.type(bad)
            t.wait("a size of at least 256 MiB")
        t.keys("C-u")
        t.type("2G")
        t.wait("a size of", gone=True)
        t.keys("Escape")
        t.wait("New sandbox", gone=True)
        self.assertEqual(self.h.ls(), {})

    def under_cursor(self, t):
        return t.lines()[int(t.get("cursor_y"))][int(t.get("cursor_x"))]

    def test_a_field_is_edited_as_in_a_shell(self):
        t = self.terminal(cols=80, rows=24)
        t.wait("Welcome")
        t.keys("Escape", "c")
        t.wait("New sandbox")
        t.keys("Tab", "Tab", "Tab", "Tab", "Tab", "BTab", "BTab")
        t.type("a")  # Tab passes what was not typed into: this is the name
        t.wait("Name +a ")
        t.keys("Up", "Up", "C-u")
        t.type("/one/two-three")
        t.keys("M-b", "C-k", "Home", "C-y", "C-e", "M-BSpace", "C-Left", "M-d", "C-a", "C-f", "DC", "C-d")
        t.wait("Folder +tee// ")
        t.keys("C-u", "C-k", "C-y")
        t.wait("Folder +tee// ")
        # Longer than the field: the cursor stands on the character that it stands before, at either end.
        long = "/" + "".join(f"{i:02}" for i in range(50))
        t.keys("C-u", "C-k")
        t.type(long)
        t.wait("Folder +….*4849 ")
        t.keys(*["Left"] * 3)
        self.assertTrue(wait_for(lambda: self.under_cursor(t) == "8"), t.text())
        t.keys("Home")
        t.wait("Folder +/0001.*…")
        t.keys("C-e", "C-Left", "Right", "Right", "Right")
        self.assertTrue(wait_for(lambda: self.under_cursor(t) == long[4]), t.text())
        t.keys("End")
        y = next(i for i, line in enumerate(t.lines()) if "Folder" in line)
        t.mouse(40, y)
        there = lambda: self.under_cursor(t) == t.lines()[y][40] and int(t.get("cursor_x")) == 40
        self.assertTrue(wait_for(there), t.text())
        t.type("x")
        t.wait("Folder +….*4849")
        self.assertTrue(wait_for(lambda: t.lines()[y][40] == "x" or t.lines()[y][39] == "x"), t.text())
        for cols, rows in ((60, 16), (40, 10), (120, 40), (80, 24)):  # it stays what it is, at any size
            t.resize(cols, rows)
            t.wait("a little more room" if cols == 40 else "New sandbox")
        t.wait("Folder +…")
        t.keys("C-a", "C-k")
        t.type("日本e\u0301語")
        t.keys("Left", "BSpace")
        t.wait("Folder +日本語 ")
        # Several lines are one, and what is not seen is not there.
        t.keys("C-e", "C-u")
        t.tmux("set-buffer", "/a\n/b\x07\u202e\x1b[31mc\n")
        t.tmux("paste-buffer", "-p", "-r")
        t.wait(r"Folder +/a /b\[31mc ")
        t.keys("F1")
        t.wait("In every form")
        t.keys("Escape")
        t.wait("In every form", gone=True)
        t.wait(r"Folder +/a /b\[31mc +│")
        t.click("Processors")
        t.keys("C-u", "Enter", "Enter", "Enter", "Enter")
        t.wait("there is no such folder")  # Enter in the last field: nothing is started, and what is wrong is said
        t.wait("Folder +/a /b")
        t.keys("Escape")
        t.wait("New sandbox", gone=True)
        self.assertEqual(self.h.ls(), {})
        # The command line knows the same keys.
        t.keys(":")
        t.type("ls xx yy")
        t.keys("C-w", "C-w", "C-a", "M-f", "C-y", "M-b", "C-k")
        t.type("version")
        t.keys("C-a", "M-d", "DC")
        t.wait("(?m)^ :version")
        t.keys("Escape")

    def test_the_logs_filter_is_edited_like_every_text(self):
        t = self.terminal(cols=100, rows=30)
        t.wait("Welcome")
        t.keys("Escape", "Tab", "/")
        t.wait("Enter keeps the filter  Esc clears it")
        t.type("host:two port:1")
        t.keys("C-w", "Home", *["Right"] * 5, "C-k")
        t.type("one.example ")
        t.keys("C-y")
        t.wait("filter host:one.example two ")
        t.keys("Enter", "/")
        t.wait("Esc leaves it as it was")
        t.type("x" * 70)  # what is typed stays in sight
        t.type("end")
        t.wait("filter x*end")
        t.click("Esc leaves")
        t.wait("filter host:one.example two ")
        t.keys("Escape", "s")
        t.wait("Enter finds it, upwards  Esc leaves")
        t.keys("Escape", "t")
        t.wait("Enter goes there  Esc leaves")
        t.keys("C-c")
        t.wait("a allow")

    def test_settings_form(self):
        t = self.terminal()
        t.wait("Welcome")
        t.keys("Escape", "O")
        t.wait("Settings")
        t.wait("ui.theme")
        t.keys("/")
        t.type("ui.theme")
        t.keys("Enter")
        t.wait("vm.memory", gone=True)
        t.keys("Enter")
        t.wait("Value")
        t.keys("C-u")
        t.type("light")
        t.keys("C-s")
        t.wait("Cancel", gone=True)
        t.wait("the setting is in force")
        self.assertIn("light", self.h.sbx("config", "get", "ui.theme"))
        self.h.sbx("config", "unset", "ui.theme")
        t.keys("Escape")  # the filter goes first
        t.wait("net.outside")
        before = self.h.sbx("config", "get", "net.outside")
        t.keys("/")
        t.type("net.outside")
        t.keys("Enter", "Enter")
        t.wait(r"203\.0\.113\.0/24.*\n(.*\n)*.*Save")
        t.keys("C-s")  # as it stands: nothing is lost
        t.wait("Cancel", gone=True)
        t.wait("the setting is in force")
        self.assertEqual(self.h.sbx("config", "get", "net.outside"), before)
        t.keys("u")
        t.wait(r"net.outside is 203\.0\.113\.0/24\. Go back to\W+the default")  # it would be lost
        t.keys("Enter")
        t.wait("Go back to the", gone=True)
        self.assertEqual(self.h.sbx("config", "get", "net.outside"), before)
        for name, value in (("workspace.hide", '["**/a,b", "x"]'), ("workspace.readonly", json.dumps([f"file{i}" for i in range(900)]))):
            self.h.sbx("config", "set", name, value)
        t.keys("Escape", "Escape", "O")
        t.wait("vm.memory")
        t.keys("/")
        t.type("workspace.hide")
        t.keys("Enter", "Enter")
        t.wait(r'Value +\["[*]')
        t.keys("C-s")  # a comma of an item parts nothing
        t.wait("Cancel", gone=True)
        t.wait("the setting is in force")
        t.keys("Escape", "/")
        t.type("workspace.readonly")
        t.keys("Enter")
        for _ in range(10):
            t.keys("Enter")
            if within(5, lambda: t.has("is too long for a form")):  # and nothing is cut; it is said for six seconds
                break
        else:
            self.fail(t.text())
        self.assertEqual([len(json.loads(self.h.sbx("config", "get", f"workspace.{n}"))) for n in ("hide", "readonly")], [2, 900])
        self.h.sbx("config", "unset", "workspace.hide")
        self.h.sbx("config", "unset", "workspace.readonly")
        for name, bad, why in (("net.outside", "1.2.3.4/99", "is no address range"), ("vm.cpus", "99", "from 1 to 64"), ("ui.theme", "nonsense", "there is no theme"),
                               ("attach.prefix", "zzz", "is no key for it"), ("net.map", "a=b", "no place to dial"), ("net.proxy", "ftp://x", "http://HOST:PORT")):
            was = self.h.sbx("config", "get", name)
            t.keys("Escape", "/")
            t.type(name)
            t.keys("Enter", "Enter")
            t.wait("Value")
            t.keys("C-u")
            t.type(bad)
            t.wait(why)  # while one types
            t.keys("C-s")
            t.wait("Value")
            t.keys("Escape")
            t.wait("Value  ", gone=True)
            self.assertEqual(self.h.sbx("config", "get", name), was)
            self.assertEqual(self.h.run("config", "set", name, bad).returncode, 2)
        t.keys("Escape", "Escape")
        t.wait("net.outside", gone=True)
        body = lambda: t.ansi().split("\n")[1:-2]  # without the clock, and what is said
        looks = body()
        self.h.sbx("config", "set", "ui.theme", "contrast")  # in force here as well, whoever set it
        self.assertTrue(wait_for(lambda: body() != looks))
        self.h.sbx("config", "unset", "ui.theme")
        self.assertTrue(wait_for(lambda: body() == looks))

    def test_secrets_form_never_shows_the_value(self):
        value = "sk-ant-dashboard-0123456789abcdef"
        t = self.terminal(rows=40)
        t.wait("Welcome")
        t.keys("Escape", "S")
        t.wait("No secrets yet")
        t.keys("a")
        t.wait("Set a secret")
        t.keys("Tab", "Tab")
        t.type(value)
        t.wait(r"\*\*\*\*\*\*")
        self.assertNotIn(value[:8], t.text(True))
        t.keys("C-u", "C-y")
        t.wait(r"\*", gone=True)  # what is cut of it is kept nowhere
        t.keys("Enter")
        t.wait("the value is missing")  # by Enter as well: what is below is no field
        t.tmux("set-buffer", value + "\n")
        t.tmux("paste-buffer", "-p", "-r")
        t.wait(r"\*\*\*\*\*\*")
        t.wait("the value is missing", gone=True)
        t.keys("Enter")
        t.wait("the secret is set")
        t.wait("anthropic")
        self.assertNotIn("dashboard", t.text(True))
        r = subprocess.run(["grep", "-rlF", value, str(self.h.dir)], capture_output=True, text=True)
        self.assertEqual(r.stdout, "")
        t.keys("Enter")  # a new value for the one that is there
        t.wait("A new value for a secret")
        t.keys("Tab", "Tab")
        store = next(p for p in (self.h.dir / "data/sbx/secrets").iterdir() if p.name.startswith("store") and p.suffix != ".lock")
        good = store.read_bytes()
        store.write_bytes(b"broken")
        t.type(value[::-1])
        t.keys("C-s")
        t.wait(r"(?s)Value +\*{%d} .*store.*Cancel" % len(value))  # it stays, and the value with it, unseen, until the form is left
        t.wait("A new value for a secret")
        self.assertNotIn(value[::-1][:8], t.text(True))
        store.write_bytes(good)
        t.keys("C-u")
        t.type("short value")
        t.wait("A new value")
        t.keys("C-u")
        t.type(value[::-1])
        t.wait(r"\*\*\*\*\*\*")
        t.keys("Escape")  # leaves without change
        t.wait("A new value", gone=True)
        self.assertNotIn(value[::-1][:8], t.text(True))
        t.keys("Enter")
        t.wait("A new value for a secret")
        t.keys("Tab", "Tab")
        t.type(value + "-two")
        t.keys("C-s")
        t.wait("Cancel", gone=True)
        t.wait("the secret has its new value")
        self.assertNotIn("dashboard", t.text(True))
        self.assertEqual(len(json.loads(self.h.sbx("secret", "ls", "--json"))), 1)
        t.keys("o")
        t.wait("Sign in")
        t.wait("it takes this terminal|It takes this terminal")
        t.keys("Escape")
        t.wait("takes this terminal", gone=True)
        t.keys("r")
        t.wait("Forget the anthropic secret")
        t.keys("Enter")  # Cancel is what stands there
        t.wait("Forget", gone=True)
        self.assertIn("anthropic", self.h.sbx("secret", "ls"))
        t.keys("r")
        t.wait("Forget")
        t.keys("Tab", pause=0.5)
        t.keys("Enter")
        t.wait("the secret is gone")
        t.wait("No secrets yet")

    def test_a_form_waits_for_its_command(self):
        """Nothing is sent twice, and who does not wait leaves; with what stands there it stays if nothing came of it."""
        path = self.h.dir / "config/sbx/policy.json.lock"
        t = self.terminal(cols=120, rows=40)
        t.wait("Welcome")
        t.keys("Escape", "R")
        t.wait("Posture")
        for leaves in (False, True):
            with open(path, "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another command has the policy
                t.keys("a")
                t.wait("New rule")
                t.keys("Tab")
                t.type(f"held{str(leaves).lower()}.example.com")
                t.keys("C-s")
                t.wait("at work; Esc leaves, and it goes on")
                t.keys("C-s", "C-u", "Enter", "Tab")
                t.type("more")
                t.click(f"held{str(leaves).lower()}")
                t.click("Save")
                t.resize(100, 30)
                t.wait(f"Rule +held{str(leaves).lower()}.example.com ")
                t.wait("(?m)^ Esc leave  F1 help")
                self.assertFalse(t.has("Ctrl-S save"))
                if leaves:
                    t.keys("Escape")
                    t.wait("New rule", gone=True)
                self.assertEqual(self.rules(), [("allow", "heldfalse.example.com", False)] if leaves else [])
            t.wait("New rule", gone=True)
            t.wait("the rule is in force")
            self.assertTrue(wait_for(lambda: t.has(f"allow +held{str(leaves).lower()}.example.com")))
            t.resize(120, 40)
        self.assertEqual([r[1] for r in self.rules()], ["heldfalse.example.com", "heldtrue.example.com"])
        t.keys("a")
        t.wait("New rule")
        policy = self.h.dir / "config/sbx/policy.json"
        good = policy.read_text()
        policy.write_text("{")
        t.keys("Tab")
        t.type("third.example.com")
        t.keys("Tab", "Tab", "Tab")
        t.type("for a reason")
        t.keys("C-s")
        t.wait(r"(?s)Rule +third.example.com .*Why +for a reason .*policy.json is unusable.*sbx policy reset.*Cancel")  # all of the sentence
        policy.write_text(good)
        t.keys("C-s")
        t.wait("New rule", gone=True)
        t.wait("third.example.com +all sandboxes +for a reason")
        for name in ("heldfalse", "heldtrue", "third"):
            self.h.sbx("policy", "rm", "-g", f"{name}.example.com")

    def test_ctrl_c_and_ctrl_g_leave_as_escape_does(self):
        self.h.sbx("policy", "allow", "network", "-g", "stays.example.com")
        t = self.terminal(cols=120, rows=40)
        t.wait("Welcome")
        for key in ("C-c", "C-g"):
            if key == "C-c":
                t.keys(key)
                t.wait("Welcome", gone=True)
            t.keys("R")
            t.wait("stays.example.com")
            t.keys("a")
            t.wait("New rule")
            t.keys("Tab")
            t.type("never.example.com")
            t.keys("F1")
            t.wait("Esc Ctrl-C Ctrl-G +leave without change")
            t.keys(key)
            t.wait("In every form", gone=True)
            t.wait("Rule +never.example.com")
            t.keys(key)
            t.wait("New rule", gone=True)
            t.keys("r")
            t.wait("Take back")
            t.keys(key)
            t.wait("Take back", gone=True)
            t.keys("/")
            t.type("nothing like it")
            t.wait("nothing matches")
            t.keys(key)
            t.wait("stays.example.com")
            t.keys(key)
            t.wait("Network rules", gone=True)
        self.assertEqual(self.rules(), [("allow", "stays.example.com", False)])
        self.assertEqual(t.get("pane_dead"), "0")
        self.h.sbx("policy", "rm", "-g", "stays.example.com")

    def test_rules_form(self):
        t = self.terminal(cols=140, rows=40)
        t.wait("Welcome")
        t.keys("Escape", "R")
        t.wait("Posture: balanced", 10)
        t.keys("a")
        t.wait("New rule")
        t.keys("Tab")
        t.type("*.github.io")
        t.wait(r"It will stand as: allow \*\.github\.io")
        for rows in range(16, 26):  # at any height what it says is whole, and covers nothing
            t.resize(100, rows)
            t.wait(r"(?s)What .*Rule .*For .*How long .*Why .*may reach it can carry data\W+out")
        t.keys("Escape")
        t.wait("It will stand", gone=True)
        self.assertNotIn("github.io", self.h.sbx("policy", "ls"))

    def rules(self):
        return [(r["action"], r["rule"], bool(r.get("disabled"))) for r in json.loads(self.h.sbx("policy", "ls", "--json"))["rules"]
                if r["scope"] == "all"]

    def test_rules_edited_rested_tested_and_removed(self):
        self.h.sbx("policy", "allow", "network", "-g", "first.example.com")
        t = self.terminal(cols=140, rows=40)
        t.wait("Welcome")
        t.keys("Escape", "R")
        t.wait("first.example.com")
        t.keys("Enter")
        t.wait("Edit a rule")
        t.keys("Tab", "C-u")
        t.type("second.example.com:8443")
        t.keys("C-s")
        t.wait("Edit a rule", gone=True)
        t.keys("Escape")  # at once: the old one goes all the same
        t.wait("the rule is in force")
        self.assertTrue(wait_for(lambda: self.rules() == [("allow", "second.example.com:8443", False)]), self.rules())
        t.keys("R")
        t.wait("Posture")
        t.wait("first.example.com", gone=True)
        t.wait("second.example.com")
        self.assertEqual(self.rules(), [("allow", "second.example.com:8443", False)])
        t.keys("Enter")
        t.wait("Edit a rule")
        self.h.sbx("policy", "rm", "-g", "second.example.com:8443")  # by somebody else: an edit does not bring it back
        t.keys("Down", "Down", "Down", "Down")
        t.type("typed in vain?")
        t.keys("C-s")
        t.wait(r'there is no rule "second.example.com:8443" for all sandboxes')
        t.wait("Edit a rule")
        t.wait("Why +typed in vain?")  # the form stays, with what was typed
        t.wait("Rule +second.example.com:8443")
        t.type("7")  # where the cursor is by now: in the field that this speaks of
        t.wait("Rule +second.example.com:84437")
        t.wait("there is no rule", gone=True)
        self.assertEqual(self.rules(), [])
        self.h.sbx("policy", "allow", "network", "-g", "second.example.com:8443")
        t.keys("BSpace", "C-s")
        t.wait("Edit a rule", gone=True)
        self.assertEqual(self.rules(), [("allow", "second.example.com:8443", False)])
        t.keys("Space")
        t.wait("the rule rests")
        self.assertEqual(self.rules(), [("allow", "second.example.com:8443", True)])
        t.keys("Enter")
        t.wait("Edit a rule")
        t.wait("at rest")
        t.keys("Tab", "Tab", "Tab", "Tab", "C-u")
        t.type("for later")
        t.keys("C-s")
        t.wait("Cancel", gone=True)
        t.wait("changed, and rests")  # an edit wakes nothing
        self.assertEqual(self.rules(), [("allow", "second.example.com:8443", True)])
        t.keys("Space")
        t.wait("in force again")
        t.keys("t")
        t.wait("What would happen")
        t.type("*.example.com")
        t.wait("one host or address, not a pattern")  # while one types
        t.keys("C-u")
        t.type("second.example.com:8443")
        t.keys("C-s")
        t.wait("allowed, by allow second.example.com:8443")
        t.keys("Escape")
        t.wait("What would happen", gone=True)
        t.keys("t")
        t.wait("What would happen")
        t.type("third.example.com")
        t.keys("Tab")
        t.type("post /x")
        t.wait("a method, and perhaps a path")
        t.keys("C-u")
        t.type("POST /x,y")
        t.keys("C-s")
        t.wait(r"denied, by posture balanced")  # a denial is an answer
        t.wait(r"sbx policy allow network -g 'POST third.example.com:443/x\\,y'")
        t.keys("Escape")
        t.wait("What would happen", gone=True)
        t.keys("r")
        t.wait("Take back")
        t.keys("Enter")
        t.wait("Take back", gone=True)
        self.assertEqual(len(self.rules()), 1)
        t.keys("r")
        t.wait("Take back")
        t.keys("Tab", pause=0.5)
        t.keys("Enter")
        t.wait("the rule is gone")
        self.assertEqual(self.rules(), [])
        # An edit prolongs nothing, and a comma in a path makes no second rule.
        self.h.sbx("policy", "allow", "network", "-g", "brief.example.com", "--for", "30m")
        before = json.loads(self.h.sbx("policy", "ls", "--json"))["rules"][0]["expires"]
        t.keys("Escape", "R")
        t.wait("brief.example.com")
        t.keys("Enter")
        t.wait("as it is")
        t.keys("Tab")
        t.type("/x,evil.example.net")
        t.wait("It will stand as: allow brief.example.com/x,evil.example.net")
        t.keys("C-s")
        t.wait("Cancel", gone=True)
        t.wait("the rule is in force")
        rules = [r for r in json.loads(self.h.sbx("policy", "ls", "--json"))["rules"] if r["scope"] == "all"]
        self.assertEqual([r["rule"] for r in rules], ["brief.example.com/x,evil.example.net"])
        self.assertLess(abs(rules[0]["expires"] - before), 3)
        t.keys("Enter")
        t.wait("Edit a rule")
        t.keys("Tab", "C-u")
        t.type("other.example.com")
        t.keys("Down", "Down", "Right", "Down")
        t.type("never kept")
        t.keys("Escape")  # leaves without change, whatever was edited
        t.wait("Edit a rule", gone=True)
        self.assertEqual([r for r in json.loads(self.h.sbx("policy", "ls", "--json"))["rules"] if r["scope"] == "all"], rules)
        self.h.sbx("policy", "rm", "-g", rules[0]["id"])
        self.h.sbx("policy", "set-default", "locked-down")
        t.keys("Escape", "R")
        t.wait("Posture: locked-down")
        t.keys("p")
        t.wait("‹ locked-down ›")  # what is in force, not what comes first
        t.keys("Escape")
        self.h.sbx("policy", "set-default", "balanced")


class Faked(unittest.TestCase):
    """With a sandbox that the test plays."""

    def test_a_killed_command_is_said(self):
        """And an image's build ends with it."""
        h = Home()
        self.addCleanup(h.close)
        (h.dir / "data/sbx/images").unlink()
        (h.dir / "bin").mkdir()
        fake = h.dir / "bin/mmdebstrap"
        fake.write_text(f"#!/bin/sh\ntrap '' TERM HUP PIPE\necho $PPID $$ >{h.dir}/ids.new\nmv {h.dir}/ids.new {h.dir}/ids\n"
                        "while :; do sleep 1; done\n")
        fake.chmod(0o755)
        with Terminal({**h.env, "PATH": f"{h.dir}/bin:" + os.environ["PATH"]}, cwd=h.ws, cols=120, rows=30) as t:
            t.wait("Welcome")
            t.keys("c")
            t.wait("New sandbox")
            t.click("Name")
            t.type("typed-once")
            parent = lambda pid: int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])

            def begin_and_kill(meanwhile):
                (h.dir / "ids").unlink(missing_ok=True)
                t.keys("C-s")
                self.assertTrue(wait_for((h.dir / "ids").exists, 60))
                command, build = map(int, (h.dir / "ids").read_text().split())
                while parent(command) != t.pid():
                    command = parent(command)
                t.wait("base image")
                t.wait("New sandbox", gone=True)  # nobody is held up by what takes long
                meanwhile()
                os.kill(command, signal.SIGKILL)
                t.wait(r"ended by a signal \(Killed\)")
                wait_for(lambda: not alive(build), 20)

            begin_and_kill(lambda: None)
            t.wait("Name +typed-once")  # nobody does anything else: it is there again

            def type_something():
                t.keys("?")
                t.wait("In every list")
            begin_and_kill(type_something)
            t.wait(r"\(c shows the form again\)")
            self.assertFalse(t.has("New sandbox"))  # but not below the fingers of somebody who does
            t.keys("Escape")
            t.wait("In every list", gone=True)
            t.keys("c")
            t.wait("Name +typed-once")
            t.wait(r"ended by a signal \(Killed\)")
            t.keys("Escape")
            t.wait("New sandbox", gone=True)
            t.keys("c")
            t.wait("New sandbox")
            self.assertFalse(t.has("typed-once"))

    def test_what_a_session_wanted_ends_with_it(self):
        h = Home()
        self.addCleanup(h.close)
        box = FakeBox(h, "ape")
        self.addCleanup(box.close)
        box.screens = {1: "agent@ape:~$", 2: "Shall I go on?"}
        box.sessions = [box.session(2, bell=True), box.session(1, True)]
        with Terminal(h.env, cwd=h.ws, cols=120, rows=30) as t:
            t.wait("1 needs you")
            t.wait("Shall I go on")
            box.blocked = 1234
            box.changed()
            t.wait("⊘ 1234 blocked")
            for columns in range(75, 59, -3):  # the clock is covered by nothing
                t.resize(columns, 16)
                t.wait(r"^ ▣ sbx  1 sandbox  ● 1 running   ◆ 1 needs you   (⊘ 1234( blocked)?)? *\d\d:\d\d\n")
            t.resize(120, 30)
            box.sessions = [box.session(2, signal=15), box.session(1, True)]
            box.changed()
            t.wait("needs you", gone=True)  # although the agent beside it is quiet

    def test_what_is_typed_reaches_the_session_that_it_is_meant_for(self):
        h = Home()
        self.addCleanup(h.close)
        ape, bee = (FakeBox(h, n) for n in ("ape", "bee"))
        for box in (ape, bee):
            self.addCleanup(box.close)
            box.screens = {n: f"screen {n} of {box.name}" for n in range(1, 13)}
        ape.screens[2] += "\033[?2004h\033[?1h"
        ape.sessions = [ape.session(n, n == 1) for n in range(1, 13)]
        bee.sessions = [bee.session(1, True)]
        t = Terminal(h.env, cwd=h.ws, cols=100, rows=30)
        self.addCleanup(t.close)
        t.wait("bee +running")
        t.click("ape")
        t.wait(r"screen 1 of ape")
        t.keys("Enter")
        t.wait(r"\[1 bash\]")
        # Before its screen has come, and in the form that it asks for.
        ape.shows.clear()
        t.keys("C-]", "2")
        t.type("early\033[A\033[200~pasted\033[201~.")
        t.read_all()
        ape.shows.set()
        t.wait("screen 2 of ape")
        self.assertTrue(wait_for(lambda: ape.typed.get(2, "").endswith(".")), ape.typed)
        self.assertEqual(ape.typed[2], "early\033OA\033[200~pasted\033[201~.")
        # The tab that is shown can be read, however many there are.
        t.keys("C-]", "p", "C-]", "p")
        t.wait(r"ape  …  .*\[12 bash\]")
        # Not into the one that takes its place: the words are for the one that ended.  A slow machine may well type too late.
        ape.typed.clear()
        for n in range(12, 3, -1):
            ape.end_session(n)
            t.wait(rf"\[1 bash\]|ape, session {n}: the session ended")
            t.type("lost")
            t.wait(r"\[1 bash\]")
            if not within(1, lambda: ape.typed.get(1)):
                break
            t.keys("C-]", "p")
            t.wait(rf"\[{n - 1} bash\]")
            ape.typed.clear()
        self.assertEqual(ape.typed, {})
        # One that was stopped and started elsewhere has another session of that number.
        ape.sessions = []
        ape.close()
        t.wait(r"the sandbox ended; Enter starts the agent again")
        ape.screens[1] = "once more"
        ape.sessions = [ape.session(1, True)]
        ape.start()
        t.wait("once more")
        # Nor into another sandbox where theirs is gone, nor are they keys of the dashboard.
        ape.close()
        h.sbx("rm", "--force", "ape")
        t.wait("removed or renamed; Esc leaves")
        time.sleep(0.8)
        t.type("qcrs")
        t.wait("1 sandbox ")
        self.assertEqual((bee.typed, t.get("pane_dead")), ({}, "0"))
        self.assertFalse(t.has("New sandbox|Remove"))
        t.keys("Escape")
        t.wait("Enter attach")
        t.wait("screen 1 of bee")
        t.keys("Enter")
        t.type("mine")
        self.assertTrue(wait_for(lambda: bee.typed.get(1) == "mine"), bee.typed)

    def test_a_form_keeps_what_cannot_be_done_and_outlives_its_sandbox(self):
        h = Home()
        self.addCleanup(h.close)
        box = FakeBox(h, "ape")
        self.addCleanup(box.close)
        t = Terminal(h.env, cwd=h.ws)
        self.addCleanup(t.close)
        t.wait("ape +running")
        t.keys("y")
        t.wait("Copy files")
        t.keys("Down")
        t.type("/nowhere/at/all")
        t.keys("Enter", "Enter")
        t.wait("/nowhere/at/all: No such file")
        t.wait("Path here +/nowhere/at/all ")
        t.click("Cancel")
        t.wait("Copy files", gone=True)
        box.close()
        t.wait("ape +stopped")
        t.keys("E")
        t.wait("Rename")
        t.type("-two")
        t.wait("Name +ape-two")
        h.sbx("rm", "--force", "ape")
        t.wait(" 0 sandboxes")
        t.wait("Name +ape-two")
        t.keys("Enter")
        t.wait("there is no sandbox named ape")

    def test_an_installation_has_a_card_that_lets_nobody_in(self):
        h = Home()
        self.addCleanup(h.close)
        box = FakeBox(h, "install-claude-1")
        self.addCleanup(box.close)
        path = box.dir / "sandbox.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "agent": "claude", "installs": "agent-claude-0"}))
        with Terminal(h.env, cwd=h.ws, cols=120, rows=30) as t:
            t.wait(r"install-claude-1 +installing")
            t.wait("once, for all its sandboxes")
            t.keys("x")  # what is made here would be in all of them
            t.wait("claude is installed in it, and then it goes; r stops that")
            t.keys("r")
            t.wait(r"Stop the installation of claude\?")
            t.keys("Escape")
            t.wait("Stop the installation", gone=True)
            t.keys("i")
            t.wait(r"About install-claude-1[\s\S]*Agent +claude\b")


class Machine(unittest.TestCase):
    """With one running sandbox."""

    @classmethod
    def setUpClass(cls):
        cls.h = Home()

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def setUp(self):
        # The first test makes the sandbox that the others share; each of them can run alone as well.
        if not hasattr(type(self), "name") and "test_1" not in self.id():
            self.h.sbx("run", "--detach", "shell", str(self.h.ws), timeout=600)
            type(self).name = next(iter(self.h.ls()))

    def terminal(self, **more):
        t = Terminal(self.h.env, cwd=self.h.ws, **more)
        self.addCleanup(t.close)
        return t

    def state(self, name):
        return self.h.ls().get(name, {}).get("state")

    def test_1_welcome_to_the_first_agent_in_three_keys(self):
        t = self.terminal(cols=140, rows=40)
        line = next(x for x in t.wait(r"\d  shell").split("\n") if re.search(r"\d  shell", x))
        t.keys(re.search(r"(\d)  shell", line).group(1), "Enter")
        t.wait(r"shell-ws", 60)
        self.assertTrue(wait_for(lambda: "running" in [s["state"] for s in self.h.ls().values()], 60))
        t.wait(r"[$#] ", 30)
        t.type("echo $((6*7))-from-inside\n")
        t.wait("42-from-inside", 20)
        t.keys("C-]", "d")
        t.wait("Sandboxes")
        type(self).name = next(iter(self.h.ls()))

    def test_2_the_card_tells_the_truth(self):
        t = self.terminal(cols=160, rows=40)
        t.wait(self.name)
        t.wait("running")
        t.wait(r"\d+% \d+ MiB", 15)
        text = t.text()
        self.assertIn("1 running", text)
        self.assertIn("shell", text)
        self.h.sbx("ports", self.name, "--publish", "3000")
        port = self.h.ls()[self.name]["publish"][0]["host"]
        self.h.sh(self.name, "curl -s -m 5 http://not-allowed.example.net/")
        t.wait(rf"⇄ {port} +⊘ \d+ blocked", 10)

    def test_3_who_waits_is_marked(self):
        t = self.terminal(cols=160, rows=40)
        t.wait("running")
        p = subprocess.Popen([SBX, "exec", "-d", "-t", self.name, "bash", "-c", "printf 'Proceed with the migration? \\a'; sleep 600"], env=self.h.env,
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        p.wait()
        t.wait("1 needs you", 20)
        t.wait("Proceed with the migration")  # what its screen says
        self.assertRegex(t.text(), "◆.*waiting")
        waits = [s for s in json.loads(self.h.sbx("session", "ls", "--json")) if s["waits"]]  # the same by command
        self.assertEqual([(s["sandbox"], s["why"]) for s in waits], [(self.name, "Proceed with the migration?")])
        self.assertIn("waits: Proceed with the migration?", self.h.sbx("session", "ls", self.name))
        self.assertEqual(self.h.sbx("session", "text", self.name, waits[0]["session"]), "Proceed with the migration?\n")
        number = self.h.sbx("exec", "-d", "-t", self.name, "bash", "-c", "seq 1 100; sleep 597").strip()
        self.assertTrue(wait_for(lambda: self.h.sbx("session", "text", self.name, number, "--scrollback", "1000").split() == [str(i) for i in range(1, 101)], 10))
        self.h.sbx("session", "end", self.name, number)
        self.assertTrue(wait_for(lambda: not [s for s in json.loads(self.h.sbx("session", "ls", "--json")) if str(s["session"]) == number and "signal" not in s], 10))
        self.assertEqual(self.h.run("session", "end", self.name, "999").returncode, 3)
        self.h.sh(self.name, "pkill sleep")
        t.wait("needs you", gone=True)
        # Its agent falls quiet at a question.
        t.keys("Enter")
        t.wait("then:")
        t.type("clear; read -p 'Overwrite it? [y/N] '\n")
        t.wait(r"│Overwrite it\? \[y/N\]")
        t.keys("C-]", "d")
        t.wait("1 needs you", 10)
        self.assertRegex(t.text(), r"◆.*waiting(.*\n)+?│▎ +Overwrite it\? \[y/N\]")
        t.keys("Enter")
        t.type("n\n")
        t.wait("needs you", gone=True)
        # A notification says itself what it is about.
        for words in (r"\033]9;The first is done\a", r"\033]777;notify;The second;waits\a", r"\033]99;i=1;The third asks\033\\\\"):
            go = self.h.ws / "go"
            t.type(f"until [ -e {go} ]; do sleep 0.1; done; printf '{words}'\n")
            t.keys("C-]", "d")
            t.wait("then:", gone=True)
            go.touch()
            t.wait(r"◆.*waiting(.*\n)+?│▎ +The (first is done|second: waits|third asks)")
            go.unlink()
            t.keys("Enter")
            t.wait("needs you", gone=True)

    def test_4_stop_and_start(self):
        t = self.terminal(cols=120, rows=30)
        t.wait("running|waiting")
        t.wait(r"\[\d+ bash\]|\[\d+ .*\]")
        t.keys("s")
        t.wait(r"bash[\s\S]*What runs in it ends|What runs in it ends[\s\S]*bash")  # something is at work: what would be lost is said
        t.keys("Escape")
        t.wait("What runs", gone=True)
        self.assertEqual(self.state(self.name), "running")
        t.keys("s")
        t.wait("What runs in it ends")
        time.sleep(0.5)
        t.keys("y")
        t.wait("stopped", 40)
        self.assertEqual(self.state(self.name), "stopped")
        self.h.sbx("config", "set", "limit.keep_free", "1048576")  # as if the disk were full
        self.addCleanup(self.h.sbx, "config", "unset", "limit.keep_free")
        t.keys("s")
        t.wait("‖.*paused", 40)
        t.wait(r"│▎ +paused, for the[\s\S]*▲ .*: paused, for the disk")  # in its card, and as a message
        self.h.sbx("config", "set", "limit.keep_free", "1")
        t.wait("running", 40)
        t.wait("‖", gone=True)
        self.assertEqual(self.state(self.name), "running")
        # How far a start is, as the dashboard hears it from what it starts.
        r = subprocess.run([SBX, "restart", self.name], env={**self.h.env, "SBX_PROGRESS": "1"}, stdin=subprocess.DEVNULL, capture_output=True, timeout=240)
        self.assertRegex(r.stderr, rb"(?m)^\x1e[0-9.-]+ \S")
        t.wait("running", 40)

    def test_5_shell_and_a_command(self):
        for session in json.loads(self.h.sbx("session", "ls", "--json")):  # else what is typed after the end is another's
            self.h.run("session", "end", self.name, session["session"])
        t = self.terminal(cols=120, rows=30)
        t.wait("running")
        t.keys("x")
        t.wait(r"[$#] ", 20)
        t.type("echo $((5*5))-shell on $COLORFGBG; stty -echo -icanon min 1 time 0; printf '\\033]11;?\\a'; head -c 24 | od -An -c; stty sane\n")
        t.wait("25-shell on 15;0", 20)
        t.wait(r"r +g +b +: +0 +d")  # the theme is dark, and who asks is told so
        t.type("exit\n")
        t.wait("the session ended; Enter starts")
        t.type("qRc")  # words that were meant for it are no commands
        time.sleep(1)
        t.type("q")
        t.wait("this session ended")
        self.assertEqual(t.get("pane_dead"), "0")
        self.assertFalse(t.has("Posture|New sandbox"))
        t.keys("Enter")
        t.wait("the session ended", gone=True)
        t.wait(r"[$#] ", 20)
        t.keys("C-]", "d")
        t.wait("Sandboxes")
        t.keys(":")
        t.type("ls")
        t.keys("Enter")
        t.wait("NAME", 15)
        t.keys("Escape")

    def test_5_tabs_are_clicked(self):
        for n in ("sleep 661", "sleep 662"):
            self.h.sbx("exec", "-d", "-t", self.name, "bash", "-c", f"echo tab of $((100 + {n[-2:]})); {n}")
        t = self.terminal(cols=150, rows=30)
        t.wait(r"running|waiting")
        t.wait(r"(\d+ bash.*){2}", 20)
        numbers = re.findall(r"(\d+) bash", t.settle())
        for number, says in ((numbers[-1], "tab of 162"), (numbers[-2], "tab of 161"), (numbers[-1], "tab of 162")):
            t.click(f"{number} bash")
            t.wait(says)
            t.wait(re.escape(f"[{number} bash"))

    def test_5_one_command_in_all_that_are_marked(self):
        t = self.terminal(cols=150, rows=30)
        t.wait("running|waiting")
        t.keys("*")
        t.wait("1 marked")
        t.keys("e")
        t.wait("Run a command in")
        t.keys("Enter", "Enter")
        t.wait("Run a command in")
        t.keys("C-u", "Up", "Up", "Up")
        t.keys("C-s")
        t.wait("which command")
        t.keys("Escape")
        t.wait("Run a command", gone=True)
        t.keys("E")
        t.wait("stop it to rename it")

    def test_6_filter_and_marks(self):
        repo = self.h.dir / "repo"
        (repo / "sub").mkdir(parents=True)
        for words in (["init", "-q", "-b", "trunk"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"]):
            subprocess.run(["git", *words], cwd=repo, env=self.h.env, check=True)
        self.h.sbx("create", "--name", "zebra", "--branch", "my-feature", "shell", ".", cwd=repo)
        self.h.sbx("create", "--name", "yak", "shell", str(repo / "sub"))
        self.h.sbx("create", "--name", "an-early-one", "shell", str(self.h.ws))
        self.addCleanup(self.h.run, "rm", "--force", "an-early-one")
        self.h.sbx("create", "--name", "x" * 40, "shell", str(self.h.ws))
        small = self.terminal(cols=80, rows=24)
        small.wait("xxx")
        small.click("xxx")
        small.wait("It is stopped.")
        small.wait("Network: xxx.*follow")
        self.h.sbx("rm", "--force", "x" * 40)
        t = self.terminal(cols=120, rows=40)
        t.wait("zebra")
        t.wait("yak")
        self.assertRegex(t.text(), r"zebra.*\n.*shell ⎇ my-feature .*never ran.*\n.*/repo ")  # its own branch, and whose it is
        self.assertRegex(t.text(), r"yak.*\n.*shell ⎇ trunk ")  # that of the repository around its folder
        order = [f"[●◆] {re.escape(self.name)} ", "○ an-early-one "]
        t.wait(r"(?s)" + ".*".join(order))  # what runs comes before what does not
        t.keys("o")
        t.wait(r"(?s)by name.*" + ".*".join(order[::-1]))
        t.keys("o", "o", "o", "o")
        t.wait(r"(?s)" + ".*".join(order))
        t.click("○ an-early-one")
        t.keys("E")
        t.wait("Rename")
        t.keys("C-u")
        t.type("the-same")
        t.keys("C-s")
        t.wait(r"○ the-same .*\n│▎")  # the cursor stays with it
        self.assertIn("the-same", self.h.ls())
        t.keys("r")
        t.wait("Remove the-same")
        time.sleep(0.5)
        t.keys("y")
        t.wait("○ the-same", gone=True)
        t.wait(r"○ yak .*\n│▎")  # and goes to what stood below it
        t.keys("/")
        t.type("zeb")
        t.wait("yak", gone=True)
        t.wait("zebra")
        t.type("none such")
        t.wait("no sandbox matches")
        edge = next(line for line in t.ansi().split("\n") if "follow" in line)
        self.assertRegex(edge, r"─+\x1b\[[0-9;]*m +[0-9]+ +▼ follow \x1b")  # words stand out from a frame that fades
        t.keys("Enter", "r")  # what is out of sight is out of reach
        t.wait("the filter hides every sandbox")
        self.assertFalse(t.has("Remove"))
        t.keys("Escape")
        t.wait("yak")
        t.click("○ zebra")
        t.keys("Space")
        t.wait("1 marked")
        t.click("○ yak", button=2)
        t.wait("2 marked")
        t.keys("/")
        t.type("yak")
        t.keys("Enter")
        t.wait("zebra", gone=True)
        t.keys("r")  # a mark that the filter hides is out of reach
        t.wait("Remove yak")
        t.keys("Escape", "Escape")
        t.wait("zebra")
        t.click("○ zebra")
        t.keys("Space")
        t.wait("1 marked")
        t.click("○ yak", button=2)
        t.wait("2 marked")
        t.keys("r")
        t.wait("Remove 2 sandboxes")
        t.keys("Enter")  # Cancel
        t.wait("Remove 2", gone=True)
        self.assertIn("zebra", self.h.ls())
        (self.h.ws / "keep").write_text("mine")
        t.keys("r")
        t.wait("Remove 2 sandboxes")
        t.keys("Right", pause=0.5)
        t.keys("Enter")
        t.wait("zebra", 30, gone=True)
        self.assertTrue(wait_for(lambda: not {"zebra", "yak"} & set(self.h.ls()), 20))
        self.assertIn(self.name, self.h.ls())
        self.assertEqual((self.h.ws / "keep").read_text(), "mine")

    def test_6_words_typed_by_mistake_remove_nothing(self):
        t = self.terminal(cols=120, rows=40)
        t.wait(self.name)
        t.type("retry")
        t.wait("Remove " + self.name)
        t.keys("Escape")
        t.wait("Remove " + self.name, gone=True)
        self.assertIn(self.name, self.h.ls())

    def test_6_a_copy_of_a_sandbox_by_way_of_a_template(self):
        self.h.sbx("create", "--name", "origin", "--memory", "512", "shell", str(self.h.ws))
        self.addCleanup(self.h.run, "rm", "--force", "twin", "origin")
        t = self.terminal(cols=120, rows=40)
        t.wait("origin")
        t.click("○ origin")
        t.keys("Y")
        t.wait("Copy a sandbox")
        t.wait("Name +origin-copy")
        t.keys("C-u")
        t.type("origin")
        t.wait("already a sandbox of that name")
        t.keys("C-u")
        t.type("twin")
        t.keys("C-s")
        t.wait("twin is a copy of origin", 60)
        twin, origin = self.h.ls()["twin"], self.h.ls()["origin"]
        self.assertEqual((twin["agent"], twin["folders"]), (origin["agent"], origin["folders"]))
        self.h.sbx("rm", "--force", "twin")  # it was as empty as the other, which never ran
        self.h.sbx("start", "origin")
        self.h.sh("origin", "echo made here > /home/agent/mark; sync")
        self.h.sbx("stop", "origin")
        t.wait("twin", gone=True)
        t.wait("○ origin")
        t.click("○ origin")
        t.keys("Y")
        t.wait("Name +origin-copy")
        t.keys("C-u")
        t.type("twin")
        t.keys("C-s")
        t.wait("○ twin", 90)
        self.assertIn("twin:disk", self.h.sbx("template", "ls"))
        self.h.sbx("start", "twin")
        self.assertEqual(self.h.sh("twin", "cat /home/agent/mark").stdout, b"made here\n")
        t.keys("c")
        t.wait("Starts from")
        t.keys("Up", "Up", "Up", "Right")  # past the buttons
        t.wait("twin:disk")
        t.keys("Escape")
        self.h.sbx("rm", "--force", "twin", "origin")
        self.h.sbx("template", "rm", "twin:disk")

    def test_6_tab_goes_to_the_network_and_back(self):
        t = self.terminal(cols=120, rows=40)
        t.wait("Enter attach")
        t.keys("Tab")
        t.wait("a allow")
        t.keys("Tab")
        t.wait("Enter attach")
        t.click("Network:")
        t.wait("a allow")
        t.click("Sandboxes")
        t.wait("Enter attach")
        t.keys("z")
        t.wait("Network:", gone=True)
        t.keys("z")
        t.wait("Network:")

    def test_7_what_others_do_is_seen_at_once(self):
        with Terminal(self.h.env, cols=80, rows=24, cwd=self.h.ws) as t, Terminal(self.h.env, cols=200, rows=60, cwd=self.h.ws) as other:
            t.wait(self.name)
            other.wait(self.name)
            self.h.sbx("create", "--name", "news", "shell", str(self.h.ws))
            t.wait("news", 5)
            other.wait("news", 5)
            self.h.sbx("rm", "--force", "news")
            t.wait("news", 5, gone=True)
            other.wait("news", 5, gone=True)

    def test_8_the_sandbox_lives_on_without_a_dashboard(self):
        t = self.terminal()
        t.wait("running")
        os.kill(t.pid(), signal.SIGKILL)
        time.sleep(0.5)
        self.assertEqual(self.state(self.name), "running")
        again = self.terminal()
        again.wait("running")
        r = self.h.sh(self.name, "echo still here")
        self.assertEqual(r.stdout, b"still here\n")

    def test_9_hostile_titles_and_bells(self):
        script = r"printf '\033]0;\033[2J\033]52;c;QUJD\007evil\007\a'; printf '\033]9;\033[31mhello\007'; sleep 600"
        t = self.terminal(cols=160, rows=40)
        t.wait(self.name)
        self.h.run("exec", "-d", "-t", self.name, "bash", "-c", script)
        t.wait("needs you", 45) # a bell is heard every ten seconds at most
        text = t.settle()
        self.assertIn("Sandboxes", text)
        self.assertNotIn("\x1b[2J", text)
        self.assertNotEqual(t.tmux("show-buffer", check=False), "ABC")


if __name__ == "__main__":
    unittest.main(verbosity=2)

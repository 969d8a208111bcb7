"""A person in a window of tmux: leaving and coming back, windows that change, job control, full screens, pastes."""

import os
import shlex
import shutil
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")

PATIENCE = 20.0
PROMPT = "ready>"
BASH = ["bash", "--norc", "--noprofile"]
SHELL = ["env", f"PS1={PROMPT} ", "TERM=screen", *BASH]
LEAVE = ("C-p", "C-q")


class Window:
    """One window of a tmux server of its own, in which a plain shell runs."""

    def __init__(self, directory, engine):
        self._tmux = ["tmux", "-f", "/dev/null", "-S", f"{directory}/tmux"]
        self._engine = engine
        environment = {**os.environ, "TERM": "screen", "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("TMUX", None)
        self._environment = environment
        self.tmux("new-session", "-d", "-s", "main", "-x", "80", "-y", "24", "env", "PS1=host> ", *BASH)
        self.tmux("set-option", "-g", "status", "off")
        self.tmux("resize-window", "-t", "main", "-x", "80", "-y", "24")
        self.expect("host>")

    def tmux(self, *words, **more):
        return subprocess.run(
            [*self._tmux, *words], check=True, capture_output=True, text=True, env=self._environment, **more
        ).stdout

    def close(self):
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def type(self, text):
        """Type a line."""
        self.tmux("send-keys", "-t", "main", "-l", text)
        self.tmux("send-keys", "-t", "main", "Enter")

    def press(self, *keys):
        self.tmux("send-keys", "-t", "main", *keys)

    def pyrtc(self, *words):
        self.type(shlex.join([sys.executable, "-m", "pyrtc.cli.main", "--root", str(self._engine.store.path), *words]))

    def paste(self, text):
        self.tmux("load-buffer", "-", input=text)
        self.tmux("paste-buffer", "-t", "main")

    def resize(self, rows, columns):
        self.tmux("resize-window", "-t", "main", "-x", str(columns), "-y", str(rows))

    def clear(self):
        """An empty screen, so that what is seen then was drawn since."""
        self.type("clear")
        self.wait(lambda screen: screen.split() == ["host>"])

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", "main")

    def wait(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition(screen := self.screen()):
            assert time.monotonic() < deadline, f"the screen is:\n{screen}"
            time.sleep(0.05)
        return screen

    def expect(self, text):
        return self.wait(lambda screen: text in screen)

    def expect_at_enter(self, text):
        """A shell at its prompt executes traps when it is given a line."""
        self.wait(lambda screen: text in screen or self.press("Enter"))

    def at_host(self):
        """Wait for the host's prompt as the last thing on the screen."""
        self.wait(lambda screen: screen.rstrip().endswith("host>"))

    def at_prompt(self):
        """Wait for the prompt of the shell in the container."""
        self.wait(lambda screen: screen.rstrip().endswith(f"\n{PROMPT}") or screen.rstrip() == PROMPT)


@pytest.fixture
def window(tmp_path, engine):
    opened = Window(tmp_path, engine)
    yield opened
    opened.close()


@pytest.fixture
def container(engine):
    """A shell that waits at its prompt."""
    made = engine.containers.run("host", SHELL, tty=True, interactive=True, name="shell")
    yield made
    made.remove(force=True)


def test_who_comes_back_to_a_window_of_the_same_size_sees_the_prompt(window, container):
    for _ in range(3):
        window.clear()
        window.pyrtc("attach", "shell")
        window.at_prompt()
        window.type("echo $((6 * 7))-$((80 + 1))")
        window.expect("42-81")
        window.press(*LEAVE)
        window.at_host()
    assert container.status == "running"
    window.type("stty -a | grep -o ' icanon'; echo sane")
    window.expect(" icanon\nsane")


def test_a_window_that_changes(window, container):
    window.pyrtc("attach", "shell")
    window.at_prompt()
    window.type("stty size; trap 'echo changed: $(stty size)' WINCH")
    window.expect("24 80")
    window.resize(30, 100)
    window.expect_at_enter("changed: 30 100")
    window.press(*LEAVE)
    window.at_host()
    window.resize(20, 60)
    window.pyrtc("attach", "shell")
    window.expect_at_enter("changed: 20 60")
    window.type("stty size")
    window.expect("\n20 60")


def test_keys_that_are_signals(window, container):
    window.pyrtc("attach", "shell")
    window.at_prompt()
    window.type("sleep 1000")
    window.expect("sleep 1000")
    time.sleep(0.2)
    window.press("C-z")
    window.expect("Stopped")
    window.type("jobs; bg; jobs")
    window.expect("Running")
    window.type("fg")
    time.sleep(0.2)
    window.press("C-c")
    window.type("echo code:$?")
    window.expect("code:130")
    window.press("C-d")
    window.at_host()
    window.type("echo ended:$?")
    window.expect("ended:0")
    assert container.wait(timeout=PATIENCE).returncode == 0


@pytest.mark.skipif(shutil.which("less") is None, reason="needs less")
def test_a_full_screen(window, container):
    window.pyrtc("attach", "shell")
    window.at_prompt()
    window.type("seq 1 1000 | less")
    window.wait(lambda screen: screen.splitlines()[:23] == [str(number) for number in range(1, 24)])
    window.press("Space")
    window.wait(lambda screen: screen.splitlines()[0] == "24")
    window.resize(30, 80)
    window.wait(lambda screen: screen.splitlines()[:29] == [str(number) for number in range(24, 53)])
    window.press(*LEAVE)
    window.at_host()
    window.clear()
    window.pyrtc("attach", "shell")
    window.wait(lambda screen: screen.splitlines()[:29] == [str(number) for number in range(24, 53)])
    window.press("q")
    window.at_prompt()


def test_a_paste_arrives_whole(window, container):
    lines = "".join(f"{number:06d} what is pasted into a window comes as fast as it can\n" for number in range(2000))
    assert len(lines) > 100_000
    window.pyrtc("attach", "shell")
    window.at_prompt()
    window.type("stty -echo; cat > /tmp/pasted")
    time.sleep(0.3)
    window.paste(lines)
    deadline = time.monotonic() + PATIENCE
    while (found := container.files.read("/tmp/pasted")) != lines.encode() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == lines.encode()
    window.press("C-d")
    window.type("echo typed again")
    window.expect("typed again")


def test_another_command_beside_it(window, container):
    window.pyrtc("exec", "-it", "shell", *SHELL)
    window.at_prompt()
    window.type("stty size; tty; ps -o comm= -p 1")
    assert "\n24 80\n" in window.expect("\n/dev/pts/1\nbash\n")
    window.resize(28, 90)
    window.type("stty size")
    window.expect("28 90")
    window.type("sleep 1000")
    time.sleep(0.3)
    window.press("C-z")
    window.expect("Stopped")
    window.type("fg")
    time.sleep(0.3)
    window.press("C-c")
    window.expect("^C")
    window.type("exit 5")
    window.at_host()
    window.type("echo code:$?")
    window.expect("code:5")
    assert container.status == "running"


def test_a_shell_in_the_foreground(window):
    window.pyrtc("run", "-it", "--rm", "host", *SHELL)
    window.at_prompt()
    window.resize(26, 70)
    window.type("stty size; sleep 1000")
    window.expect("26 70")
    time.sleep(0.2)
    window.press("C-c")
    window.expect("^C")
    window.type("seq 1 1000 | less")
    window.wait(lambda screen: screen.splitlines()[:25] == [str(number) for number in range(1, 26)])
    window.press("q")
    window.type("exit 6")
    window.at_host()
    window.type("echo code:$?")
    window.expect("code:6")

"""Containers started, stopped and removed at random, while commands and monitors are killed with -9.

Never: a list that says what is not so, a container that cannot be removed, anything that is left after that.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from pyrtc.engine import Engine
from pyrtc.errors import PyrtcError

__all__ = ["Storm", "Tally"]

PROGRAM = "import sys; sys.path[:] = {path!r}; sys.argv[0] = 'pyrtc'; from pyrtc.cli.main import program; program()"
PATIENCE = 60  # seconds for one command that is not killed
KILLED = 0.35  # of all commands
COMMANDS = (
    ["sleep", "1000"],
    ["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"],
    ["true"],
    ["sh", "-c", "echo x; sleep 0.1; exit 7"],
)
OPTIONS = ([], ["--rm"], ["--restart", "on-failure:2"], ["-t"], ["-i"])


@dataclass
class Tally:
    """What happened, and what went wrong."""

    commands: int = 0
    killed: int = 0
    monitors_killed: int = 0
    failures: list[str] = field(default_factory=list)


class Storm:
    """A store with one image, and several workers with dice."""

    def __init__(self, root: Path, seed: int, workers: int = 3) -> None:
        self.root = root
        self.image = "host"
        self.seed = seed
        self.workers = workers
        self.tally = Tally()
        self.names: list[str] = []
        self.engine = Engine(root)
        self._lock = threading.Lock()

    def run(self, seconds: float) -> Tally:
        """Let it blow, then look at what is there, remove it, and look again."""
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self._work, args=(number, until)) for number in range(self.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(1)  # restart policies come to their end
        self._hold_list_against_processes()
        self._remove_all()
        self.engine.close()
        return self.tally

    def _work(self, number: int, until: float) -> None:
        dice = random.Random(self.seed * 1000 + number)
        count = 0
        while time.monotonic() < until:
            count += 1
            patience = dice.uniform(0.01, 0.25) if dice.random() < KILLED else None
            with self._lock:
                known = list(self.names)
            if not known or dice.random() < 0.35:
                name = f"storm-{number}-{count}"
                with self._lock:
                    self.names.append(name)
                words = ["run", "-d", "--name", name, *dice.choice(OPTIONS), self.image, *dice.choice(COMMANDS)]
                self._command(words, patience)
            elif dice.random() < 0.1:
                self._kill_monitor(dice.choice(known))
            else:
                words = dice.choice(
                    (
                        ["stop", "-t", "1"], ["kill"], ["rm", "-f"], ["restart", "-t", "0"], ["start"], ["pause"],
                        ["unpause"], ["logs"],
                    )
                )  # fmt: skip
                self._command([*words, dice.choice(known)], patience)

    def _command(self, words: list[str], patience: float | None = None) -> tuple[int, str]:
        program = [sys.executable, "-c", PROGRAM.format(path=sys.path), "--root", str(self.root), *words]
        process = subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        killed = False
        if patience is not None:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                killed = True
                process.kill()
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self._fail(f"{words} does not end")
            return -1, ""
        with self._lock:
            self.tally.commands += 1
            self.tally.killed += killed
        if "Traceback" in errors or "PYRTC_TRACEBACK" in errors:
            self._fail(f"{words}: {errors[-500:]}")
        return process.returncode, output

    def _kill_monitor(self, name: str) -> None:
        with contextlib.suppress(PyrtcError, OSError):
            record = self.engine.containers.get(name).record
            if Path(f"/proc/{record.monitor_pid}/comm").read_text().startswith("pyrtc-monitor"):
                os.kill(record.monitor_pid, signal.SIGKILL)
                with self._lock:
                    self.tally.monitors_killed += 1

    def _hold_list_against_processes(self) -> None:
        """A container may end between the two looks at it; a lie stays."""
        lies: list[str] = []
        for _ in range(10):
            code, output = self._command(["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}}"])
            if code:
                self._fail("ps failed")
            lies = [line for line in output.splitlines() if not self._is_true(*line.split())]
            if not lies:
                return
            time.sleep(0.5)
        self._fail(f"the list says what is not so: {lies}")

    def _is_true(self, container: str, state: str) -> bool:
        try:
            record = self.engine.containers.get(container).record
        except PyrtcError:  # one of --rm has ended since
            return False
        return (state in {"running", "paused"}) == _runs(record.pid)

    def _remove_all(self) -> None:
        _code, output = self._command(["ps", "-aq", "--no-trunc"])
        for container in output.split():
            code, _output = self._command(["rm", "-f", container])
            if code:
                self._fail(f"container {container} cannot be removed")
        for part in ("containers", "tmp"):
            if left := os.listdir(self.root / part):
                self._fail(f"left in {part}: {left}")
        code, output = self._command(["system", "check"])
        if code:
            self._fail(f"system check: {output}")

    def _fail(self, text: str) -> None:
        with self._lock:
            self.tally.failures.append(text)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False

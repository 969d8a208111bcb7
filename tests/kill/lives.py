"""Containers started, stopped and removed at random, while commands, monitors and processes 1 are killed with -9.

Never: a list that says what is not so, a container that cannot be removed, anything that is left after that.
"""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from pyrtc.engine import Engine
from pyrtc.errors import PyrtcError
from pyrtc.options import RestartPolicy, RunOptions
from pyrtc.states import is_alive
from pyrtc.watched import run

__all__ = ["Storm", "Tally"]

PROGRAM = "import sys; sys.path[:] = {path!r}; sys.argv[0] = 'pyrtc'; from pyrtc.cli.main import program; program()"
PATIENCE = 60  # seconds for one command that is not killed
KILLED = 0.35  # of all commands
TRUE_WITHIN = 10  # looks at what is listed, half a second apart; a lie stays
OWN_DESCRIPTORS = 12  # of an engine in use: its database, helper, warden, directories
COMMANDS = (
    ["sleep", "1000"],
    ["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"],
    ["true"],
    ["sh", "-c", "echo x; sleep 0.1; exit 7"],
)
OPTIONS = (
    [], ["--rm"], ["--restart", "on-failure:2"], ["-t"], ["-i"], ["--health-cmd", "true", "--health-interval", "1s"],
)  # fmt: skip


@dataclass
class Tally:
    """What happened, and what went wrong."""

    commands: int = 0
    killed: int = 0
    monitors_killed: int = 0
    processes_killed: int = 0
    failures: list[str] = field(default_factory=list)


class Storm:
    """A store with one image, and several workers with dice.

    Parameters
    ----------
    containers: how many are started before the storm begins, beside those that it starts itself.
    """

    def __init__(self, root: Path, seed: int, workers: int = 3, containers: int = 0) -> None:
        self.root = root
        self.image = "host"
        self.seed = seed
        self.workers = workers
        self.containers = containers
        self.ids: set[str] = set()  # of all that were seen
        self.monitors: set[tuple[int, int]] = set()
        self.tally = Tally()
        self.names: list[str] = []
        self.engine = Engine(root)
        self._lock = threading.Lock()

    def run(self, seconds: float) -> Tally:
        """Let it blow, then look at what is there, remove it, and look again."""
        mounts, descriptors = _mounts(), len(os.listdir("/proc/self/fd"))
        try:
            self._blow(seconds)
        finally:
            self._remove_all()
        self._look_for_leaks(mounts, descriptors)
        self.engine.close()
        return self.tally

    def _blow(self, seconds: float) -> None:
        self._begin()
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self._work, args=(number, until)) for number in range(self.workers)]
        for thread in threads:
            thread.start()
        while time.monotonic() < until:  # also in the middle of it
            time.sleep(min(10.0, max(0.0, until - time.monotonic())))
            self._hold_list_against_processes()
        for thread in threads:
            thread.join()
        time.sleep(1)  # restart policies come to their end
        self._hold_list_against_processes()

    def _begin(self) -> None:
        dice = random.Random(self.seed)
        for number in range(self.containers):
            remove, restart = dice.choice(
                ((True, "no"), (False, "always"), (False, "no"), (False, "no"), (False, "no"))
            )
            options = RunOptions(
                command=tuple(COMMANDS[0]), name=f"first-{number}", remove=remove, restart=RestartPolicy(restart)
            )
            self.ids.add(run(self.engine, self.image, options).id)
            self.names.append(f"first-{number}")

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
            elif dice.random() < 0.15:
                self._kill_outside(dice.choice(known), dice.choice(("monitor", "process", "both")))
            elif dice.random() < 0.05:
                self._kill_others(dice)
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

    def _kill_outside(self, name: str, what: str) -> None:
        with contextlib.suppress(PyrtcError, OSError):
            record = self.engine.containers.get(name).record
            if what != "process" and Path(f"/proc/{record.monitor_pid}/comm").read_text().startswith("pyrtc-monitor"):
                os.kill(record.monitor_pid, signal.SIGKILL)
                with self._lock:
                    self.tally.monitors_killed += 1
            if what != "monitor" and is_alive(record):
                os.kill(record.pid, signal.SIGKILL)
                with self._lock:
                    self.tally.processes_killed += 1

    def _kill_others(self, dice: random.Random) -> None:
        """Kill one of the commands that monitors have become, or that other workers have begun."""
        found = [pid for pid in self._processes() if "monitor" not in _words(pid)]
        if found:
            with contextlib.suppress(OSError):
                os.kill(dice.choice(found), signal.SIGKILL)
                with self._lock:
                    self.tally.processes_killed += 1

    def _processes(self) -> list[int]:
        """Return the pids of everything that has this store in its arguments, but this process."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]
        return [pid for pid in pids if str(self.root) in _words(pid)]

    def _hold_list_against_processes(self) -> None:
        """A container may end, or be started, between the two looks at it; a lie stays."""
        lies: set[str] | None = None
        for _ in range(TRUE_WITHIN):
            code, output = self._command(["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}}"])
            if code:
                if code != -signal.SIGKILL:  # by another worker
                    self._fail(f"ps failed: {code}")
                continue
            lines = output.splitlines()
            self.ids.update(line.split()[0] for line in lines)
            found = {line for line in lines if not self._is_true(*line.split())}
            lies = found if lies is None else lies & found
            if not lies:
                return
            time.sleep(0.5)
        if lies:
            self._fail(f"the list says what is not so: {lies}")

    def _is_true(self, container: str, state: str) -> bool:
        try:
            record = self.engine.containers.get(container).record
        except PyrtcError:  # one of --rm has ended since
            return True
        self.monitors.add((record.monitor_pid, record.monitor_start))
        return (state in {"running", "paused"}) == _runs(record.pid, record.start_time)

    def _look_for_leaks(self, mounts: set[str], descriptors: int) -> None:
        """Nothing is left of any container, and nothing in this process that started a thousand of them."""
        deadline = time.monotonic() + 10
        while (left := self._left(mounts)) and time.monotonic() < deadline:
            time.sleep(0.2)
        for item in left:
            self._fail(f"left behind: {item}")
        opened = len(os.listdir("/proc/self/fd")) - descriptors
        if opened > OWN_DESCRIPTORS:
            self._fail(f"{opened} more open descriptors than at the beginning")

    def _left(self, mounts: set[str]) -> list[str]:
        left = [f"process {pid}: {_words(pid)}" for pid in self._processes()]
        left += [f"monitor {pid}" for pid, start_time in self.monitors if _runs(pid, start_time)]
        left += [f"mount {point}" for point in _mounts() - mounts if str(self.root) in point]
        for directory, folders, _files in os.walk("/sys/fs/cgroup"):
            left += [f"control group {directory}/{name}" for name in folders if any(id in name for id in self.ids)]
        with contextlib.closing(sqlite3.connect(self.root / "pyrtc.db")) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                named = "container_id" if "container_id" in columns else "id" if table == "containers" else None
                if named and (count := database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]):
                    left.append(f"{count} rows of {table}")
        return left

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


def _runs(pid: int, start_time: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in {"Z", "X"} and int(fields[19]) == start_time


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _mounts() -> set[str]:
    return set(Path("/proc/self/mountinfo").read_text().splitlines())

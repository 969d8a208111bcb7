"""Part 6, isolation parity: what separates the workload from the machine, asked by the workload itself.

But for its control groups, which a control group namespace hides from it.
"""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyrtc
from benchmarks.comparison.engines import Peer
from benchmarks.comparison.experiments import Results
from benchmarks.comparison.instances import Source
from benchmarks.launcher import Launcher
from benchmarks.peers import Runtime, bubblewrap_words
from pyrtc.engine import Engine

__all__ = ["FEATURES", "find_isolation", "judge", "lacks"]

# What is told, in the order of the table.
FEATURES = (
    "user namespace",
    "mount namespace",
    "pid namespace",
    "network namespace",
    "IPC namespace",
    "UTS namespace",
    "cgroup namespace",
    "own control group",
    "capabilities",
    "no new privileges",
    "system call filter",
    "kernel's secrets masked",
    "kernel's settings read-only",
)
_SPACES = {
    "user namespace": "user",
    "mount namespace": "mnt",
    "pid namespace": "pid",
    "network namespace": "net",
    "IPC namespace": "ipc",
    "UTS namespace": "uts",
    "cgroup namespace": "cgroup",
}


def find_isolation(
    results: Results, disk: Path, engine: Engine, source: Source, program: Path, peers: Sequence[Peer]
) -> None:
    """Ask the workload in every engine, and keep a table: engine -> feature -> what it has."""
    kept = results.document.get("facts", {}).get("isolation", {})
    if kept and all(peer.short in kept for peer in peers):
        return
    host = _ask(lambda: _output([program, "isolation"]))
    asked: dict[str, Callable[[], str]] = {
        "fork+exec": lambda: _output([program, "isolation"]),
    }
    words = bubblewrap_words(source.tree.path, "/bin/workload", "isolation")
    if words is not None:
        asked["bwrap"] = lambda: _output(words)
    launcher = Launcher()
    for name in ("crun", "runc"):
        if Runtime.installed(name):
            command = ("/bin/workload", "isolation")
            runtime = Runtime(name, disk / "isolation", source.tree.path, launcher, command=command)
            asked[name] = lambda runtime=runtime: launcher.output(runtime.command())  # type: ignore[misc]
    for peer in peers:
        asked[peer.short] = partial(_of_peer, peer, source)
    asked["pyrtc.run"] = lambda: _ours(engine, source.name)
    asked["pyrtc.run, userns=auto"] = lambda: _ours(engine, source.name, userns="auto")
    table = {}
    try:
        for name, ask in asked.items():
            try:
                table[name] = judge(_ask(ask), host)
            except (OSError, subprocess.CalledProcessError, pyrtc.PyrtcError) as error:
                results.note(f"isolation of {name} was not read: {error}")
    finally:
        launcher.close()
    results.fact("isolation", table)


def _of_peer(peer: Peer, source: Source) -> str:
    peer.prepare(source)
    return _output(peer.once(source, "/bin/workload", "isolation"))


def _output(words: Sequence[str | Path]) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _ours(engine: Engine, image: str, **options: str) -> str:
    return pyrtc.run(image, ["/bin/workload", "isolation"], engine=engine, check=True, **options).stdout.decode()  # type: ignore[arg-type]


def _ask(ask: Callable[[], str]) -> dict[str, str]:
    """Return what the workload says, and its control groups as they are seen from here."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        groups = ""
        while not groups and not answer.done():
            time.sleep(0.01)
            groups = _groups_of_workload()
        found = dict(line.partition(" ")[::2] for line in answer.result().splitlines())
    return {**found, "groups": groups}


def _groups_of_workload() -> str:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"workload") and b"isolation" in words:
                return (path / "cgroup").read_text()
        except OSError:  # it is gone
            continue
    return ""


def judge(inside: Mapping[str, str], host: Mapping[str, str]) -> dict[str, str]:
    """Return each feature in a word: yes, no, or a number. inside, host: what the workload said there and here."""
    found = {name: "yes" if inside[key] != host[key] else "no" for name, key in _SPACES.items()}
    # A daemon's container may be in a process namespace that cannot be seen from here.
    seen = inside["groups"]
    found["own control group"] = "not seen" if not seen else "yes" if seen != host["groups"] else "no"
    found["capabilities"] = f"{int(inside['CapBnd'], 16).bit_count()} of {int(host['CapBnd'], 16).bit_count()}"
    found["no new privileges"] = "yes" if inside["NoNewPrivs"] == "1" else "no"
    found["system call filter"] = "yes" if inside["Seccomp"] == "2" else "no"
    for name, prefix in (("kernel's secrets masked", "masked:"), ("kernel's settings read-only", "readonly:")):
        answers = [value for key, value in inside.items() if key.startswith(prefix)]
        found[name] = f"{answers.count('1')} of {len(answers)}"
    return {name: found[name] for name in FEATURES}


def lacks(table: Mapping[str, Mapping[str, str]], name: str, base: str = "pyrtc.run") -> list[str]:
    """Return the features that an engine has less of than another one; empty where one of them was not read."""
    if name not in table or base not in table:
        return []
    return [feature for feature in FEATURES if _rank(feature, table[name]) < _rank(feature, table[base])]


def _rank(feature: str, found: Mapping[str, str]) -> float:
    value = found[feature]
    if value in ("yes", "no", "not seen"):
        return float(value != "no")
    # "14 of 41": few capabilities, but many masks, are much isolation.
    count = float(value.split()[0])
    return -count if feature == "capabilities" else count

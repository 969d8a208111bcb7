"""`pyrtc create`, `start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `rm` and `rename`.

Of several containers each has its turn, whatever happens to the others; the name is printed when it is done.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyrtc.cli.each import complain
from pyrtc.cli.image_command import FAILED, image_command
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option, Parsed, parse, render_help
from pyrtc.errors import ContainerNotFound, PyrtcError, UsageError
from pyrtc.quantities import signal_number, stop_timeout

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.live import Container

    OpenEngine = Callable[[], AbstractContextManager[Engine]]

__all__ = ["kill", "pause", "rename", "restart", "rm", "start", "stop", "unpause", "wait"]

HELP = Option("--help", "", "print this")
TIME = Option(
    "-t, --timeout, --time", "TIME", "wait this long before killing; default: the container's own stop time-out"
)
SIGNAL = Option("-s, --signal", "SIGNAL", "the signal that asks for the end; default: the container's own")
NONE = (Group("Options", (HELP,)),)
START_OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --attach", "", "show its output, pass signals on, and exit with its exit code"),
            Option("-i, --interactive", "", "pass standard input on, too; with -a"),
            Option("--detach-keys", "KEYS", "what to type to leave it running; default: ctrl-p,ctrl-q"),
            Option(
                "--all-restartable",
                "",
                "start every container whose restart policy says so and that ran when the machine last went down",
            ),
            HELP,
        ),
    ),
)
STOP_OPTIONS = (Group("Options", (TIME, SIGNAL, HELP)),)
KILL_OPTIONS = (Group("Options", (Option("-s, --signal", "SIGNAL", "the signal to send; default: KILL"), HELP)),)
RM_OPTIONS = (
    Group(
        "Options",
        (
            Option("-f, --force", "", "kill those that run first; one that is missing is no failure"),
            Option("-v, --volumes", "", "remove their anonymous volumes, too"),
            HELP,
        ),
    ),
)


def _names(argv: list[str], groups: Sequence[Group], verb: str, summary: str, *, none: bool = False) -> Parsed | None:
    """Read options and names; None when help was asked for."""
    parsed = parse(argv, groups, interspersed=True)
    if parsed.flag("--help"):
        print(render_help(f"pyrtc {verb} [OPTIONS] NAME...", summary, groups))
        return None
    if not parsed.arguments and not none:
        raise UsageError(f"the container is missing: pyrtc {verb} [OPTIONS] NAME...")
    return parsed


def _each(
    open_engine: "OpenEngine | None",
    names: Sequence[str],
    act: "Callable[[Engine, str], object]",
    *,
    forgive: Callable[[PyrtcError], bool] = lambda _error: False,
) -> int:
    code = 0
    with (open_engine or opened_engine)() as engine:
        engine.containers.reap()
        for name in names:
            try:
                said = act(engine, name)
                print(name if said is None else said, flush=True)
            except PyrtcError as error:
                complain(error)
                if not forgive(error):
                    code = FAILED
    return code


@image_command
def start(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc start`."""
    parsed = _names(argv, START_OPTIONS, "start", "Start containers that have been made or have ended.", none=True)
    if parsed is None:
        return 0
    names = parsed.arguments
    if parsed.flag("--all-restartable"):
        if names:
            raise UsageError("--all-restartable names the containers itself")
        with (open_engine or opened_engine)() as engine:
            engine.containers.reap()
            names = [container.id for container in engine.containers.restartable()]
        return _each(open_engine, names, _start)
    if not names:
        raise UsageError("the container is missing: pyrtc start [OPTIONS] NAME...")
    if parsed.flag("--attach") or parsed.flag("--interactive"):
        if len(names) > 1:
            raise UsageError("you cannot start and attach multiple containers at once")
        from pyrtc.cli.attached import start_attached

        with (open_engine or opened_engine)() as engine:
            engine.containers.reap()
            return start_attached(
                engine.containers.get(names[0]),
                interactive=parsed.flag("--interactive"),
                detach_keys=parsed.word("--detach-keys"),
            )
    return _each(open_engine, names, _start)


def _start(engine: "Engine", name: str) -> None:
    engine.containers.get(name).start()


@image_command
def stop(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc stop`."""
    parsed = _names(argv, STOP_OPTIONS, "stop", "Ask containers to end; kill those that do not.")
    if parsed is None:
        return 0
    timeout, signal = parsed.one("--timeout", stop_timeout), parsed.one("--signal", signal_number, late=True)
    return _each(open_engine, parsed.arguments, lambda engine, name: _stop(engine, name, timeout, signal))


def _stop(engine: "Engine", name: str, timeout: float | None, signal: int | None) -> None:
    engine.containers.get(name).stop(timeout, signal=signal)


@image_command
def restart(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc restart`."""
    parsed = _names(argv, STOP_OPTIONS, "restart", "Stop containers, if they run, and start them again.")
    if parsed is None:
        return 0
    timeout, signal = parsed.one("--timeout", stop_timeout), parsed.one("--signal", signal_number, late=True)
    return _each(open_engine, parsed.arguments, lambda engine, name: _restart(engine, name, timeout, signal))


def _restart(engine: "Engine", name: str, timeout: float | None, signal: int | None) -> None:
    engine.containers.get(name).restart(timeout, signal=signal)


@image_command
def kill(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc kill`."""
    parsed = _names(argv, KILL_OPTIONS, "kill", "Send a signal to containers: KILL unless another is named.")
    if parsed is None:
        return 0
    signal = parsed.one("--signal", signal_number, late=True) or 9
    return _each(open_engine, parsed.arguments, lambda engine, name: engine.containers.get(name).kill(signal))


@image_command
def pause(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc pause`."""
    parsed = _names(argv, NONE, "pause", "Stop all processes of containers where they are.")
    return 0 if parsed is None else _each(open_engine, parsed.arguments, lambda e, name: e.containers.get(name).pause())


@image_command
def unpause(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc unpause`."""
    parsed = _names(argv, NONE, "unpause", "Let paused containers go on.")
    return (
        0 if parsed is None else _each(open_engine, parsed.arguments, lambda e, name: e.containers.get(name).unpause())
    )


@image_command
def wait(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc wait`: the exit code of each is printed when it has ended."""
    parsed = _names(argv, NONE, "wait", "Wait for the end of containers and print their exit codes.")
    if parsed is None:
        return 0
    return _each(open_engine, parsed.arguments, lambda engine, name: _wait(engine.containers.get(name)))


def _wait(container: "Container") -> int:
    from pyrtc.container import Outcome

    done = container.wait()
    if done.outcome is Outcome.UNKNOWN:
        print("pyrtc: warning: its monitor was killed, and nobody knows how the container ended", file=sys.stderr)
    return done.returncode


@image_command
def rm(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc rm`."""
    parsed = _names(argv, RM_OPTIONS, "rm", "Remove containers, by name or id.")
    if parsed is None:
        return 0
    force, volumes = parsed.flag("--force"), parsed.flag("--volumes")
    return _each(
        open_engine,
        parsed.arguments,
        lambda engine, name: engine.containers.get(name).remove(force=force, volumes=volumes),
        forgive=lambda error: force and isinstance(error, ContainerNotFound),
    )


@image_command
def rename(argv: list[str], open_engine: "OpenEngine | None" = None) -> int:
    """Run `pyrtc rename`."""
    parsed = parse(argv, NONE, interspersed=True)
    if parsed.flag("--help"):
        print(render_help("pyrtc rename NAME NEW_NAME", "Give a container another name.", NONE))
        return 0
    if len(parsed.arguments) != 2:
        raise UsageError("write the container and its new name: pyrtc rename NAME NEW_NAME")
    name, new = parsed.arguments
    with (open_engine or opened_engine)() as engine:
        engine.containers.get(name).rename(new)
    return 0

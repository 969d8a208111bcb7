"""The command `pyrtc`: imports the module of one command and no other, turns errors into messages and exit codes."""

import contextlib
import gc
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from pyrtc.cli.opened import leave_open
from pyrtc.errors import PyrtcError, UsageError

__all__ = ["main", "program"]

# Command, the module and function that run it, what it does; a title starts a group of the help.
COMMANDS = {
    "Containers": {
        "run": ("pyrtc.cli.run", "run", "Run a command in a new container"),
        "create": ("pyrtc.cli.run", "create", "Make a container without starting it"),
        "start": ("pyrtc.cli.lives", "start", "Start containers that have been made or have ended"),
        "ps": ("pyrtc.cli.containers", "ps", "List containers"),
        "stop": ("pyrtc.cli.lives", "stop", "Ask containers to end, then kill them"),
        "restart": ("pyrtc.cli.lives", "restart", "Stop containers and start them again"),
        "kill": ("pyrtc.cli.lives", "kill", "Send a signal to containers"),
        "pause": ("pyrtc.cli.lives", "pause", "Stop all processes of containers where they are"),
        "unpause": ("pyrtc.cli.lives", "unpause", "Let paused containers go on"),
        "wait": ("pyrtc.cli.lives", "wait", "Wait for the end of containers and print their exit codes"),
        "exec": ("pyrtc.cli.exec", "exec_", "Execute a command in a running container"),
        "logs": ("pyrtc.cli.logs", "logs", "Print what a container has written"),
        "attach": ("pyrtc.cli.attached", "attach", "Show what a container writes, and type into it"),
        "rm": ("pyrtc.cli.lives", "rm", "Remove containers"),
        "rename": ("pyrtc.cli.lives", "rename", "Give a container another name"),
        "top": ("pyrtc.cli.top", "top", "Show the processes of a container"),
        "stats": ("pyrtc.cli.stats", "stats", "Show what containers use"),
        "update": ("pyrtc.cli.update", "update", "Change the limits of containers"),
        "port": ("pyrtc.cli.port", "port", "Print the ports of this machine that lead to a container"),
        "inspect": ("pyrtc.cli.inspect", "inspect", "Print all about containers, images, networks, volumes as JSON"),
        "events": ("pyrtc.cli.events", "events", "Tell what happens in the store"),
        "cp": ("pyrtc.cli.copy", "cp", "Copy files between a container and this machine"),
        "diff": ("pyrtc.cli.rw_layer", "diff", "Show what a container changed in the files of its image"),
        "commit": ("pyrtc.cli.rw_layer", "commit", "Make an image of a container's changes"),
        "export": ("pyrtc.cli.rw_layer", "export", "Write a container's files as a tar"),
        "snapshot": ("pyrtc.cli.snapshots", "snapshot", "Freeze what containers wrote, to start others from there"),
        "container": ("pyrtc.cli.system", "container", "More about containers: pyrtc container prune"),
    },
    "Images": {
        "images": ("pyrtc.cli.images", "images", "List images"),
        "load": ("pyrtc.cli.images", "load", "Take images from a docker-archive, an OCI archive or an OCI layout"),
        "save": ("pyrtc.cli.save", "save", "Write images into an archive"),
        "tag": ("pyrtc.cli.save", "tag", "Give an image another name"),
        "history": ("pyrtc.cli.history", "history", "Show the steps an image was made in"),
        "import": ("pyrtc.cli.images", "import_", "Make an image of a plain root file system in a tar"),
        "rmi": ("pyrtc.cli.images", "rmi", "Remove images"),
        "image": ("pyrtc.cli.images", "image", "More about images: pyrtc image inspect NAME"),
    },
    "Registries": {
        "pull": ("pyrtc.cli.registry", "pull", "Fetch images from registries"),
        "push": ("pyrtc.cli.registry", "push", "Send an image to its registry"),
        "login": ("pyrtc.cli.registry", "login", "Prove to a registry who you are"),
        "logout": ("pyrtc.cli.registry", "logout", "Forget the password for a registry"),
        "manifest": ("pyrtc.cli.registry", "manifest", "More about what registries have"),
    },
    "Networks": {
        "network": ("pyrtc.cli.networks", "network", "Networks: pyrtc network create, ls, connect, rm, prune"),
        "cluster": ("pyrtc.cli.cluster", "cluster", "Hosts with networks in common: pyrtc cluster join, ls, leave"),
    },
    "The store": {
        "system": ("pyrtc.cli.system", "system", "The store as a whole: pyrtc system df, check, prune"),
        "volume": ("pyrtc.cli.volumes", "volume", "Volumes: pyrtc volume ls, create, inspect, rm, prune"),
    },
    "pyrtc": {
        "version": ("pyrtc.cli.main", "version", "Print the version"),
        "completion": ("pyrtc.cli.completion", "completion", "Have your shell complete commands, options and names"),
        "help": ("pyrtc.cli.main", "help_", "Print help about a command"),
    },
}
HIDDEN = {"__complete": ("pyrtc.cli.candidates", "complete", "What the shells' completion asks")}
USAGE = "pyrtc [--root DIR] COMMAND [OPTIONS] [ARGUMENT...]"
ENDING = """\
Options:
  --root DIR  keep images and containers in DIR instead of /var/lib/pyrtc, or ~/.local/share/pyrtc for
              ordinary users; the same as the variable PYRTC_ROOT
  --version   print the version
  --help      print this

`pyrtc COMMAND --help` prints a command's options. A first container, with nothing to load:

  pyrtc run --rm host echo hello"""
FAILED = 125
# Importing makes thousands of objects that stay; looking through them for garbage ten times takes milliseconds.
GARBAGE_THRESHOLD = 50_000


def program() -> NoReturn:
    """Be the program `pyrtc`: run one command line and end, without taking the interpreter apart object by object.

    That would take longer than starting a container, and nothing here needs it: a command has closed what it opened,
    and the kernel closes the rest.
    """
    gc.set_threshold(GARBAGE_THRESHOLD)
    leave_open()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    os._exit(code)


def main(argv: list[str] | None = None) -> int:
    """Run one command line.

    Parameters
    ----------
    argv: the words after the program's name; None takes the process's own.

    Returns
    -------
    The exit code: 125 when pyrtc itself failed, otherwise the command's.
    """
    _keep_standard_descriptors()
    words = list(sys.argv[1:] if argv is None else argv)
    command = ""
    try:
        rest = _global_options(words)
        command, *rest = rest or ["help"]
        code = _command(command)(rest)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        return _die_of(getattr(interrupt, "number", 2))
    except BrokenPipeError:
        _forget_stdout()
        return 128 + 13
    except PyrtcError as error:
        _complain(str(error))
        if isinstance(error, UsageError):
            about = f" {error.command or command}" if command in _commands() else ""
            print(f"Run 'pyrtc{about} --help' for more information", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if os.environ.get("PYRTC_TRACEBACK"):
            raise
        _complain(f"{type(error).__name__}: {error} (PYRTC_TRACEBACK=1 shows where)")
        return FAILED


def _global_options(words: list[str]) -> list[str]:
    """Take the options before the command; return the command and what follows it."""
    while words and words[0].startswith("-"):
        option, equals, value = words.pop(0).partition("=")
        if option == "--root":
            if not equals:
                if not words:
                    raise UsageError("option needs a value: --root DIR")
                value = words.pop(0)
            if not value:
                raise UsageError("the directory of --root is empty")
            # Where every command, and what it starts, looks for the store.
            os.environ["PYRTC_ROOT"] = os.path.abspath(value)  # noqa: PTH100  (pathlib costs milliseconds)
        elif option in ("--version", "-v"):
            return ["version"]
        elif option in ("--help", "-h"):
            return ["help"]
        else:
            from pyrtc.cli.option_table import nearest

            raise UsageError(f"unknown option: {option}{nearest(option, ('--root', '--version', '--help'))}")
    return words


def _commands() -> dict[str, tuple[str, str, str]]:
    return {name: row for group in COMMANDS.values() for name, row in group.items()}


def _command(name: str) -> Callable[[list[str]], int]:
    from importlib import import_module

    row = _commands().get(name) or HIDDEN.get(name)
    if row is None:
        from pyrtc.cli.option_table import ArgumentError, nearest

        raise ArgumentError(f"unknown command: {name}{nearest(name, _commands())}")
    command: Callable[[list[str]], int] = getattr(import_module(row[0]), row[1])
    return command


def version(argv: list[str]) -> int:
    """Print the version."""
    from pyrtc.cli.option_table import ArgumentError, Group, Option, parse

    parsed = parse(argv, (Group("Options", (Option("--help", "", "print this"),)),), interspersed=True)
    if parsed.flag("--help"):
        print("Usage:  pyrtc version")
        return 0
    if parsed.arguments:
        raise ArgumentError(f"unexpected argument: {parsed.arguments[0]}")
    from pyrtc import __version__

    print(f"pyrtc version {__version__}")
    return 0


def help_(argv: list[str]) -> int:
    """Print the help of pyrtc, or of the command that is named."""
    if argv and argv[0] not in ("help", "--help"):
        return _command(argv[0])(["--help"])
    lines = [f"Usage:  {USAGE}", "", "Containers without a daemon."]
    for title, group in COMMANDS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<10}{summary}" for name, (_, _, summary) in group.items()]
    print("\n".join([*lines, "", ENDING]))
    return 0


def _keep_standard_descriptors() -> None:
    """Open /dev/null where a standard descriptor is closed, so that no file of the store is mistaken for one."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is this one.
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)


def _complain(message: str) -> None:
    """Print an error; what an image put into the text cannot steer the terminal."""
    text = "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in message)
    print(f"pyrtc: {text}", file=sys.stderr)


def _forget_stdout() -> None:
    """Let the interpreter flush into nothing at its end, since the reader has gone."""
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _die_of(number: int) -> int:
    """End by a signal as a program without handlers does, so that a shell's loop around it ends too."""
    import signal

    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    program()

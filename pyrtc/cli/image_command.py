"""What the commands on images have in common: options, an open store, Docker's exit code."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec

from pyrtc.cli.option_table import Group, Option, OptionError, Parsed, parse, render_help
from pyrtc.errors import PyrtcError

if TYPE_CHECKING:
    from pyrtc.image.images import Images

__all__ = ["FAILED", "HELP", "image_command", "open_images", "parse_options"]

_P = ParamSpec("_P")

HELP = Option("--help", "", "print this")
FAILED = 1  # Docker's code for everything but run


def image_command(command: "Callable[_P, int]") -> "Callable[_P, int]":
    """Let a command's errors end with Docker's code, but those of its options, which have one of their own."""

    @functools.wraps(command)
    def run(*args: _P.args, **keywords: _P.kwargs) -> int:
        try:
            return command(*args, **keywords)
        except OptionError:
            raise
        except PyrtcError as error:
            error.exit_code = FAILED
            raise

    return run


@contextmanager
def open_images(*, sweep: bool = False) -> "Iterator[Images]":
    """Open the store; with sweep bring it back first to what its database says."""
    from pyrtc.image.images import Images
    from pyrtc.store import Store

    with Store() as store:
        if sweep:
            store.sweep()
        yield Images(store)


def parse_options(
    argv: list[str],
    options: tuple[Group, ...],
    usage: str,
    summary: str,
    ending: str = "",
    *,
    unavailable: Mapping[str, str] | None = None,
) -> Parsed | None:
    """Read options; None when only help was asked for, which is printed then.

    unavailable: names that are refused, with the reason.
    """
    parsed = parse(argv, options, interspersed=True, unavailable=unavailable or {})
    if parsed.flag("--help"):
        print(render_help(usage, summary, options, ending=ending))
        return None
    return parsed

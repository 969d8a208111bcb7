"""Commands that take several names: each is tried, whatever happens to the others."""

import sys
from collections.abc import Callable, Iterable

from pyrtc.cli.image_command import FAILED
from pyrtc.errors import PyrtcError

__all__ = ["complain", "try_each"]


def try_each(names: Iterable[str], act: Callable[[str], object]) -> int:
    """Do something with each thing that is named, tell what fails, and return the command's exit code."""
    code = 0
    for name in names:
        try:
            act(name)
        except PyrtcError as error:
            complain(error)
            code = FAILED
    return code


def complain(error: PyrtcError) -> None:
    """Tell of an error that does not end the command."""
    from pyrtc.cli.tables import printable

    print(f"pyrtc: {printable(str(error))}", file=sys.stderr)

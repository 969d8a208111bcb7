"""How work that is under way in several threads ends when one of them has failed."""

from pyrtc.errors import PyrtcError

__all__ = ["Cancelled"]


class Cancelled(PyrtcError):
    """Other work failed, or the caller gave up, so this ends as well; whoever asked for it sees the first failure."""

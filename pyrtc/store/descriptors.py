"""Descriptors that a forked child must not keep.

A child that is forked without an exec shares every open file of its parent: it would keep locks alive that died with
the parent, and pipes open that the parent closed. What is registered here is closed in the child at once.
"""

import os
import weakref

__all__ = ["Private"]


class Private:
    """A descriptor of this process alone, closed by `close`, by a fork in the child, or when forgotten."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _private.add(self)

    def close(self) -> None:
        """Close the descriptor. May be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close what was forgotten."""
        self.close()


_private: "weakref.WeakSet[Private]" = weakref.WeakSet()


def _close_in_child() -> None:
    for descriptor in list(_private):
        Private.close(descriptor)  # and no more: what else a class does at the end is the parent's to do


os.register_at_fork(after_in_child=_close_in_child)

"""Connecting to the monitor of a container that a store knows: for its output and input, or to hear of its end."""

import os
from typing import TYPE_CHECKING

from pyrtc.errors import ContainerError
from pyrtc.runtime.attach import END_OF_INPUT, Attachment, attach, claim_end, input_messages, size_message
from pyrtc.states import is_alive, status_of
from pyrtc.store import ContainerRecord

if TYPE_CHECKING:
    from pyrtc.live import Container

__all__ = [
    "END_OF_INPUT",
    "Attachment",
    "attach_to",
    "claim_end",
    "connect",
    "input_messages",
    "size_message",
]


def connect(record: ContainerRecord, *, output: bool = True, stdin: bool = False) -> Attachment | None:
    """Connect to the monitor of a container; None where there is none, or none any more.

    Raises
    ------
    ContainerError: it cannot be connected to.
    """
    if not record.detached or record.directory is None:
        return None
    try:
        # A descriptor and not the path: a socket's address holds 108 bytes, a store's path may be longer.
        fd = os.open(record.directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return attach(fd, output=output, stdin=stdin)
    finally:
        os.close(fd)


def attach_to(container: "Container", *, output: bool = True) -> Attachment:
    """See `Container.attach`."""
    record = container.record
    status = status_of(record)
    if status in ("paused", "restarting"):
        first = "unpause it first" if status == "paused" else "wait until it is running"
        raise ContainerError(f"You cannot attach to a {status} container, {first}")
    if status != "running":
        raise ContainerError("You cannot attach to a stopped container, start it first")
    if not record.detached:
        raise ContainerError(f"container {record.name} runs in the foreground of another program, which has it")
    attachment = connect(record, output=output, stdin=container.options.interactive)
    if attachment is not None:
        return attachment
    if is_alive(record):
        raise ContainerError(f"container {record.name} runs without its monitor, which had its streams: it was killed")
    raise ContainerError("You cannot attach to a stopped container, start it first")

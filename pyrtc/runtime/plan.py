"""Writing plans for pyrtc-init: flat operations in the format of csrc/plan.h, and reading them back for people."""

import struct
from collections.abc import Sequence

from pyrtc._core import lib

__all__ = ["NAMES", "Plan", "describe", "operation"]

_HEAD = struct.Struct("=HHIiIQQII")

NAMES = {
    getattr(lib, name): name.removeprefix("PLAN_").lower()
    for name in dir(lib)
    if name.startswith("PLAN_")
    and name
    not in {
        "PLAN_RECURSIVE",
        "PLAN_VOLATILE",
        "PLAN_USERXATTR",
        "PLAN_UPPER_TMPFS",
        "PLAN_DEVICES",
        "PLAN_NO_LINKS",
        "PLAN_KEEP_GROUPS",
        "PLAN_DETACHED",
        "PLAN_NO_WARDEN",
    }
}


def operation(
    code: int,
    *strings: str | bytes,
    slot: int = -1,
    flags: int = 0,
    mode: int = 0,
    a: int = 0,
    b: int = 0,
    blob: bytes = b"",
) -> bytes:
    """Encode one operation. Strings must not hold NUL: they come from options that were checked."""
    body = b"".join(
        [(text if isinstance(text, bytes) else text.encode(errors="surrogateescape")) + b"\0" for text in strings]
    )
    body += blob
    size = _HEAD.size + len(body)
    padding = -size % 8
    head = _HEAD.pack(code, flags, size + padding, slot, mode, a, b, len(strings), len(blob))
    return head + body + b"\0" * padding


class Plan:
    """The operations and descriptors of one start. Slots 0, 1 and 2 are stdin, stdout and stderr."""

    __slots__ = ("operations", "slots")

    def __init__(self, stdio: Sequence[int] = (-1, -1, -1)) -> None:
        self.operations: list[bytes] = []
        self.slots: list[int] = list(stdio)

    def add(
        self,
        code: int,
        *strings: str | bytes,
        fd: int | None = None,
        flags: int = 0,
        mode: int = 0,
        a: int = 0,
        b: int = 0,
        blob: bytes = b"",
    ) -> None:
        """Append an operation; fd is passed on to pyrtc-init."""
        slot = -1
        if fd is not None:
            slot = len(self.slots)
            self.slots.append(fd)
        self.operations.append(operation(code, *strings, slot=slot, flags=flags, mode=mode, a=a, b=b, blob=blob))

    def describe(self) -> str:
        """Return the plan as lines for people, in the order of execution."""
        return "\n".join(describe(op) for op in self.operations)


def _strings(op: bytes) -> list[str]:
    count = _HEAD.unpack_from(op)[7]
    return [text.decode(errors="surrogateescape") for text in op[_HEAD.size :].split(b"\0", count)[:count]]


def words(op: bytes) -> tuple[str, list[str]]:
    """Return an operation's name and strings."""
    return NAMES[_HEAD.unpack_from(op)[0]], _strings(op)


_PERMISSIONS = frozenset(
    {
        lib.PLAN_FILE,
        lib.PLAN_MKDIR,
        lib.PLAN_OVERLAY,
        lib.PLAN_ROOT_OVERLAY,
        lib.PLAN_ROOT_TMPFS,
        lib.PLAN_UMASK,
    }
)


_MODES = {lib.PLAN_RLIMIT: "resource"}


def _shown(text: str) -> str:
    """A word as it is, or quoted: an image must not write to a terminal."""
    return text if text and text.isprintable() and " " not in text else repr(text)


def describe(op: bytes) -> str:
    """Return one operation in words: its name, operands and strings."""
    code, flags, _size, slot, mode, a, b, _count, blob_size = _HEAD.unpack_from(op)
    name = NAMES[code]
    strings = _strings(op)
    parts = [f"{name:<15}"]
    if code == lib.PLAN_EXEC:
        return " ".join([*parts, *map(_shown, strings[:a])])
    parts += map(_shown, strings)
    if flags:
        parts.append(f"flags={flags:#x}")
    if slot >= 0:
        parts.append(f"fd={slot}")
    if mode:
        parts.append(f"mode={mode:#o}" if code in _PERMISSIONS else f"{_MODES.get(code, 'attributes')}={mode:#x}")
    if a or b:
        parts.append(f"a={a:#x} b={b:#x}")
    if blob_size:
        parts.append(f"({blob_size} bytes)")
    return " ".join(parts)

"""Words for what a container may do: `--security-opt`, capabilities, `--sysctl`."""

import os
from typing import Literal

from pyrtc.cli.option_table import nearest, truth
from pyrtc.errors import UsageError

__all__ = ["SecurityOptions", "capability", "sysctl"]

KINDS = ("seccomp", "no-new-privileges", "systempaths", "mask", "unmask", "apparmor", "label")


class SecurityOptions:
    """What all `--security-opt` of one command say together; the attributes are those of RunOptions.

    The paths of mask and unmask add up, of everything else the last word counts.
    """

    def __init__(self) -> None:
        self.seccomp: str | None = None
        self.no_new_privileges = True
        self.systempaths: Literal["masked", "unconfined"] = "masked"
        self.mask: tuple[str, ...] = ()
        self.unmask: tuple[str, ...] = ()

    def add(self, word: str) -> None:
        """Read one word.

        Raises
        ------
        UsageError: it is unknown, or asks for what this version does not do.
        """
        # Docker's older spelling has a colon where the first equals sign is; a path of seccomp=FILE may hold either.
        at = min((index for index in (word.find("="), word.find(":")) if index >= 0), default=len(word))
        kind, value = word[:at], word[at + 1 :]
        if kind not in KINDS:
            raise UsageError(f"unknown option {kind!r}{nearest(kind, KINDS)}")
        if not value and kind != "no-new-privileges":
            raise UsageError(f"{kind} needs a value")
        match kind:
            case "no-new-privileges":
                self.no_new_privileges = truth(value) if at < len(word) else True
            case "seccomp":
                self.seccomp = _seccomp(value)
            case "systempaths":
                if value != "unconfined":
                    raise UsageError("systempaths is masked unless systempaths=unconfined is said")
                self.systempaths = "unconfined"
            case "mask":
                self.mask += _paths(value)
            case "unmask":
                self.unmask += ("ALL",) if value == "ALL" else _paths(value)
            case "apparmor":
                if value != "unconfined":  # which asks for what is so: pyrtc loads no profile
                    raise UsageError("this version applies no AppArmor profiles; apparmor=unconfined says so")
            case _:
                if value != "disable":
                    raise UsageError("this version sets no SELinux labels; label=disable says so")


def _seccomp(value: str) -> str | None:
    if value == "builtin":
        return None
    if value == "unconfined":
        return value
    path = os.path.abspath(value)  # noqa: PTH100  (pathlib costs milliseconds to import)
    if not os.path.isfile(path):  # noqa: PTH113
        raise UsageError(f"there is no seccomp profile {path}; name a file, unconfined or builtin")
    return path


def _paths(value: str) -> tuple[str, ...]:
    paths = tuple(value.split(":"))
    for path in paths:
        if not path.startswith("/") or "\0" in path:
            raise UsageError(f"{path!r} is not an absolute path")
    return paths


def capability(word: str) -> str:
    """Read a capability, `NET_ADMIN`, `cap_net_admin` or `ALL`; whether it exists is for the runtime to say."""
    name = word.upper().removeprefix("CAP_")
    if not name.replace("_", "").isalpha() or not name.isascii():
        raise UsageError("not a capability; write for example NET_ADMIN, or ALL")
    return name


def sysctl(word: str) -> tuple[str, str]:
    """Read `NAME=VALUE`; the name is written with dots."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise UsageError("write NAME=VALUE, for example net.core.somaxconn=1024")
    if not all(letter.isalnum() or letter in "._-/" for letter in name) or not name.isascii():
        raise UsageError(f"{name!r} is not the name of a kernel parameter")
    if any(part in ("", ".", "..") for part in name.replace(".", "/").split("/")):
        raise UsageError(f"{name!r} is not the name of a kernel parameter")
    if "\0" in value or "\n" in value:
        raise UsageError("a kernel parameter is one line")
    return name, value

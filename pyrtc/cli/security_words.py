"""Words for what a container may do: `--security-opt`, capabilities, `--sysctl`."""

import os
from dataclasses import dataclass, replace
from typing import Literal

from pyrtc.cli.option_table import nearest, truth
from pyrtc.errors import UsageError

__all__ = ["SecurityOptions", "capability", "security_options", "sysctl"]

KINDS = ("seccomp", "no-new-privileges", "systempaths", "mask", "unmask", "apparmor", "label")


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """What all `--security-opt` of one command say together; the fields are those of RunOptions."""

    seccomp: str | None = None
    no_new_privileges: bool = True
    systempaths: Literal["masked", "unconfined"] = "masked"
    mask: tuple[str, ...] = ()
    unmask: tuple[str, ...] = ()


def security_options(words: tuple[str, ...]) -> SecurityOptions:
    """Read every `--security-opt` in order; paths of mask and unmask add up, of the others the last one wins.

    Raises
    ------
    UsageError: names the word.
    """
    options = SecurityOptions()
    for word in words:
        try:
            options = _with_option(options, word)
        except UsageError as error:
            raise UsageError(f'invalid value "{word}" for --security-opt: {error}') from None
    return options


def _with_option(options: SecurityOptions, word: str) -> SecurityOptions:
    # Docker's older spelling has a colon where the first equals sign is; a path of seccomp=FILE may hold either.
    at = min((index for index in (word.find("="), word.find(":")) if index >= 0), default=len(word))
    kind, value = word[:at], word[at + 1 :]
    if kind == "no-new-privileges":
        return replace(options, no_new_privileges=truth(value) if at < len(word) else True)
    if kind not in KINDS:
        raise UsageError(f"unknown option {kind!r}{nearest(kind, KINDS)}")
    if not value:
        raise UsageError(f"{kind} needs a value")
    match kind:
        case "seccomp":
            return replace(options, seccomp=_seccomp(value))
        case "systempaths":
            if value != "unconfined":
                raise UsageError("systempaths is masked unless systempaths=unconfined is said")
            return replace(options, systempaths="unconfined")
        case "mask":
            return replace(options, mask=(*options.mask, *_paths(value)))
        case "unmask":
            return replace(options, unmask=(*options.unmask, *(("ALL",) if value == "ALL" else _paths(value))))
        case "apparmor" if value == "unconfined":
            return options  # pyrtc loads no profile: this asks for what is so
        case "label" if value == "disable":
            return options
        case "apparmor":
            raise UsageError("this version applies no AppArmor profiles; apparmor=unconfined says so")
        case _:
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

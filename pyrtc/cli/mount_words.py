"""Words for what is mounted into a container: `-v`, `--mount`, `--tmpfs`, `--device`."""

import os
import re

from pyrtc import quantities
from pyrtc.cli.option_table import nearest, truth
from pyrtc.errors import UsageError
from pyrtc.options import Bind, Device, Mount, Tmpfs, Volume

__all__ = ["device", "mount", "tmpfs", "volume"]

VOLUME_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"
# A bind mount of Linux has the one consistency there is, and what pyrtc mounts is private; these words ask for that.
ALREADY_SO = frozenset({"cached", "delegated", "consistent", "default", "private", "rprivate"})
PROPAGATIONS = frozenset({"shared", "rshared", "slave", "rslave"})


def volume(word: str) -> Bind | Volume:
    """Read `-v`: `/host:/target[:ro]`, `./relative:/target`, `name:/target`, `/target` for an anonymous volume."""
    parts = word.split(":")
    if len(parts) > 3 or not all(parts):
        raise UsageError("write SOURCE:TARGET[:OPTIONS] or TARGET, none of them empty")
    if len(parts) == 1:
        return Volume("", _target(parts[0]))
    source, target = parts[0], parts[1]
    if not target.startswith("/") and source.startswith("/") and _is_volume_mode(target):
        raise UsageError(f"the target is missing before :{target}; write {source}:TARGET:{target}")
    modes = parts[2].split(",") if len(parts) == 3 else []
    is_path = source.startswith(("/", "."))
    read_only, no_copy, idmap, recursive = False, False, False, True
    for mode in modes:
        match mode:
            case "ro" | "readonly":
                read_only = True
            case "rw":
                pass
            case "nocopy" if not is_path:
                no_copy = True
            case "idmap" if is_path:
                idmap = True
            case "bind" | "rbind" if is_path:
                recursive = mode == "rbind"
            case "z" | "Z":
                _refuse_relabel(mode)
            case _ if mode in ALREADY_SO:
                pass
            case _:
                raise UsageError(_bad_mode(mode, is_path=is_path))
    if {"ro", "rw"} <= set(modes):
        raise UsageError("ro and rw exclude each other")
    if is_path:
        return Bind(_host_path(source), _target(target), read_only, recursive=recursive, create=True, idmap=idmap)
    return Volume(_volume_name(source), _target(target), read_only, copy=not no_copy)


def _is_volume_mode(word: str) -> bool:
    return set(word.split(",")) <= {"ro", "rw", "z", "Z", "nocopy", "idmap"}


def _bad_mode(mode: str, *, is_path: bool) -> str:
    if mode in PROPAGATIONS:
        return f"{mode}: mounts are private to a container in pyrtc; leave it out"
    if mode == "nocopy":
        return "nocopy is for volumes: a directory of the host is never filled from the image"
    if mode in ("idmap", "bind", "rbind") and not is_path:
        return f"{mode} is for directories of the host, not for volumes"
    return f"unknown option {mode!r}; there are ro, rw, nocopy, idmap, bind, rbind, z and Z"


def _refuse_relabel(mode: str) -> None:
    """Accept z and Z where there are no SELinux labels to change, as Docker does; refuse them where there are."""
    if os.path.exists("/sys/fs/selinux/enforce"):  # noqa: PTH110  (pathlib costs milliseconds to import)
        raise UsageError(
            f"{mode}: pyrtc does not change SELinux labels; label the directory with chcon -t container_file_t"
        )


def _host_path(word: str) -> str:
    """Make a path of the host absolute; `..` is resolved by text, as Docker does."""
    if "\0" in word:
        raise UsageError("a path cannot hold a NUL byte")
    return os.path.abspath(word)  # noqa: PTH100  (pathlib costs milliseconds to import)


def _target(word: str) -> str:
    """Check a path inside the container."""
    if not word.startswith("/"):
        raise UsageError(f"the target {word!r} is not an absolute path")
    if "\0" in word:
        raise UsageError("a path cannot hold a NUL byte")
    path = os.path.normpath("/" + word.lstrip("/"))
    if path == "/":
        raise UsageError("the target cannot be /")
    return path


def _volume_name(word: str) -> str:
    if not re.fullmatch(VOLUME_NAME, word):
        raise UsageError(
            f"{word!r} is no name for a volume: two or more of [a-zA-Z0-9_.-], the first a letter or digit; "
            "a directory of the host is written with its absolute path or from ./"
        )
    return word


def mount(word: str) -> Mount:
    """Read `--mount`: `type=bind,source=/host,target=/inside,readonly` and its like for volume and tmpfs."""
    fields = _fields(word)
    kind = fields.pop("type", "volume")
    target = fields.pop("target", None)
    if target is None:
        raise UsageError("the target is missing; write target=/path")
    target = _target(target)
    read_only = _pop_truth(fields, "readonly")
    source = fields.pop("source", None)
    consistency = fields.pop("consistency", "default")
    if consistency not in ALREADY_SO:
        raise UsageError(f"unknown consistency {consistency!r}")
    made: Mount
    if kind == "bind":
        if source is None:
            raise UsageError("the source is missing; write source=/path")
        if not source.startswith(("/", ".")):
            raise UsageError(f"the source {source!r} is not a path; write it absolute or from ./")
        made = _mount_bind(_host_path(source), target, read_only, fields)
    elif kind == "volume":
        copy = not _pop_truth(fields, "volume-nocopy")
        made = Volume(_volume_name(source) if source else "", target, read_only, copy)
    elif kind == "tmpfs":
        if source is not None:
            raise UsageError("a tmpfs has no source")
        limit = fields.pop("tmpfs-size", None)
        mode = fields.pop("tmpfs-mode", None)
        made = Tmpfs(
            target,
            size=quantities.limit_size(limit) if limit is not None else None,
            mode=quantities.octal_mode(mode) if mode is not None else 0o1777,
            read_only=read_only,
        )
    else:
        raise UsageError(f"unknown type {kind!r}; there are bind, volume and tmpfs")
    if fields:
        raise UsageError(f"{next(iter(fields))} has no meaning for type={kind}")
    return made


def _mount_bind(source: str, target: str, read_only: bool, fields: dict[str, str]) -> Bind:
    propagation = fields.pop("bind-propagation", "rprivate")
    if propagation not in ALREADY_SO:
        raise UsageError(f"bind-propagation={propagation}: mounts are private to a container in pyrtc; leave it out")
    recursive = fields.pop("bind-recursive", "enabled")
    if recursive not in ("enabled", "disabled"):
        raise UsageError(f"bind-recursive={recursive}: say enabled or disabled")
    if _pop_truth(fields, "bind-nonrecursive"):
        recursive = "disabled"
    return Bind(
        source,
        target,
        read_only,
        recursive=recursive == "enabled",
        create=_pop_truth(fields, "bind-create-src"),
        idmap=_pop_truth(fields, "idmap"),
    )


# Every key of Docker's that pyrtc knows, with the name used here.
MOUNT_KEYS = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "consistency": "consistency",
    "bind-propagation": "bind-propagation",
    "bind-nonrecursive": "bind-nonrecursive",
    "bind-recursive": "bind-recursive",
    "bind-create-src": "bind-create-src",
    "idmap": "idmap",
    "volume-nocopy": "volume-nocopy",
    "tmpfs-size": "tmpfs-size",
    "tmpfs-mode": "tmpfs-mode",
}
MOUNT_FLAGS = frozenset({"readonly", "bind-nonrecursive", "bind-create-src", "idmap", "volume-nocopy"})


def _fields(word: str) -> dict[str, str]:
    """Split the comma separated fields, where one that holds a comma stands in double quotes."""
    import csv

    try:
        rows = list(csv.reader([word], strict=True))
    except csv.Error as error:
        raise UsageError(f"the quotes do not match: {error}") from None
    fields: dict[str, str] = {}
    for field in rows[0] if rows else []:
        name, equals, value = field.strip().partition("=")
        key = MOUNT_KEYS.get(name.lower())
        if key is None:
            raise UsageError(f"unknown key {name!r}{nearest(name, MOUNT_KEYS)}")
        if not equals:
            if key not in MOUNT_FLAGS:
                raise UsageError(f"{name} needs a value; write {name}=VALUE")
            value = "true"
        if key in fields:
            raise UsageError(f"{name} is given twice")
        fields[key] = value
    return fields


def _pop_truth(fields: dict[str, str], key: str) -> bool:
    word = fields.pop(key, "false")
    try:
        return truth(word)
    except UsageError as error:
        raise UsageError(f"{key}={word}: {error}") from None


def tmpfs(word: str) -> Tmpfs:
    """Read `--tmpfs`: `/target[:size=64m,mode=1777,ro,exec]`."""
    target, _, options = word.partition(":")
    limit, mode, read_only, executable = None, 0o1777, False, False
    for option in options.split(",") if options else []:
        name, equals, value = option.partition("=")
        match name:
            case "size" if equals:
                limit = quantities.limit_size(value)
            case "mode" if equals:
                mode = quantities.octal_mode(value)
            case "ro" | "rw" if not equals:
                read_only = name == "ro"
            case "exec" | "noexec" if not equals:
                executable = name == "exec"
            case "nosuid" | "nodev" if not equals:
                pass  # every tmpfs of a container is mounted so
            case _:
                raise UsageError(
                    f"unknown option {option!r}; there are size=, mode=, ro, rw, exec and noexec; "
                    "a tmpfs is always nosuid and nodev"
                )
    return Tmpfs(_target(target), limit, mode, read_only, executable)


def device(word: str) -> Device:
    """Read `--device`: `/dev/x[:/dev/y][:rwm]`."""
    source, *rest = word.split(":")
    target, permissions = source, "rwm"
    if len(rest) == 1:
        if _are_permissions(rest[0]):
            permissions = rest[0]
        else:
            target = rest[0]
    elif len(rest) == 2:
        target, permissions = rest
    elif rest:
        raise UsageError("write /dev/x[:/dev/y][:rwm]")
    if not source.startswith("/") or not target.startswith("/"):
        raise UsageError("a device is written with its absolute path, /dev/x[:/dev/y][:rwm]")
    if not _are_permissions(permissions):
        raise UsageError(f"unknown permissions {permissions!r}; they are any of r, w and m")
    return Device(_host_path(source), _target(target), permissions)


def _are_permissions(word: str) -> bool:
    return bool(word) and set(word) <= set("rwm") and len(set(word)) == len(word)

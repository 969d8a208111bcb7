"""RunOptions as JSON and back, exactly: what a container was asked to be, kept so that it can be started again.

Only what differs from the defaults is written, so a field that a later version adds has its default in what earlier
ones wrote. Values are objects that name their class; tuples are arrays. What this version does not know is refused, not
left out: a container must not come back with less isolation than it was made with.
"""

import json
from functools import lru_cache
from typing import Any

from pyrtc import options as words
from pyrtc.errors import StoreError
from pyrtc.options import RunOptions
from pyrtc.runtime.cgroups import DeviceRule, Limits

__all__ = ["VERSION", "dump_options", "dump_usage", "load_options"]

VERSION = 1
_CLASS = "is"
_CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        *(getattr(words, name) for name in words.__all__ if hasattr(getattr(words, name), "__field_defaults__")),
        DeviceRule,
        Limits,
    )
}


@lru_cache(maxsize=128)
def dump_options(options: RunOptions) -> bytes:
    """Return the options as JSON.

    Raises
    ------
    TypeError: one holds what no option is made of.
    """
    return json.dumps({"version": VERSION, "options": _dump(options)}, separators=(",", ":")).encode()


@lru_cache(maxsize=128)
def load_options(text: bytes) -> RunOptions:
    """Return the options that `dump_options` wrote.

    Raises
    ------
    StoreError: the text is none of its, or a later version's. UsageError: this machine has less than the one where the
    container was made, for example fewer CPUs.
    """
    try:
        said = json.loads(text)
        if said["version"] != VERSION:
            raise StoreError(
                f"a container was recorded by a newer pyrtc (format {said['version']}, this one knows {VERSION}): "
                "upgrade pyrtc"
            )
        options = _load(said["options"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, StoreError) or type(error).__name__ == "UsageError":
            raise
        raise StoreError(f"the record of a container's options is damaged or a newer pyrtc's: {error!r}") from error
    if not isinstance(options, RunOptions):
        raise StoreError("the record of a container's options is damaged: it is no object of options")
    return options


def _dump(value: Any) -> Any:  # noqa: ANN401  (JSON)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return [_dump(item) for item in value]
    cls = type(value)
    if _CLASSES.get(cls.__name__) is not cls:
        raise TypeError(f"no option is made of {cls.__name__}: {value!r}")
    said: dict[str, Any] = {_CLASS: cls.__name__}
    for name in cls.__slots__:
        item = getattr(value, name)
        if not _is_default(cls, name, item):
            said[name] = _dump(item)
    return said


def _is_default(cls: Any, name: str, item: object) -> bool:  # noqa: ANN401  (a value class)
    if name not in cls.__field_defaults__:
        return False
    default = cls.__field_defaults__[name]
    if hasattr(default, "make"):
        default = default.make()
    # True == 1 and 1 == 1.0, and the text must tell them apart.
    return type(default) is type(item) and bool(default == item)


def _load(value: Any) -> Any:  # noqa: ANN401  (JSON)
    if isinstance(value, list):
        return tuple(_load(item) for item in value)
    if isinstance(value, dict):
        fields = {name: _load(item) for name, item in value.items() if name != _CLASS}
        return _CLASSES[value[_CLASS]](**fields)
    return value


def dump_usage(usage: Any) -> bytes:  # noqa: ANN401  (pyrtc.container.Usage, which stands above the store)
    """Return what a container used as JSON."""
    return json.dumps({name: getattr(usage, name) for name in usage.__slots__}, separators=(",", ":")).encode()

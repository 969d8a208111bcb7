"""The settings of a store: whether compressed layers are kept, and which other stores are read.

Each comes from the first of these that says something: the argument (`Engine(blobs=...)`), the environment
(``PYRTC_BLOBS``, ``PYRTC_ADDITIONAL_STORES``), ``config.toml`` in the store's directory, ``/etc/pyrtc/config.toml``::

    blobs = "keep"                          # or "drop"
    additional_stores = ["/srv/pyrtc"]
    shared = true                           # in the store's own file only: other users may read this store
"""

import os
from collections.abc import Sequence
from typing import Any, Literal, cast

from pyrtc.errors import StoreError, UsageError
from pyrtc.values import dataclass

__all__ = ["BlobPolicy", "Settings", "read_settings"]

BlobPolicy = Literal["keep", "drop"]

SYSTEM_FILE = "/etc/pyrtc/config.toml"
_MAX_FILE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Settings:
    """What was decided for one open store.

    blobs: ``keep``: a layer's compressed form stays in the store, so that it can be pushed and saved byte for byte as
    it came; ``drop``: only its tree stays, and a push or save makes the compressed form again. additional_stores: roots
    of stores whose images and layers are used and never written. shared: other users may read this store, which then
    must be on a mount without set-uid programs, unless it is ``trusted``.
    """

    blobs: BlobPolicy = "keep"
    additional_stores: tuple[str, ...] = ()
    shared: Literal[False, True, "trusted"] = False


def read_settings(
    root: str, *, blobs: str | None = None, additional_stores: Sequence[str | os.PathLike[str]] | None = None
) -> Settings:
    """Decide the settings of the store at root.

    Raises
    ------
    UsageError: an argument or variable has a value that cannot be. StoreError: so has a file, or it cannot be read.
    """
    files = [(path, _read(path)) for path in (f"{root}/config.toml", SYSTEM_FILE)]
    found_blobs = blobs or os.environ.get("PYRTC_BLOBS") or ""
    if found_blobs not in ("", "keep", "drop"):
        raise UsageError(f"blobs is {found_blobs!r}: say keep or drop")
    stores: Sequence[str] | None = None
    if additional_stores is not None:
        stores = [os.fspath(store) for store in additional_stores]
    elif "PYRTC_ADDITIONAL_STORES" in os.environ:
        stores = [store for store in os.environ["PYRTC_ADDITIONAL_STORES"].split(":") if store]
    for path, said in files:
        if not found_blobs:
            found_blobs = _choice(said, path)
        if stores is None:
            stores = _paths(said, path)
    for store in stores or ():
        if not store.startswith("/"):
            raise UsageError(f"the additional store {store!r} is no absolute path")
    shared = files[0][1].get("shared", False)
    if not isinstance(shared, bool) and shared != "trusted":
        raise StoreError(f'{files[0][0]}: shared is {shared!r}: write true, false or "trusted"')
    # A store cannot be its own addition: images would be found twice.
    others = dict.fromkeys(os.path.realpath(store) for store in stores or ())
    others.pop(root, None)
    return Settings(cast(BlobPolicy, found_blobs or "keep"), tuple(others), shared)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StoreError(f"cannot read the settings in {path}: {error.strerror}") from error
    import tomllib  # milliseconds that nobody without a file has to pay

    try:
        if len(content) > _MAX_FILE:
            raise ValueError("it is larger than 1 MiB")
        said = tomllib.loads(content.decode())
    except ValueError as error:
        raise StoreError(f"cannot read the settings in {path}: {error}") from error
    for key in said:
        if key not in ("blobs", "additional_stores", "shared"):
            raise StoreError(f"{path}: unknown setting {key}: there are blobs, additional_stores and shared")
    return said


def _choice(said: dict[str, Any], path: str) -> str:
    value = said.get("blobs", "")
    if value not in ("", "keep", "drop"):
        raise StoreError(f'{path}: blobs is {value!r}: write "keep" or "drop"')
    return str(value)


def _paths(said: dict[str, Any], path: str) -> list[str] | None:
    value = said.get("additional_stores")
    if value is not None and (not isinstance(value, list) or not all(isinstance(item, str) for item in value)):
        raise StoreError(f"{path}: additional_stores must be a list of directories")
    return value

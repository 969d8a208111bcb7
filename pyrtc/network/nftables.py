"""Commands to nftables, and what it answers, in this thread's network namespace."""

from typing import Any

from pyrtc.core import nft
from pyrtc.errors import NetworkError, UnsupportedError

__all__ = ["KERNEL", "Missing", "Taken", "listing", "run"]

KERNEL = (
    "this kernel lacks a part of nftables (nf_tables, nft_ct, nft_fib_inet, nft_nat, nft_masq): load the modules, or "
    "take a kernel that has them"
)


class Missing(NetworkError):
    """What a command is about is not there: a table, a chain, a set, an element."""


class Taken(NetworkError):
    """There is another element of that key."""


def run(commands: str) -> str:
    """Run commands, all or none of them, and return what they print.

    Raises
    ------
    Missing, Taken: something is not there, or is there already.
    NetworkError: they are refused for another reason.
    UnsupportedError: nftables is not installed, or the kernel has it not or in part.
    """
    try:
        return nft(commands)
    except UnsupportedError:
        raise
    except NetworkError as error:
        raise _explained(str(error)) from None


def _explained(text: str) -> NetworkError | UnsupportedError:
    said = text.partition("\n")[0]  # the rest is the command, with marks under its words
    if "No such file or directory" in text:
        return Missing(said)
    if "File exists" in text:
        return Taken(said)
    if "not supported" in text:
        return UnsupportedError(f"{said}: {KERNEL}")
    if "not permitted" in text:
        return NetworkError(f"{said}: networks on this machine are root's")
    return NetworkError(said)


def listing(kind: str, **what: str) -> list[dict[str, Any]]:
    """Return what nftables lists: `listing("table", family="inet", name="pyrtc")`, `listing("chains")`.

    Raises
    ------
    Missing: there is none of that name.
    NetworkError, UnsupportedError: as for `run`.
    """
    import json

    found: list[dict[str, Any]] = json.loads(run(json.dumps({"nftables": [{"list": {kind: what or None}}]})))[
        "nftables"
    ]
    return found

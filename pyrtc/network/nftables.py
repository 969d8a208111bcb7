"""Commands to nftables, and what it answers, in this thread's network namespace."""

from typing import Any

from pyrtc.core import nft
from pyrtc.errors import NetworkError

__all__ = ["Missing", "Taken", "listing", "run"]


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
    UnsupportedError: nftables is not installed.
    """
    try:
        return nft(commands)
    except NetworkError as error:
        if "No such file or directory" in str(error):
            raise Missing(str(error)) from None
        if "File exists" in str(error):
            raise Taken(str(error)) from None
        raise


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

"""Commands to nftables, and what it answers, in this thread's network namespace."""

from typing import Any

from pyrtc.errors import NetworkError

__all__ = ["Missing", "Taken", "listing", "run"]


class Missing(NetworkError):
    """What a command is about is not there: a table, a chain, a set, an element."""


class Taken(NetworkError):
    """There is another element of that key."""


def run(commands: str, *, json: bool = False) -> str:
    """Run commands, all or none of them, and return what they print.

    Raises
    ------
    Missing, Taken: something is not there, or is there already.
    NetworkError: they are refused for another reason.
    UnsupportedError: nftables is not installed.
    """
    try:
        return _nft(commands, json=json)
    except NetworkError as error:
        if "No such file or directory" in str(error):
            raise Missing(str(error)) from None
        if "File exists" in str(error):
            raise Taken(str(error)) from None
        raise


def listing(kind: str, *name: str) -> list[dict[str, Any]]:
    """Return what `nft -j list` says: `listing("table", "inet", "pyrtc")`, `listing("chains")`.

    Raises
    ------
    Missing: there is none of that name.
    NetworkError, UnsupportedError: as for `run`.
    """
    import json

    found: list[dict[str, Any]] = json.loads(run(f"list {kind} {' '.join(name)}", json=True))["nftables"]
    return found


def _nft(commands: str, *, json: bool) -> str:
    import subprocess

    done = subprocess.run(
        ["nft", "-j", commands] if json else ["nft", "-f", "-"],
        input=commands,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NetworkError(f"nftables: {done.stderr.strip()}")
    return done.stdout

"""What is said of where a container may connect to: read from words, which stand for addresses or for names.

none                    nothing
10.0.0.0/8, 192.0.2.7   a subnet, an address
local                   the subnets of the container's own networks
example.com             what this name resolves to
*.example.com           what the names below it do, at any depth
.example.com            both
"""

import re
from collections.abc import Iterable

from pyrtc.errors import UsageError

__all__ = ["LOCAL", "check_egress", "egress", "names_in", "subnets_in"]

LOCAL = "local"
_MOST = 10_000  # words
_LONGEST = 253  # of a name in DNS, as text
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*?\.)?(?P<base>(?:{_LABEL}\.)*(?P<last>{_LABEL}))")
_KNOWN = (
    "there are addresses, subnets such as 10.0.0.0/8, names such as example.com and *.example.com, and local, the "
    "container's own networks"
)


def egress(word: str) -> tuple[str, ...]:
    """Read where a container may connect to: `none`, or `10.0.0.0/8,192.0.2.7,local,*.example.com`.

    Names are returned in small letters and without a dot at their end, addresses as subnets.

    Raises
    ------
    UsageError: a word that is no address, subnet, name or `local`; more than 10,000 of them.
    """
    if word == "none":
        return ()
    found = tuple(dict.fromkeys(_allowed(item) for item in word.split(",")))
    _check_number(found)
    return found


def names_in(allowed: "Iterable[str] | None") -> tuple[str, ...] | None:
    """Return the names, and patterns of names, among what `egress` returned; None: every name may be asked for."""
    return None if allowed is None else tuple(word for word in allowed if word != LOCAL and "/" not in word)


def subnets_in(allowed: "Iterable[str]") -> tuple[str, ...]:
    """Return the subnets among what `egress` returned."""
    return tuple(word for word in allowed if "/" in word)


def check_egress(allowed: tuple[str, ...]) -> None:
    """Refuse words that `egress` would not return.

    Raises
    ------
    UsageError: says which, and how it is written.
    """
    _check_number(allowed)
    for word in allowed:
        read = _allowed(word)
        if read != word:
            raise UsageError(f"{word!r} of egress has to be written as {read}")


def _check_number(allowed: tuple[str, ...]) -> None:
    if len(allowed) > _MOST:
        raise UsageError(f"{len(allowed)} addresses and names are more than --egress takes, {_MOST}")


def _allowed(item: str) -> str:
    if item == LOCAL:
        return item
    base, slash, _ = item.partition("/")
    if not slash and ":" not in item and not item[-1:].isdigit():
        return _name(item)
    from pyrtc.ip import number, parse_subnet

    try:
        family, _ = number(base)
    except UsageError:
        if slash or ":" in item:
            raise UsageError(f"{item!r} is no address and no subnet such as 10.0.0.0/8 or 2001:db8::/32") from None
        return _name(item)
    return str(parse_subnet(item if slash else f"{item}/{32 if family == 4 else 128}"))


def _name(item: str) -> str:
    """Read a name of the internet's; as it is asked for."""
    if not item.isascii():
        raise UsageError(f"{item!r} is not as DNS writes a name: write the form that begins with xn--")
    name = item.lower().removesuffix(".")
    found = _NAME.fullmatch(name)
    if found is None or len(found["base"]) > _LONGEST:
        raise UsageError(f"{item!r} is nothing to connect to: {_KNOWN}")
    if found["last"].isdigit():
        raise UsageError(f"{item!r} is neither an address nor a name, which does not end with a number")
    if found["last"] == name:
        raise UsageError(
            f"{item!r} is no name that others resolve, for it has no dot; {_KNOWN}, with which containers are reached"
        )
    return name

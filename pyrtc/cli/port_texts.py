"""Published ports as Docker writes them: in a column of `ps`, in `port`, and in `inspect`."""

from collections.abc import Iterable, Sequence

from pyrtc.options import Port

__all__ = ["bindings", "column", "destinations", "name"]

_EVERY = ("0.0.0.0", "::")  # noqa: S104  (words)


def name(port: Port) -> str:
    """Return a port of a container as `80/tcp`."""
    return f"{port.container}/{port.protocol}"


def _places(port: Port) -> tuple[str, ...]:
    return (port.ip,) if port.ip else _EVERY


def _destination(address: str, number: int | str) -> str:
    return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"


def destinations(port: Port) -> tuple[str, ...]:
    """Return where on this machine a port is reached, as `0.0.0.0:8080` and `[::]:8080`."""
    return tuple(_destination(address, port.host) for address in _places(port))


def bindings(ports: Iterable[Port]) -> dict[str, list[dict[str, str]] | None]:
    """Return the object that `inspect` has of ports; what is only exposed is null."""
    found: dict[str, list[dict[str, str]] | None] = {}
    for port in ports:
        if not port.host:
            found.setdefault(name(port), None)
            continue
        places = [{"HostIp": address, "HostPort": str(port.host)} for address in _places(port)]
        found[name(port)] = [*(found.get(name(port)) or []), *places]
    return found


def column(ports: Sequence[Port]) -> str:
    """Return what `ps` shows: published ports, then those that are only exposed; neighbours as ranges."""
    published = [(address, port) for port in ports if port.host for address in _places(port)]
    # Of one address and protocol, where the port on both sides goes up by one.
    keys = sorted((":" in address, address, port.protocol, port.container, port.host) for address, port in published)
    texts, run = list[tuple[int, str]](), list[tuple[bool, str, str, int, int]]()
    for key in keys:
        if run and (*run[-1][:3], run[-1][3] + 1, run[-1][4] + 1) != key:
            texts.append(_published(run))
            run = []
        run.append(key)
    texts += [_published(run)] if run else []
    texts.sort(key=lambda text: text[0])  # by the port of the container; IPv4 stays before IPv6
    exposed = sorted({(port.protocol, port.container) for port in ports if not port.host})
    return ", ".join([text for _number, text in texts] + _exposed(exposed))


def _published(run: Sequence[tuple[bool, str, str, int, int]]) -> tuple[int, str]:
    _six, address, protocol, inside, outside = run[0]
    more = len(run) - 1
    host = f"{outside}-{outside + more}" if more else str(outside)
    container = f"{inside}-{inside + more}" if more else str(inside)
    return inside, f"{_destination(address, host)}->{container}/{protocol}"


def _exposed(ports: Sequence[tuple[str, int]]) -> list[str]:
    texts, first = list[str](), 0
    for index, (protocol, number) in enumerate(ports):
        if index + 1 < len(ports) and ports[index + 1] == (protocol, number + 1):
            continue
        begin = ports[first][1]
        texts.append(f"{begin}-{number}/{protocol}" if begin != number else f"{number}/{protocol}")
        first = index + 1
    return texts

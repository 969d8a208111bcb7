"""Points in time as images and people write them, in seconds since the epoch."""

__all__ = ["created_at", "nanoseconds", "until"]


def created_at(created: str, loaded: float) -> float:
    """Return when an image was made (RFC 3339), in seconds since the epoch; when it came where it does not say."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(created[:19] + ("+00:00" if created[-1] in "Zz" else created[-6:])).timestamp()
    except (ValueError, IndexError, OverflowError):
        return loaded


def until(text: str) -> float:
    """Read what people write after ``until=``, as `nanoseconds` does, in seconds since the epoch.

    Raises
    ------
    ValueError: it is neither a length of time nor a moment.
    """
    return nanoseconds(text) / 1e9


def nanoseconds(text: str) -> int:
    """Read a moment as people write it, in nanoseconds since the epoch.

    That is a length of time before now (``24h``, ``1h30m``, ``1.5h``), RFC 3339 (``2026-11-24T09:33:54.123456789Z``,
    ``2026-11-24T09:33``, ``2026-11-24``; without an offset in local time), or seconds since the epoch with up to nine
    digits after the point.

    Raises
    ------
    ValueError: it is none of these.
    """
    import re
    import time
    from datetime import datetime

    units = {"d": 86400_000_000_000, "h": 3600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000}
    units |= {"ms": 1_000_000, "us": 1_000, "ns": 1}
    part = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ms|us|ns|[dhms])"
    if re.fullmatch(f"(?:{part})+", text):
        length = sum(_scaled(number, units[unit]) for number, unit in re.findall(part, text))
        return time.time_ns() - length
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,18})?", text):
        return _scaled(text, 1_000_000_000)
    # datetime knows microseconds: the digits after the point are read here.
    match = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(\.[0-9]{1,9})?)?"
        r"([Zz]|[+-][0-9]{2}:[0-9]{2})?",
        text,
    )
    if match is None:
        raise ValueError(f"not a moment: {text}")
    day, clock, fraction, offset = match.groups()
    offset = "+00:00" if offset in ("Z", "z") else offset or ""
    try:
        whole = datetime.fromisoformat(f"{day}T{clock or '00:00'}{offset}").timestamp()
    except OverflowError:
        raise ValueError(f"not a moment of this calendar: {text}") from None
    return int(whole) * 1_000_000_000 + _scaled(f"0{fraction or '.0'}", 1_000_000_000)


def _scaled(number: str, unit: int) -> int:
    """Multiply a decimal number exactly: a float has too few digits for nanoseconds since the epoch."""
    whole, _, fraction = number.partition(".")
    part: int = int(fraction or "0") * unit // 10 ** len(fraction)
    return int(whole) * unit + part

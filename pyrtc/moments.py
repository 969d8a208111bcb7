"""Points in time as images and people write them, in seconds since the epoch."""

__all__ = ["created_at", "until"]


def created_at(created: str, loaded: float) -> float:
    """Return when an image was made (RFC 3339), in seconds since the epoch; when it came where it does not say."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(created[:19] + ("+00:00" if created[-1] in "Zz" else created[-6:])).timestamp()
    except (ValueError, IndexError, OverflowError):
        return loaded


def until(text: str) -> float:
    """Read what people write after ``until=``: a length of time (``24h``, ``1h30m``), or a moment (RFC 3339, seconds).

    Raises
    ------
    ValueError: it is neither.
    """
    import re
    import time
    from datetime import datetime

    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    if re.fullmatch(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[dhms]))+", text):
        parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])", text)
        return time.time() - sum(float(number) * units[unit] for number, unit in parts)
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
        return float(text)
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()

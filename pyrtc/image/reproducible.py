"""The time at which things are made, which SOURCE_DATE_EPOCH sets so that the same input gives the same bytes.

https://reproducible-builds.org/specs/source-date-epoch
"""

import os
import time
from datetime import UTC, datetime

from pyrtc.errors import UsageError

__all__ = ["created_now", "latest_time"]


def latest_time() -> int | None:
    """Return SOURCE_DATE_EPOCH, beyond which no file of a new layer may have been changed; None where it is not set.

    Raises
    ------
    UsageError: it is no number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise UsageError(f"SOURCE_DATE_EPOCH={text!r}: write seconds since 1970, or unset the variable")
    return int(text)


def created_now() -> str:
    """Return what a new image says about when it was made (RFC 3339). Raises as `latest_time` does."""
    latest = latest_time()
    moment = datetime.fromtimestamp(time.time() if latest is None else latest, UTC)
    return moment.isoformat().replace("+00:00", "Z")

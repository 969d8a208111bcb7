"""The descriptors of this process: which there are, and which a test has left open.

Not their numbers: listing a directory opens one itself, and other tests' garbage may close some at any moment.
"""

import gc
import os
import time
from contextlib import suppress

__all__ = ["descriptors", "left_open"]

PATIENCE = 10.0  # seconds for what other threads are about to close


def descriptors() -> dict[str, str]:
    """Return what each descriptor leads to; without that of the listing itself, which is closed when it is read."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def left_open(before: dict[str, str]) -> dict[str, str]:
    """Return what is open now and was not before; waits for it to be closed."""
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    while True:
        now = descriptors()
        new = {name: link for name, link in now.items() if before.get(name) != link}
        # The same thing may have got another number: one that is gone makes up for one that came.
        gone = [link for name, link in before.items() if now.get(name) != link]
        for name, link in list(new.items()):
            if link in gone:
                gone.remove(link)
                del new[name]
        if not new or time.monotonic() > deadline:
            return new
        time.sleep(0.05)

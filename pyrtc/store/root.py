"""Where the store of this user is."""

import os

__all__ = ["default_root", "is_rootless"]

_WHOLE_ID_RANGE = ["0", "0", "4294967295"]


def default_root() -> str:
    """Return where the store is when nobody says.

    ``$PYRTC_ROOT``, else ``/var/lib/pyrtc`` for root and ``$XDG_DATA_HOME/pyrtc`` (``~/.local/share/pyrtc``) for
    others.
    """
    chosen = os.environ.get("PYRTC_ROOT")
    if chosen:
        return chosen
    if not is_rootless():
        return "/var/lib/pyrtc"
    data = os.environ.get("XDG_DATA_HOME")
    # The XDG base directory specification: a relative path is to be ignored.
    base = data if data and data.startswith("/") else os.path.expanduser("~/.local/share")
    return f"{base}/pyrtc"


def is_rootless() -> bool:
    """Say whether this process lacks root's rights on the machine: another user, or root of a user namespace only."""
    if os.geteuid() != 0:
        return True
    with open("/proc/self/uid_map") as file:
        return file.read().split() != _WHOLE_ID_RANGE

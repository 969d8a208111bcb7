"""The keys that leave a container running: `--detach-keys ctrl-p,ctrl-q`."""

from pyrtc.errors import UsageError

__all__ = ["DEFAULT", "DetachKeys", "detach_keys"]

DEFAULT = "ctrl-p,ctrl-q"
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def detach_keys(word: str) -> bytes:
    """Read a sequence of keys as Docker writes it: single characters and ctrl-X, with commas between; "" means none.

    Raises
    ------
    UsageError: a key that is none.
    """
    if not word:
        return b""
    return bytes(_key(name) for name in word.split(","))


def _key(name: str) -> int:
    if len(name) == 1 and name.isascii():
        return ord(name)
    letter = name.lower().removeprefix("ctrl-")
    if name.lower().startswith("ctrl-") and len(letter) == 1:
        if "a" <= letter <= "z":
            return ord(letter) - ord("a") + 1
        if letter in _CONTROL:
            return _CONTROL[letter]
    raise UsageError(f"unknown key {name!r}: a key is a character or ctrl- and one of a-z, @, [, \\, ], ^ or _")


class DetachKeys:
    """Looks for a sequence of keys in what is typed.

    What could be its beginning is held back until it is known not to be.

    Parameters
    ----------
    keys: what `detach_keys` returned; b"" is never found.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on, and whether the sequence was completed; what follows it is dropped."""
        if not self._keys:
            return typed, False
        data = self._held + typed
        at = data.find(self._keys)
        if at >= 0:
            self._held = b""
            return data[:at], True
        held = next(size for size in range(len(self._keys) - 1, -1, -1) if data.endswith(self._keys[:size]))
        self._held = data[len(data) - held :]
        return data[: len(data) - held], False

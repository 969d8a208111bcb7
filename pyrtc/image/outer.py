"""The outer tar of an image archive, indexed without unpacking: name -> place in the file.

A reader of its own, because only plain members matter, the file is hostile, and layers are read by offset from several
threads. It knows ustar, PAX and GNU long names; anything a reader could see in two ways (a name twice, sparse members)
is refused.
"""

import os
import posixpath

from pyrtc.errors import ImageError
from pyrtc.image.unpack import Region
from pyrtc.values import dataclass

__all__ = ["OuterTar"]

_BLOCK = 512
_MAX_MEMBERS = 100_000
_MAX_EXTENSION = 1 << 20  # bytes of one PAX or GNU extension header
_MAX_LINKS = 8
_REGULAR = b"\x000" + b"7"


@dataclass(frozen=True, slots=True)
class _Member:
    kind: str  # "file", "link" (symbolic), "hard", "directory", "other"
    offset: int
    size: int
    target: str


class OuterTar:
    """The index of one tar file.

    Parameters
    ----------
    fd: the open file. what: names it in errors.

    Raises
    ------
    ImageError: it is damaged, cut short, ambiguous or beyond the limits.
    """

    def __init__(self, fd: int, what: str) -> None:
        self._fd = fd
        self._what = what
        self._size = os.fstat(fd).st_size
        self._members: dict[str, _Member] = {}
        self._index()

    def __contains__(self, name: str) -> bool:
        """Say whether there is a member of this name."""
        return name in self._members

    def file(self, name: str) -> Region:
        """Return where the content of a file lies; links inside the archive are followed.

        Raises
        ------
        ImageError: there is no such file, or a link leads out of the archive or in a circle.
        """
        asked = name
        name = _clean(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if member is None:
                raise ImageError(f"{self._what} has no {asked!r}")
            if member.kind == "file":
                return Region(self._fd, member.offset, member.size, f"{asked} in {self._what}")
            if member.kind == "link":
                # Docker before 1.13 stored a layer once and linked to it.
                name = _clean(posixpath.join(posixpath.dirname(name), member.target))
            elif member.kind == "hard":
                name = _clean(member.target)
            else:
                raise ImageError(f"{asked!r} in {self._what} is no regular file")
            if not name:
                raise ImageError(f"{asked!r} in {self._what} is a link that leads out of the archive")
        raise ImageError(f"{asked!r} in {self._what} is a link that leads in a circle")

    def _index(self) -> None:
        offset = 0
        extension: dict[str, str] = {}
        count = 0
        while True:
            header = os.pread(self._fd, _BLOCK, offset)
            if len(header) < _BLOCK:
                # Docker and others end with two blocks of zeros, some tools with nothing at all.
                if header or not self._members:
                    raise ImageError(f"{self._what} is cut short or no tar archive")
                return
            if not any(header):
                if not self._members:
                    raise ImageError(f"{self._what} is empty")
                return
            count += 1
            if count > _MAX_MEMBERS:
                raise ImageError(f"{self._what} has more than {_MAX_MEMBERS} members: this is no image archive")
            self._check_sum(header, offset)
            kind = header[156:157]
            size = self._number(header[124:136], "size")
            body = offset + _BLOCK
            if kind in b"xLKgXVMN" and kind:
                extension |= self._extension(kind, body, size)
            else:
                # Links, devices and directories have no body, whatever size they claim (Go's reader, so Docker's, too).
                size = 0 if kind in b"123456" and kind else self._extended_size(extension, size)
                self._add(header, kind, extension, body, size)
                extension = {}
            if body + size > self._size:
                raise ImageError(f"{self._what} is cut short in the member at byte {offset}")
            offset = body + (size + _BLOCK - 1) // _BLOCK * _BLOCK

    def _check_sum(self, header: bytes, offset: int) -> None:
        total = sum(header) - sum(header[148:156]) + 8 * 0x20
        try:
            right = self._number(header[148:156], "checksum") == total
        except ImageError:
            right = False
        if not right:
            raise ImageError(f"{self._what} is no tar archive, or damaged at byte {offset}")

    def _number(self, field: bytes, name: str) -> int:
        if field[0] & 0x80:
            value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
            if field[0] & 0x40 or value >> 62:
                raise ImageError(f"{self._what} has a member with an impossible {name}")
            return value
        text = field.strip(b" \0")
        try:
            if any(byte not in b"01234567" for byte in text):
                raise ValueError(text)
            return int(text, 8) if text else 0
        except ValueError:
            raise ImageError(f"{self._what} has a member with a damaged {name}") from None

    def _extension(self, kind: bytes, body: int, size: int) -> dict[str, str]:
        if size > _MAX_EXTENSION:
            raise ImageError(f"{self._what} has an extended header of {size} bytes; {_MAX_EXTENSION} are allowed")
        content = os.pread(self._fd, size, body)
        if len(content) < size:
            raise ImageError(f"{self._what} is cut short in an extended header")
        if kind == b"x":
            return self._pax(content)
        if kind in b"LK":
            return {"path" if kind == b"L" else "linkpath": os.fsdecode(content.partition(b"\0")[0])}
        return {}  # global headers and vendors' own say nothing about where a file lies

    def _pax(self, content: bytes) -> dict[str, str]:
        records: dict[str, str] = {}
        position = 0
        while position < len(content):
            space = content.find(b" ", position, position + 20)
            digits = content[position:space] if space > 0 else b""
            end = position + int(digits) if digits.isdigit() else 0
            record = content[space + 1 : end]
            key, equals, value = record.partition(b"=")
            if not space < end <= len(content) or not record.endswith(b"\n") or not equals or b"\0" in key:
                raise ImageError(f"{self._what} has a damaged extended header")
            records[os.fsdecode(key)] = os.fsdecode(value[:-1])
            position = end
        return records

    def _extended_size(self, extension: dict[str, str], size: int) -> int:
        # The one size that counts, for this member and for where the next begins (CVE-2025-62518).
        text = extension.get("size")
        if not text:
            return size
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise ImageError(f"{self._what} has a member with a damaged size")
        return int(text)

    def _add(self, header: bytes, kind: bytes, extension: dict[str, str], body: int, size: int) -> None:
        name = os.fsdecode(header[:100].partition(b"\0")[0])
        if header[257:263] == b"ustar\0" and header[345]:
            name = f"{os.fsdecode(header[345:500].partition(bytes(1))[0])}/{name}"
        name = extension.get("path") or name
        target = extension.get("linkpath") or os.fsdecode(header[157:257].partition(b"\0")[0])
        sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in extension)
        if kind in _REGULAR:
            form = "directory" if name.endswith("/") else "file"
        else:
            form = {b"1": "hard", b"2": "link", b"5": "directory"}.get(kind, "other")
        clean = _clean(name)
        if not clean:
            if form == "directory":
                return  # "./"
            raise ImageError(f"{self._what} has a member with the name {name[:100]!r}, which leads out of it")
        if sparse:
            form = "other"
        known = self._members.get(clean)
        if known is not None and (known.kind, form) != ("directory", "directory"):
            raise ImageError(f"{self._what} has two members with the name {clean[:100]!r}")
        self._members[clean] = _Member(form, body, size, target)


def _clean(name: str) -> str:
    """Return a name without ``./`` and doubled slashes; empty for one that is absolute or climbs out."""
    if name.startswith("/") or "\0" in name:
        return ""
    clean = posixpath.normpath(name) if name else "."
    return "" if clean in (".", "..") or clean.startswith("../") else clean

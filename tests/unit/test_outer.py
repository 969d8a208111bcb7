import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tar_builder import END, directory, extension, file, hardlink, header, pad, pax, stream, symlink

from pyrtc.errors import ImageError
from pyrtc.image.outer import OuterTar


def read(data: bytes, name: str) -> bytes:
    with stream(data) as fd:
        return OuterTar(fd, "the archive").file(name).read(1 << 20)


def refuse(data: bytes, reason: str, name: str = "a") -> None:
    with pytest.raises(ImageError, match=reason):
        read(data, name)


@pytest.mark.parametrize(
    "data",
    [
        file("a", b"content") + END,
        file("./a", b"content") + END,
        directory("./") + file("a", b"content") + END,
        file("b", b"x" * 513) + file("a", b"content") + file("c") + END,
        file("a", b"content"),
        file("a", b"content") + END + b"garbage after the end",
        file("a", b"content", magic=b"ustar  \0") + END,
        file("a", b"content", magic=bytes(8)) + END,
        pax(("path", "a")) + file("long", b"content") + END,
        pax(("comment", "x"), type="g") + file("a", b"content") + END,
        extension(b"a\0", "L") + file("long", b"content") + END,
        pax(("size", "7")) + header("a", size=0) + pad(b"content") + END,
        symlink("a", "b") + file("b", b"content") + END,
        symlink("a", "d/b") + symlink("d/b", "../c") + file("c", b"content") + END,
        hardlink("a", "c/b", size=100) + file("c/b", b"content") + END,
        directory("d/") + directory("d/") + file("a", b"content") + END,
    ],
)
def test_found(data: bytes) -> None:
    assert read(data, "a") == b"content"


def test_ustar_prefix() -> None:
    data = header("a", size=7, prefix=b"deep/er") + pad(b"content") + END
    assert read(data, "deep/er/a") == b"content"


def test_bad_archives() -> None:
    refuse(b"", "cut short")
    refuse(END, "empty")
    refuse(b"x" * 512, "damaged|no tar")
    refuse(file("a", b"content")[:515], "cut short")
    refuse(header("a", size=1 << 40), "cut short")
    refuse(file("a", b"1") + file("a", b"2") + END, "two members")
    refuse(file("a", b"1") + file("./a", b"2") + END, "two members")
    refuse(file("a", b"1") + directory("a") + END, "two members")
    refuse(file("b") + END, "has no 'a'")
    refuse(directory("a") + END, "no regular file")
    refuse(header("a", type="6") + END, "no regular file")
    refuse(header("a", type="S", size=512) + bytes(512) + END, "no regular file")
    refuse(pax(("GNU.sparse.major", "1")) + file("a", b"1") + END, "no regular file")
    refuse(header("a", size=b"\xff" * 12) + END, "impossible size")
    refuse(header("a", size=b"9999") + END, "damaged size")
    refuse(pax(("size", "-1")) + file("a") + END, "damaged size")
    refuse(pax(("size", "9" * 30)) + file("a") + END, "damaged size")
    refuse(extension(b"5 a=b\n") + file("a") + END, "extended header")
    refuse(extension(b"99 a=b\n") + file("a") + END, "extended header")
    refuse(extension(b"abc") + file("a") + END, "extended header")
    refuse(header("x", type="x", size=2 << 20) + bytes(2 << 20) + file("a") + END, "extended header of")
    refuse(header("x", type="x", size=1000), "cut short")


@pytest.mark.parametrize("name", ["/a", "../a", "a/../../b", "..", "x/../../../etc/passwd"])
def test_members_that_lead_out(name: str) -> None:
    refuse(file(name, b"x") + END, "leads out")
    refuse(pax(("path", name)) + file("ok", b"x") + END, "leads out")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "../..", "."])
def test_links_that_lead_out(target: str) -> None:
    refuse(symlink("a", target) + END, "leads out|has no")
    refuse(hardlink("a", target) + END, "leads out|has no")


def test_links_in_a_circle() -> None:
    refuse(symlink("a", "b") + symlink("b", "a") + END, "circle")
    refuse(symlink("a", "a") + END, "circle")


def test_too_many_members(monkeypatch) -> None:
    monkeypatch.setattr("pyrtc.image.outer._MAX_MEMBERS", 10)
    refuse(b"".join(file(f"f{number}") for number in range(11)) + END, "more than 10 members")


def test_a_document_beyond_its_limit() -> None:
    with stream(file("a", b"x" * 100) + END) as fd, pytest.raises(ImageError, match="allowed"):
        OuterTar(fd, "the archive").file("a").read(99)


@given(st.binary(max_size=1536), st.integers(0, 600), st.binary(min_size=1, max_size=4))
def test_any_bytes_are_read_or_refused(tail: bytes, at: int, patch: bytes) -> None:
    data = bytearray(pax(("path", "a"), ("size", "3")) + file("b", b"123") + tail)
    data[at : at + len(patch)] = patch
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, data)
        tar = OuterTar(fd, "x")
        if "a" in tar:
            tar.file("a").read(4096)
    except ImageError:
        pass
    finally:
        os.close(fd)

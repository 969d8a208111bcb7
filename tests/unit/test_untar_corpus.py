"""Odd and hostile archives of other projects: each has a verdict, and where other readers disagree a reason.

tests/corpus/INDEX.tsv tells where the files come from and their licences, ORACLE.tsv what GNU tar, bsdtar and CPython's
tarfile make of them, VERDICTS.tsv what pyrtc does.
"""

import bz2
import csv
import gzip
import hashlib
import lzma
import os
import stat
from pathlib import Path

import pytest
from tar_builder import unpack

from pyrtc.core import UntarLimits
from pyrtc.errors import ImageError

CORPUS = Path(__file__).parents[1] / "corpus"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the verdicts count devices and owners")


def table(name: str) -> list[dict[str, str]]:
    with open(CORPUS / name, newline="") as rows:
        return list(csv.DictReader(rows, delimiter="\t", quoting=csv.QUOTE_NONE))


def read(name: str) -> bytes:
    """Return the uncompressed archive; a file whose name lies about its compression as it is."""
    data = (CORPUS / name).read_bytes()
    for suffix, magic, inflate in ((".gz", b"\x1f\x8b", gzip), (".bz2", b"BZh", bz2), (".xz", b"\xfd7zXZ", lzma)):
        if name.endswith(suffix) and data.startswith(magic):
            return inflate.decompress(data)
    return data


def test_corpus_is_whole():
    index = table("INDEX.tsv")
    for row in index:
        data = (CORPUS / row["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (int(row["bytes"]), row["sha256"])
        assert row["licence"]
    assert [row["file"] for row in index] == [row["file"] for row in table("VERDICTS.tsv")]


def test_a_verdict_that_others_do_not_share_has_its_reason():
    oracles = {row["file"]: row for row in table("ORACLE.tsv")}
    for row in table("VERDICTS.tsv"):
        oracle = oracles[row["file"]]
        others = {oracle["gnutar_1.34"], oracle["bsdtar_3.6.2"], oracle["python_3.11_tarfile"]}
        accepted = {text.startswith(("rc0", "ok")) for text in others}
        if accepted != {row["verdict"] == "ok"}:
            assert row["reason"], row["file"]


@needs_root
@pytest.mark.parametrize("row", table("VERDICTS.tsv"), ids=lambda row: row["file"])
def test_verdict(tmp_path, row):
    data = read(row["file"])
    limits = UntarLimits(bytes=1 << 30)
    if row["verdict"] == "ok":
        result = unpack(tmp_path / "r", data, end=b"", limits=limits)
        assert result.entries == int(row["entries"])
        assert result.stream_bytes == len(data)
    else:
        with pytest.raises(ImageError, match=row["entries"]):
            unpack(tmp_path / "r", data, end=b"", limits=limits)


def names(root: Path) -> set[str]:
    return {str(Path(top, name).relative_to(root)) for top, dirs, files in os.walk(root) for name in dirs + files}


@needs_root
def test_what_the_go_archives_hold(tmp_path):
    """What Go's own tests expect of these files, so that we read them as Docker, containerd and Podman do."""

    def root_of(name: str) -> Path:
        root = tmp_path / name
        unpack(root, read(f"go/{name}.tar"), end=b"")
        return root

    assert os.readlink(root_of("pax-multi-hdrs") / "bar") == "PAX4/PAX4/long-linkpath-name"
    assert os.readlink(root_of("gnu-multi-hdrs") / "GNU2/GNU2/long-path-name") == "GNU4/GNU4/long-linkpath-name"
    assert names(root_of("gnu-long-nul")) == {"0123456789"}
    assert (root_of("star") / "small.txt").read_bytes() == b"Kilts"
    sparse = root_of("sparse-formats")
    contents = {(sparse / name).read_bytes() for name in names(sparse) if name.startswith("sparse")}
    assert len(names(sparse)) == 5 and len(contents) == 1
    status = os.stat(root_of("pax-sparse-big") / "pax-sparse")
    assert status.st_size == 60_000_000_000 and status.st_blocks < 1024
    old_writer = root_of("invalid-go17")
    assert any(name.endswith("/foo") for name in names(old_writer))
    assert stat.S_ISDIR(os.stat(root_of("trailing-slash") / "/".join(["123456789"] * 30)).st_mode)
    assert os.stat(root_of("nil-uid") / "P1050238.JPG.log").st_uid == 0

"""Reading headers: formats, numbers, PAX and GNU extensions, sparse maps, and where an archive ends."""

import os
import stat

import pytest
from tar_builder import (
    END,
    GNU,
    USTAR,
    V7,
    directory,
    extension,
    file,
    hardlink,
    header,
    pad,
    pax,
    record,
    symlink,
    unpack,
)

from pyrtc.core import UntarLimits
from pyrtc.errors import ImageError

AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="needs root: gives files to other owners, makes devices")


# ---- the end, and what is behind it ----


@pytest.mark.parametrize("pipe", [False, True])
def test_everything_is_read_to_the_end_of_the_stream(tmp_path, pipe):
    body = file("x", b"1" * 3_000_000)
    result = unpack(tmp_path / "r", body, END + file("hidden") + b"garbage" * 300_000, pipe=pipe)
    assert os.listdir(tmp_path / "r") == ["x"]
    assert result.stream_bytes == len(body) + 1024 + 512 + 7 * 300_000 + 1024


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240), bytes(1500)])
def test_end_may_be_missing_or_padded(tmp_path, end):
    assert unpack(tmp_path / "r", file("x", b"1"), end=end).entries == 1


def test_empty_stream_is_an_empty_layer(tmp_path):
    assert unpack(tmp_path / "r", end=b"").entries == 0


def test_one_zero_block_in_the_middle_is_refused(tmp_path):
    with pytest.raises(ImageError, match="a single block of zeros"):
        unpack(tmp_path / "r", file("x"), bytes(512), file("y"))


@pytest.mark.parametrize("cut", [1, 511, 513, 1000, 1023])
def test_truncation_is_an_error(tmp_path, cut):
    with pytest.raises(ImageError, match="truncated"):
        unpack(tmp_path / "r", file("x", b"y" * 511)[:cut], end=b"")


def test_end_within_an_extension_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="ends behind an extended header"):
        unpack(tmp_path / "r", pax(("path", "x")))


# ---- checksums, formats ----


def test_wrong_checksum_is_refused(tmp_path):
    block = bytearray(file("x"))
    block[0] ^= 1
    with pytest.raises(ImageError, match="checksum"):
        unpack(tmp_path / "r", bytes(block))


def test_signed_checksum_is_accepted(tmp_path):
    unpack(tmp_path / "r", header(b"\xe4\xf6\xfc", signed_checksum=True))
    assert os.listdir(os.fsencode(tmp_path / "r")) == [b"\xe4\xf6\xfc"]


@pytest.mark.parametrize(
    ("magic", "path"),
    [
        (USTAR, "dir/name"),
        (b"ustar\0xx", "dir/name"),
        (GNU, "name"),
        (V7, "name"),
        (b"ustar   ", "name"),
    ],
)
def test_prefix_counts_only_where_the_format_has_one(tmp_path, magic, path):
    # GNU keeps a time there, which is a number
    prefix = b"dir" if magic != GNU else b"14071234567\0"
    unpack(tmp_path / "r", header("name", magic=magic, prefix=prefix))
    assert (tmp_path / "r" / path).is_file()


def test_prefix_in_a_gnu_header_by_old_go_writers(tmp_path):
    unpack(tmp_path / "r", header("name", magic=GNU, prefix=b"some/dir"))
    assert (tmp_path / "r/some/dir/name").is_file()


def test_star_prefix_is_shorter(tmp_path):
    patch = {345: b"p" * 131, 476: b"14071234567\0", 488: b"14071234567\0", 508: b"tar\0"}
    unpack(tmp_path / "r", header("name", patch=patch))
    assert (tmp_path / "r" / ("p" * 131) / "name").is_file()


def test_full_name_and_prefix_without_terminators(tmp_path):
    name = "/".join(["n" * 9] * 10)
    prefix = "/".join(["p" * 30] * 5)[:155]
    unpack(tmp_path / "r", header(name.ljust(100, "n"), prefix=prefix.ljust(155, "p").encode()))
    assert (tmp_path / "r" / prefix.ljust(155, "p") / name.ljust(100, "n")).is_file()


@pytest.mark.parametrize("magic", [USTAR, GNU, V7])
@pytest.mark.parametrize("type", ["0", "\0"])
def test_file_with_a_slash_at_its_end_is_a_directory(tmp_path, magic, type):
    unpack(tmp_path / "r", header("d/", type=type, magic=magic, mode=0o711), file("d/x"))
    assert (tmp_path / "r/d/x").is_file()
    with pytest.raises(ImageError, match="claims data"):
        unpack(tmp_path / "s", header("d/", type=type, magic=magic, size=512) + bytes(512))


@pytest.mark.parametrize("type", ["0", "\0", "7"])
def test_types_of_regular_files(tmp_path, type):
    unpack(tmp_path / "r", file("x", b"data", type=type))
    assert (tmp_path / "r/x").read_bytes() == b"data"


def test_gnu_directory_listing_is_a_directory(tmp_path):
    unpack(tmp_path / "r", header("d", type="D", mode=0o755, size=5, magic=GNU) + pad(b"Yx\0\0\0"), file("d/x"))
    assert (tmp_path / "r/d/x").is_file()


@pytest.mark.parametrize("type", ["V", "M", "N", "A", "E", "I", "Z"])
def test_vendor_types_are_passed_over_with_their_data(tmp_path, type):
    result = unpack(tmp_path / "r", header("v", type=type, size=700) + bytes(1024), file("x"))
    assert os.listdir(tmp_path / "r") == ["x"]
    assert (result.skipped, result.entries) == (1, 2)


@pytest.mark.parametrize("type", ["8", "9", "a", "s", "z", "\x7f", "\xff"])
def test_unknown_types_are_refused(tmp_path, type):
    with pytest.raises(ImageError, match="unknown entry type"):
        unpack(tmp_path / "r", header("v", type=type))


@pytest.mark.parametrize("type", ["1", "2", "3", "4", "5", "6"])
def test_size_of_what_has_no_data_is_ignored(tmp_path, type):
    if not AS_ROOT and type in "34":
        pytest.skip("needs root: makes devices")
    parts = [file("t"), header("x", type=type, link="t", size=512, major=1, minor=3), file("after", b"!")]
    unpack(tmp_path / "r", *parts)
    assert (tmp_path / "r/after").read_bytes() == b"!"


# ---- numbers ----


@pytest.mark.parametrize("field", [b"0000644\0", b"   644 \0", b"644\0junk", b"644     ", b"\0\x30644\0", b"0000644 "])
def test_octal_numbers_in_every_padding(tmp_path, field):
    unpack(tmp_path / "r", header("x", mode=field))
    assert stat.S_IMODE(os.stat(tmp_path / "r/x").st_mode) == 0o644


@pytest.mark.parametrize("field", [b"0000648\0", b"-000644\0", b"0x1ff\0", b"644 4", b"abc", b"+1"])
def test_what_is_no_number_is_refused(tmp_path, field):
    with pytest.raises(ImageError, match="mode is not a number"):
        unpack(tmp_path / "r", header("x", mode=field))


def test_mode_keeps_only_permission_bits(tmp_path):
    unpack(tmp_path / "r", header("x", mode=0o100644))
    assert stat.S_IMODE(os.stat(tmp_path / "r/x").st_mode) == 0o644


@needs_root
@pytest.mark.parametrize("owner", [0, 2097151, 2097152, 5_000_000, 2**31, 2**32 - 2])
def test_large_owners(tmp_path, owner):
    unpack(tmp_path / "r", header("a", uid=owner, gid=owner), pax(("uid", str(owner)), ("gid", str(owner))), file("b"))
    for name in "ab":
        status = os.stat(tmp_path / "r" / name)
        assert (status.st_uid, status.st_gid) == (owner, owner)


@pytest.mark.parametrize("owner", [-1, -2, 2**32 - 1, 2**32, 2**40])
def test_owners_that_would_wrap_are_refused(tmp_path, owner):
    with pytest.raises(ImageError, match="out of range"):
        unpack(tmp_path / "r", header("a", uid=owner))
    with pytest.raises(ImageError, match="out of range"):
        unpack(tmp_path / "s", header("a", gid=owner))
    with pytest.raises(ImageError, match=r"out of range|not a number in range"):
        unpack(tmp_path / "t", pax(("gid", str(owner))), file("b"))


def test_negative_size_is_refused(tmp_path):
    with pytest.raises(ImageError, match="negative"):
        unpack(tmp_path / "r", header("a", size=-512), file("b"))


def test_number_beyond_63_bits_is_refused(tmp_path):
    with pytest.raises(ImageError, match="size is not a number"):
        unpack(tmp_path / "r", header("a", size=b"\x80\0\0\1" + b"\xff" * 8))
    with pytest.raises(ImageError, match="size is not a number"):
        unpack(tmp_path / "s", header("a", size=b"\xff" * 3 + bytes(9)))


@pytest.mark.parametrize("fields", [{"major": 4096}, {"minor": 1 << 20}, {"major": -1}, {"minor": 2**40}])
def test_device_numbers_out_of_range_are_refused(tmp_path, fields):
    with pytest.raises(ImageError, match=r"out of range|not a number"):
        unpack(tmp_path / "r", header("a", type="3", **fields))


@needs_root
def test_devices(tmp_path):
    unpack(
        tmp_path / "r",
        header("c", type="3", major=4095, minor=(1 << 20) - 1, mode=0o4666, uid=5, gid=6, mtime=7),
        header("b", type="4", major=8, minor=17, mode=0o660),
    )
    status = os.lstat(tmp_path / "r/c")
    assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (4095, (1 << 20) - 1)
    assert (status.st_mode, status.st_uid, status.st_gid, status.st_mtime) == (stat.S_IFCHR | 0o4666, 5, 6, 7)
    assert stat.S_ISBLK(os.lstat(tmp_path / "r/b").st_mode)


def test_fifo(tmp_path):
    unpack(tmp_path / "r", header("f", type="6", mode=0o622, mtime=9))
    status = os.lstat(tmp_path / "r/f")
    assert (status.st_mode, status.st_mtime) == (stat.S_IFIFO | 0o622, 9)


# ---- times ----


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1350244992.023960108", 1350244992023960108),
        ("1.5", 1_500_000_000),
        ("1.0000000019", 1_000_000_001),
        ("-0.5", -500_000_000),
        ("-1", -1_000_000_000),
        ("-315619199.5", -315619199_500_000_000),
        ("7.", 7_000_000_000),
    ],
)
def test_times_before_1970_and_with_fractions(tmp_path, text, nanoseconds):
    record = pax(("mtime", text))
    unpack(tmp_path / "r", record, file("f"), record, directory("d"), record, symlink("l", "x"))
    for name in "fdl":
        assert os.lstat(tmp_path / "r" / name).st_mtime_ns == nanoseconds


def test_negative_time_in_base_256(tmp_path):
    unpack(tmp_path / "r", header("f", mtime=-86400))
    assert os.stat(tmp_path / "r/f").st_mtime == -86400


@pytest.mark.parametrize("text", ["x", "1.2.3", "--1", "+1", "1e9", "9223372036854775808", ".5", "-", "1 "])
def test_what_is_no_time_is_refused(tmp_path, text):
    with pytest.raises(ImageError, match="mtime is not a time"):
        unpack(tmp_path / "r", pax(("mtime", text)), file("f"))


def test_time_that_the_file_system_cannot_hold_is_clamped(tmp_path):
    unpack(tmp_path / "r", pax(("mtime", "9223372036854775806")), file("f"))
    assert os.stat(tmp_path / "r/f").st_mtime_ns > 4_000_000_000 * 10**9


# ---- PAX ----


def test_pax_size_decides_where_the_data_ends(tmp_path):
    inner = file("smuggled", b"evil")
    data = inner + bytes(-len(inner) % 512)
    unpack(tmp_path / "r", pax(("size", str(len(data)))), header("x", size=0) + data, file("after"))
    assert sorted(os.listdir(tmp_path / "r")) == ["after", "x"]
    assert (tmp_path / "r/x").read_bytes() == data


def test_pax_size_of_zero_hides_the_headers_size(tmp_path):
    unpack(tmp_path / "r", pax(("size", "0")), header("x", size=4096), file("after"))
    assert sorted(os.listdir(tmp_path / "r")) == ["after", "x"]


@pytest.mark.parametrize(
    "body",
    [
        b"junk",
        b"5 x=",
        b"0 a=b\n",
        b"6 a=b",
        b"6 a=b\n6",
        b"999 a=b\n",
        b"99999999999999999999999 a=b\n",
        b"-6 a=b\n",
        b" 6 a=b\n",
        b"4 ab\n",
        b"6 ab\n\n",
        b"5 =b\n",
        b"3 a\n",
        b"6 a=bb",
        b"\0",
        b"6 a=b\n\0\0",
        b"1 a=b\n",
        b"2 a=b\n",
    ],
)
def test_malformed_records_are_refused(tmp_path, body):
    with pytest.raises(ImageError, match="extended tar header"):
        unpack(tmp_path / "r", extension(body), file("x"))
    with pytest.raises(ImageError, match="extended tar header"):
        unpack(tmp_path / "s", extension(body, "g"), file("x"))


@pytest.mark.parametrize("key", ["path", "linkpath", "uname", "SCHILY.acl.access", "GNU.sparse.name"])
def test_nul_in_a_text_record_is_refused(tmp_path, key):
    with pytest.raises(ImageError, match="holds a NUL"):
        unpack(tmp_path / "r", pax((key, b"a\0b")), file("x"))


def test_nul_in_a_key_is_refused(tmp_path):
    with pytest.raises(ImageError, match="key holds a NUL"):
        unpack(tmp_path / "r", pax((b"SCHILY.xattr.user.a\0b", "v")), file("x"))


def test_last_of_equal_keys_wins_and_an_empty_value_takes_back(tmp_path):
    unpack(tmp_path / "r", pax(("path", "a"), ("path", "b")), file("x"), pax(("path", "c"), ("path", "")), file("y"))
    assert sorted(os.listdir(tmp_path / "r")) == ["b", "y"]


def test_last_of_several_extended_headers_counts_whole(tmp_path):
    unpack(tmp_path / "r", pax(("path", "a"), ("mtime", "5")), pax(("linkpath", "t")), symlink("x", "u", mtime=9))
    assert os.readlink(tmp_path / "r/x") == "t"
    assert os.lstat(tmp_path / "r/x").st_mtime == 9


def test_extended_header_is_for_one_entry(tmp_path):
    unpack(tmp_path / "r", pax(("path", "a")), file("x"), file("y"))
    assert sorted(os.listdir(tmp_path / "r")) == ["a", "y"]


def test_solaris_extended_header(tmp_path):
    unpack(tmp_path / "r", pax(("path", "a"), type="X"), file("x"))
    assert os.listdir(tmp_path / "r") == ["a"]


def test_global_header_makes_nothing_and_changes_nothing(tmp_path):
    result = unpack(tmp_path / "r", pax(("path", "g/h"), ("size", "9"), ("comment", "c"), type="g"), file("x", b"1"))
    assert os.listdir(tmp_path / "r") == ["x"]
    assert (result.entries, result.skipped) == (1, 0)


def test_unknown_records_are_passed_over(tmp_path):
    unpack(tmp_path / "r", pax(("comment", "c"), ("VENDOR.x", b"\0\1"), ("atime", "x"), ("uname", "joe")), file("x"))
    assert os.listdir(tmp_path / "r") == ["x"]


def test_record_lengths_around_a_power_of_ten(tmp_path):
    for size in range(1, 120):
        assert record("path", "p" * size).startswith(str(len(record("path", "p" * size))).encode())
    unpack(tmp_path / "r", *(pax(("path", "p" * size)) + file("x") for size in (1, 85, 86, 90, 91, 92, 93, 94)))
    assert len(os.listdir(tmp_path / "r")) == 8


# ---- GNU long names ----


def test_pax_path_beats_gnu_name_beats_header(tmp_path):
    long_name = extension(b"gnu\0", "L")
    unpack(
        tmp_path / "r",
        long_name,
        pax(("path", "pax")),
        file("a"),
        long_name,
        file("b"),
        pax(("path", "p2")),
        long_name,
        file("c"),
    )
    assert sorted(os.listdir(tmp_path / "r")) == ["gnu", "p2", "pax"]


@pytest.mark.parametrize("body", [b"name\0", b"name", b"name\0junk\0"])
def test_gnu_name_ends_at_its_first_nul(tmp_path, body):
    unpack(tmp_path / "r", extension(body, "L"), file("x"), extension(body, "K"), symlink("l", "y"))
    assert sorted(os.listdir(tmp_path / "r")) == ["l", "name"]
    assert os.readlink(tmp_path / "r/l") == "name"


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0\0"])
def test_empty_gnu_name_leaves_the_headers(tmp_path, body):
    unpack(tmp_path / "r", extension(body, "L"), file("x"))
    assert os.listdir(tmp_path / "r") == ["x"]


def test_last_gnu_name_wins(tmp_path):
    unpack(tmp_path / "r", extension(b"first", "L"), extension(b"second", "L"), file("x"))
    assert os.listdir(tmp_path / "r") == ["second"]


# ---- sparse files ----

DATA = b"A" * 1000 + b"B" * 24


def expect_sparse(path) -> None:
    status = os.stat(path)
    assert status.st_size == 1 << 30
    assert status.st_blocks < 128
    with open(path, "rb") as f:
        f.seek(4096)
        assert f.read(1000) == b"A" * 1000
        f.seek((1 << 29) + 3)
        assert f.read(25) == b"B" * 24 + b"\0"
        f.seek(0)
        assert f.read(4096) == bytes(4096)


def old_gnu(pairs, real_size, *, more=0, type="S", magic=GNU, size=1024) -> bytes:
    patch = {482: bytes([more]), 483: b"%011o\0" % real_size}
    for i, (offset, length) in enumerate(pairs):
        patch[386 + 24 * i] = b"%011o\0%011o\0" % (offset, length)
    return header("s", type=type, magic=magic, size=size, patch=patch)


MAP = [(4096, 1000), ((1 << 29) + 3, 24), (1 << 30, 0)]


def test_old_gnu_sparse_file(tmp_path):
    unpack(tmp_path / "r", old_gnu(MAP, 1 << 30) + pad(DATA), file("after"))
    expect_sparse(tmp_path / "r/s")


def test_old_gnu_sparse_file_with_extension_blocks(tmp_path):
    pairs = [(i * 8192, 1) for i in range(30)]
    first, second, third = pairs[:4], pairs[4:25], pairs[25:]

    def block(part, more):
        return b"".join(b"%011o\0%011o\0" % pair for pair in part).ljust(504, b"\0") + bytes([more]) + bytes(7)

    unpack(
        tmp_path / "r",
        old_gnu(first, 1 << 20, more=1, size=30) + block(second, 1) + block(third, 0) + pad(b"x" * 30),
        file("after"),
    )
    data = (tmp_path / "r/s").read_bytes()
    assert len(data) == 1 << 20 and data.count(b"x") == 30 and data[29 * 8192] == ord("x")


def sparse_00() -> bytes:
    pairs = [item for o, n in MAP for item in (("GNU.sparse.offset", str(o)), ("GNU.sparse.numbytes", str(n)))]
    return pax(("GNU.sparse.size", str(1 << 30)), ("GNU.sparse.numblocks", "3"), *pairs) + file("s", DATA)


def sparse_01() -> bytes:
    text = ",".join(f"{o},{n}" for o, n in MAP)
    fields = [("GNU.sparse.size", str(1 << 30)), ("GNU.sparse.numblocks", "3"), ("GNU.sparse.map", text)]
    return pax(("GNU.sparse.name", "s"), *fields) + file("GNUSparseFile.0/s", DATA)


def sparse_10(text: str | None = None, data: bytes = DATA, real: int = 1 << 30) -> bytes:
    text = text or "3\n" + "".join(f"{o}\n{n}\n" for o, n in MAP)
    fields = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", str(real))]
    return pax(("GNU.sparse.name", "s"), *fields) + file("GNUSparseFile.0/s", pad(text.encode()) + data)


@pytest.mark.parametrize("make", [sparse_00, sparse_01, sparse_10])
def test_pax_sparse_file(tmp_path, make):
    unpack(tmp_path / "r", make(), file("after"))
    expect_sparse(tmp_path / "r/s")
    assert sorted(os.listdir(tmp_path / "r")) == ["after", "s"]


def test_sparse_map_over_several_blocks(tmp_path):
    text = "200\n" + "".join(f"{i * 4096}\n1\n" for i in range(200))
    unpack(tmp_path / "r", sparse_10(text, b"x" * 200, 200 * 4096), file("after"))
    assert (tmp_path / "r/s").read_bytes().count(b"x") == 200


def test_sparse_file_that_is_one_hole(tmp_path):
    unpack(tmp_path / "r", sparse_10("0\n", b"", 1 << 30), file("after"))
    assert os.stat(tmp_path / "r/s").st_size == 1 << 30


@pytest.mark.parametrize(
    "archive",
    [
        sparse_10("2\n4096\n1000\n4000\n24\n"),  # overlap
        sparse_10("2\n8192\n1000\n0\n24\n"),  # backwards
        sparse_10("1\n1073741824\n1024\n"),  # beyond the end
        sparse_10("1\n0\n1000\n"),  # data left over
        sparse_10("1\n0\n2000\n"),  # data missing
        sparse_10("-1\n"),
        sparse_10("1\n-1\n1024\n"),
        sparse_10("x\n"),
        sparse_10("\n"),
        sparse_10("9999999999\n0\n1024\n"),  # a count to allocate for
        sparse_10("99999999999999999999999\n"),
        sparse_10("1\n9223372036854775807\n1024\n"),
        sparse_10("5\n0\n1\n", b""),  # cut off
        old_gnu([(0, 500), (400, 524)], 1 << 20) + pad(DATA),
        old_gnu([(0, 1024)], 1000) + pad(DATA),
        old_gnu([(0, 1024)], 1 << 20, more=1) + pad(DATA),
        old_gnu([(0, 1024)], 1 << 20, magic=USTAR) + pad(DATA),
        pax(("GNU.sparse.offset", "0"), ("GNU.sparse.offset", "1")) + file("s"),
        pax(("GNU.sparse.numbytes", "0")) + file("s"),
        pax(("GNU.sparse.size", "9"), ("GNU.sparse.offset", "0")) + file("s"),
        pax(("GNU.sparse.map", "0,0")) + file("s"),
        pax(("GNU.sparse.size", "9"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", "0,0")) + file("s"),
        pax(("GNU.sparse.size", "9"), ("GNU.sparse.map", "0,0,")) + file("s"),
        pax(("GNU.sparse.size", "9"), ("GNU.sparse.map", "0")) + file("s"),
        pax(("GNU.sparse.size", "9"), ("GNU.sparse.map", ",")) + file("s"),
        pax(("GNU.sparse.size", "9"), ("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")) + file("s"),
        pax(("GNU.sparse.size", "9"), ("GNU.sparse.major", "1")) + file("s"),
        pax(("GNU.sparse.size", "-9"), ("GNU.sparse.map", "0,0")) + file("s"),
    ],
)
def test_sparse_maps_that_lie_are_refused(tmp_path, archive):
    with pytest.raises(ImageError):
        unpack(tmp_path / "r", archive, file("after", b"x" * 2000))


# ---- bounds ----


def test_extended_headers_are_bounded(tmp_path):
    limits = UntarLimits(pax_bytes=1 << 16)
    unpack(
        tmp_path / "r",
        pax(("comment", "c" * 65000)),
        file("x"),
        pax(("comment", "c" * 65000)),
        file("y"),
        limits=limits,
    )
    with pytest.raises(ImageError, match="more than 65536 bytes"):
        unpack(tmp_path / "s", pax(("comment", "c" * 65536)), file("x"), limits=limits)
    with pytest.raises(ImageError, match="more than 65536 bytes"):
        unpack(tmp_path / "t", *[pax(("comment", "c" * 1000))] * 70, file("x"), limits=limits)
    with pytest.raises(ImageError, match="more than 65536 bytes"):
        unpack(tmp_path / "u", header("l", type="L", size=2**62), file("x"), limits=limits)
    with pytest.raises(ImageError, match="more than 65536 bytes"):
        unpack(tmp_path / "v", *[extension(b"n" * 30000, "L")] * 3, file("x"), limits=limits)


def test_entries_are_bounded(tmp_path):
    limits = UntarLimits(entries=10)
    unpack(tmp_path / "r", *(file(str(i)) for i in range(10)), limits=limits)
    with pytest.raises(ImageError, match="more than 10 entries"):
        unpack(tmp_path / "s", *(file(str(i)) for i in range(11)), limits=limits)
    with pytest.raises(ImageError, match="more than 10 entries"):
        unpack(tmp_path / "t", *(header("v", type="V") for i in range(11)), limits=limits)


def test_data_is_bounded(tmp_path):
    limits = UntarLimits(bytes=1500)
    unpack(tmp_path / "r", file("a", b"x" * 1000), file("b", b"x" * 500), limits=limits)
    with pytest.raises(ImageError, match="more than 1500 bytes"):
        unpack(tmp_path / "s", file("a", b"x" * 1000), file("b", b"x" * 501), limits=limits)
    with pytest.raises(ImageError, match="more than 1500 bytes"):
        unpack(tmp_path / "t", file("a"), header("b", size=2**39), limits=limits)


def test_file_size_is_bounded_holes_included(tmp_path):
    unpack(tmp_path / "r", sparse_10(), limits=UntarLimits(file_size=1 << 30))
    with pytest.raises(ImageError, match="the limit is"):
        unpack(tmp_path / "s", sparse_10(), limits=UntarLimits(file_size=(1 << 30) - 1))


def test_many_waiting_links_are_bounded(tmp_path):
    name = "n" * 90
    links = [hardlink(f"{i}", f"{name}{i}") for i in range(1000)]
    with pytest.raises(ImageError, match="ENOENT"):
        unpack(tmp_path / "r", *links)

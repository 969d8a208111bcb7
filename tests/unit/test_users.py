"""Who a container runs as, looked up in layer directories that a hostile image could have made."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.errors import StartError, UsageError
from pyrtc.runtime import users
from pyrtc.runtime.users import MAX_FILE, MAX_ID, Identity, identify

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/usr/sbin:
web:x:33:33:web:/var/www:/bin/sh
nohome:x:40:40:::
"""
GROUP = """\
root:x:0:
daemon:x:1:
web:x:33:web
www:x:80:web,other
logs:x:90:other,web
audio:x:29:
"""


@pytest.fixture(autouse=True)
def fresh():
    """Layers are cached by their path, and a path is never used for two layers outside of tests."""
    users._accounts.cache_clear()
    users._groups.cache_clear()


@pytest.fixture
def layer(tmp_path):
    """layer(passwd=, group=) makes a layer directory and returns its path."""
    made = []

    def make(passwd=None, group=None):
        directory = tmp_path / f"layer{len(made)}"
        made.append(directory)
        directory.mkdir()
        if passwd is not None or group is not None:
            (directory / "etc").mkdir()
        for name, text in (("passwd", passwd), ("group", group)):
            if text is not None:
                (directory / "etc" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(directory)

    return make


def whiteout(path):
    try:
        os.mknod(path, stat.S_IFCHR, 0)
    except PermissionError:
        pytest.skip("needs the right to make whiteouts (root, or Linux 5.8)")


# ---- what a user may be called -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, Identity(0, 0, (), "/root")),
        ("", Identity(0, 0, (), "/root")),
        ("root", Identity(0, 0, (), "/root")),
        ("0", Identity(0, 0, (), "/root")),
        ("web", Identity(33, 33, (80, 90), "/var/www")),
        ("33", Identity(33, 33, (80, 90), "/var/www")),
        ("web:", Identity(33, 33, (80, 90), "/var/www")),
        # with a group the others are not looked up, as Docker's
        ("web:audio", Identity(33, 29, (), "/var/www")),
        ("web:29", Identity(33, 29, (), "/var/www")),
        ("33:80", Identity(33, 80, (), "/var/www")),
        # nobody's number is a number
        ("1000", Identity(1000, 0, (), "/")),
        ("1000:1001", Identity(1000, 1001, (), "/")),
        ("1000:www", Identity(1000, 80, (), "/")),
        ("nohome", Identity(40, 40, (), "/")),
        (":80", Identity(0, 80, (), "/root")),
        (str(MAX_ID), Identity(MAX_ID, 0, (), "/")),
    ],
)
def test_identities(layer, user, expected):
    assert identify(user, (), (layer(PASSWD, GROUP),)) == expected


def test_added_groups_come_after_the_users_own_and_none_twice(layer):
    made = identify("web", ("audio", "80", "1234", "audio"), (layer(PASSWD, GROUP),))
    assert made.groups == (80, 90, 29, 1234)


@pytest.mark.parametrize("user", ["nobody", "0x10", "-1", "+5", " 0", "1.5", "web:nobody", "1:2:3", "٣", "root\0", "/"])
def test_names_that_nobody_has(layer, user):
    with pytest.raises(StartError, match="unable to find"):
        identify(user, (), (layer(PASSWD, GROUP),))


def test_added_groups_must_exist(layer):
    with pytest.raises(StartError, match="unable to find group nosuch"):
        identify("web", ("nosuch",), (layer(PASSWD, GROUP),))


@pytest.mark.parametrize("number", ["4294967295", "4294967296", "2147483648000", "9" * 5000])
@pytest.mark.parametrize("form", ["{}", "{}:0", "0:{}"])
def test_numbers_beyond_an_id_are_refused(layer, number, form):
    """CVE-2024-40635: such a number wrapped around to 0, root."""
    with pytest.raises(UsageError, match="beyond the range"):
        identify(form.format(number), (), (layer(PASSWD, GROUP),))
    with pytest.raises(UsageError, match="beyond the range"):
        identify("0", (number,), (layer(PASSWD, GROUP),))


def test_a_number_is_never_a_name(layer):
    """CVE-2016-3697: an account called 1000 with the id 0 made root of an ordinary user."""
    hostile = layer("1000:x:0:0::/root:/bin/sh\n" + PASSWD, "1001:x:0:\n" + GROUP)
    assert identify("1000:1001", (), (hostile,)) == Identity(1000, 1001, (), "/")


@given(st.integers(0, MAX_ID), st.integers(0, MAX_ID))
def test_numbers_are_themselves_without_any_file(uid, gid):
    assert identify(f"{uid}:{gid}", (), ()) == Identity(uid, gid, (), "/")


def test_an_image_without_accounts_has_root_and_numbers(layer):
    assert identify(None, (), (layer(),)) == Identity(0, 0, (), "/")
    assert identify(":7", (), (layer(),)) == Identity(0, 7, (), "/")
    with pytest.raises(StartError, match="unable to find user root"):
        identify("root", (), (layer(),))


# ---- what the files may hold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "bad",
        "bad:x:5",
        "bad:x:-1:5::/:",
        "bad:x::5::/:",
        "bad:x:4294967296:5::/:",
        "bad:x:5:99999999999::/:",
        "#bad:x:5:5::/:",
        "+bad:x:5:5::/:",
        "bad:x:²:5::/:",
        "bad:x:" + "1" * 5000 + ":5::/:",
    ],
)
def test_lines_that_name_nobody_are_skipped(layer, line):
    made = (layer(f"{line}\n{PASSWD}", GROUP),)
    assert identify("web", (), made).uid == 33
    with pytest.raises(StartError, match="unable to find user bad"):
        identify("bad", (), made)


def test_the_first_of_several_lines_counts(layer):
    made = (layer("a:x:5:6::/first:\na:x:7:8::/second:\nb:x:5:9::/third:\n"),)
    assert identify("a", (), made) == Identity(5, 6, (), "/first")
    assert identify("5", (), made) == Identity(5, 6, (), "/first")


def test_lines_may_be_short_or_badly_ended(layer):
    assert identify("a", (), (layer("a:x:5:6:gecos:/home"),)) == Identity(5, 6, (), "/home")
    assert identify("a", (), (layer("a:x:5:6::/home:/bin/sh\r\n", "g:x:7:a\r\n"),)) == Identity(5, 6, (7,), "/home")


def test_names_need_not_be_text(layer):
    made = layer(b"caf\xe9:x:5:6::/h\xff:\n")
    assert identify(os.fsdecode(b"caf\xe9"), (), (made,)) == Identity(5, 6, (), os.fsdecode(b"/h\xff"))


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from(["0", "5", "a", "a:b", "0:b"]))
def test_no_content_brings_more_than_a_refusal(tmp_path_factory, passwd, group, user):
    directory = tmp_path_factory.mktemp("layer")
    (directory / "etc").mkdir()
    (directory / "etc/passwd").write_bytes(b"a:x:" + passwd)
    (directory / "etc/group").write_bytes(b"b:x:" + group)
    try:
        made = identify(user, (), (str(directory),))
    except StartError:
        return
    assert all(0 <= number <= MAX_ID for number in (made.uid, made.gid, *made.groups))
    assert user[0] not in "05" or made.uid == int(user[0])


# ---- layers --------------------------------------------------------------------------------------------------------


def test_the_top_layer_that_has_the_file_counts(layer):
    bottom, top = layer("a:x:1:1::/:\nold:x:9:9::/:\n", "g:x:1:\n"), layer("a:x:2:2::/:\n")
    empty = layer()
    assert identify("a", (), (empty, top, bottom)).uid == 2
    assert identify("a", ("g",), (empty, top, bottom)).groups == (1,), "each file on its own"
    with pytest.raises(StartError):
        identify("old", (), (top, bottom))
    assert identify("old", (), (bottom, top)).uid == 9


def test_a_whiteout_hides_the_file_below(layer):
    bottom, top = layer(PASSWD, GROUP), layer(group="")
    whiteout(f"{top}/etc/passwd")
    with pytest.raises(StartError, match="unable to find user web"):
        identify("web", (), (top, bottom))
    assert identify("33", (), (top, bottom)) == Identity(33, 0, (), "/")
    assert identify("web", (), (bottom, top)).uid == 33


def test_a_whiteout_hides_the_directory_below(layer):
    bottom, top = layer(PASSWD, GROUP), layer()
    whiteout(f"{top}/etc")
    assert identify("33", (), (top, bottom)) == Identity(33, 0, (), "/")


@pytest.mark.parametrize("attribute", ["user.overlay.opaque", "trusted.overlay.opaque"])
def test_an_opaque_directory_hides_the_one_below(layer, attribute):
    bottom, top = layer(PASSWD, GROUP), layer(group=GROUP)
    try:
        os.setxattr(f"{top}/etc", attribute, b"y")
    except OSError as error:
        pytest.skip(f"needs {attribute}: {error.strerror}")
    assert identify("33", (), (top, bottom)) == Identity(33, 0, (), "/")


def test_a_directory_with_whiteouts_in_it_is_not_opaque(layer):
    bottom, top = layer(PASSWD, GROUP), layer(group=GROUP)
    try:
        os.setxattr(f"{top}/etc", "user.overlay.opaque", b"x")
    except OSError as error:
        pytest.skip(f"needs user.* attributes: {error.strerror}")
    assert identify("33", (), (top, bottom)).groups == (80, 90)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_layer_with_something_else_in_the_directorys_place_hides_it(layer, kind, tmp_path):
    bottom, top = layer(PASSWD, GROUP), layer()
    if kind == "file":
        (tmp_path / top / "etc").write_text("")
    else:
        (tmp_path / top / "etc").symlink_to(f"{bottom}/etc")
    assert identify("33", (), (top, bottom)) == Identity(33, 0, (), "/")


# ---- hostile files -------------------------------------------------------------------------------------------------


def make_fifo(path):
    os.mkfifo(path)


def make_link(path):
    os.symlink("/etc/passwd", path)


def make_relative_link(path):
    os.symlink("other", path)


def make_directory(path):
    os.mkdir(path)


def make_huge(path):
    with open(path, "wb") as file:
        file.truncate(MAX_FILE + 1)


def make_socket(path):
    import socket

    with socket.socket(socket.AF_UNIX) as made:
        directory = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            made.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)


HOSTILE = [make_fifo, make_link, make_relative_link, make_directory, make_huge, make_socket]


@pytest.mark.parametrize("make", HOSTILE)
@pytest.mark.parametrize("file", ["passwd", "group"])
def test_files_that_are_none_are_neither_followed_nor_waited_for(layer, make, file):
    made = layer(**{"group" if file == "passwd" else "passwd": GROUP if file == "passwd" else PASSWD})
    make(f"{made}/etc/{file}")
    with pytest.raises(StartError, match=f"/etc/{file} of the image"):
        identify("web", (), (made,))
    with pytest.raises(StartError, match=f"/etc/{file} of the image"):
        identify(*(("x", ()) if file == "passwd" else ("0", ("x",))), (made,))


@pytest.mark.parametrize("make", HOSTILE)
@pytest.mark.parametrize("file", ["passwd", "group"])
@pytest.mark.parametrize("user", [None, "0", "33", "33:33"])
def test_numbers_need_no_file(layer, make, file, user):
    made = layer(**{"group" if file == "passwd" else "passwd": GROUP if file == "passwd" else PASSWD})
    make(f"{made}/etc/{file}")
    found = identify(user, (), (made,))
    assert found.uid == int((user or "0").split(":")[0])
    assert found.groups == ()


def test_a_device_is_not_opened(layer):
    made = layer(group=GROUP)
    try:
        os.mknod(f"{made}/etc/passwd", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("needs root to make a device node")
    with pytest.raises(StartError, match="not a regular file"):
        identify("web", (), (made,))


def test_the_largest_file_is_read(layer):
    text = "".join(f"u{number}:x:{number}:{number}::/:\n" for number in range(1000))
    padding = "#" * (MAX_FILE - len(text) - 1) + "\n"
    assert identify("u999", (), (layer(padding + text),)).uid == 999


def test_an_unreadable_file_is_refused_with_a_reason(layer, monkeypatch):
    made = layer(PASSWD, GROUP)
    os.chmod(f"{made}/etc/passwd", 0)
    if os.geteuid() == 0:
        real = open

        def refuse(path, *rest, **more):
            if str(path).startswith("/proc/self/fd/"):
                raise PermissionError(13, "Permission denied")
            return real(path, *rest, **more)

        monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(StartError, match="cannot be read: Permission denied"):
        identify("web", (), (made,))
    assert identify("33", (), (made,)) == Identity(33, 0, (), "/")


def test_no_descriptor_is_left_open(layer):
    made = layer(PASSWD, GROUP)
    fifo = layer(group=GROUP)
    make_fifo(f"{fifo}/etc/passwd")
    before = os.listdir("/proc/self/fd")
    for layers in ((made,), (fifo, made), (layer(), made)):
        users._accounts.cache_clear()
        users._groups.cache_clear()
        try:
            identify("web", (), layers)
        except StartError:
            assert layers == (fifo, made)
    assert os.listdir("/proc/self/fd") == before


def test_accounts_of_the_running_system_are_read_again_when_they_change(monkeypatch):
    stamps = iter([1, 1, 2])
    monkeypatch.setattr(users, "_version", lambda _layers, _file: next(stamps))
    reads = []
    monkeypatch.setattr(users, "read_image_file", lambda *words: reads.append(words) or b"a:x:5:6::/:\n")
    for _ in range(3):
        identify("a:1", (), ("/",))
    assert len(reads) == 2


def test_layers_have_no_version(tmp_path):
    assert users._version((str(tmp_path),), "passwd") == 0
    assert users._version(("/",), "no-such-file") == 0
    assert users._version(("/",), "passwd") == os.stat("/etc/passwd").st_mtime_ns

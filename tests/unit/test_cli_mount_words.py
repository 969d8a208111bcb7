"""-v, --mount, --tmpfs and --device."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.cli import mount_words
from pyrtc.cli.mount_words import device, mount, tmpfs, volume
from pyrtc.errors import UsageError
from pyrtc.options import Bind, Device, Tmpfs, Volume


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/src:/dst", Bind("/src", "/dst", create=True)),
        ("/src:/dst:ro", Bind("/src", "/dst", read_only=True, create=True)),
        ("/src:/dst:rw", Bind("/src", "/dst", create=True)),
        ("/a/../src/:/dst/", Bind("/src", "/dst", create=True)),
        ("/src:/dst:ro,bind", Bind("/src", "/dst", read_only=True, recursive=False, create=True)),
        ("/src:/dst:idmap", Bind("/src", "/dst", create=True, idmap=True)),
        ("/src:/dst:rprivate,cached", Bind("/src", "/dst", create=True)),
        ("name:/dst", Volume("name", "/dst")),
        ("name:/dst:ro,nocopy", Volume("name", "/dst", read_only=True, copy=False)),
        ("/dst", Volume("", "/dst")),
    ],
)
def test_volume(word, expected):
    assert volume(word) == expected


def test_relative_source_is_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert volume("./x:/dst") == Bind(f"{tmp_path}/x", "/dst", create=True)
    assert volume(".:/dst") == Bind(f"{tmp_path}", "/dst", create=True)
    assert volume("../x:/dst") == Bind(f"{tmp_path.parent}/x", "/dst", create=True)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("", "SOURCE:TARGET"),
        (":", "SOURCE:TARGET"),
        ("a:b:c:d", "SOURCE:TARGET"),
        ("/src::ro", "SOURCE:TARGET"),
        ("relative", "not an absolute path"),
        ("name:dst", "not an absolute path"),
        ("/src:ro", "the target is missing before :ro"),
        ("/src:/", "cannot be /"),
        ("/src:/..", "cannot be /"),
        ("/src:/dst:foo", "unknown option 'foo'"),
        ("/src:/dst:ro,rw", "exclude each other"),
        ("/src:/dst:shared", "private to a container"),
        ("/src:/dst:nocopy", "for volumes"),
        ("name:/dst:idmap", "directories of the host"),
        ("x:/dst", "two or more"),
        ("a/b:/dst", "absolute path or from ./"),
        ("-x:/dst", "no name for a volume"),
        ("/src\0:/dst", "NUL"),
        ("/src:/d\0st", "NUL"),
    ],
)
def test_no_volume(word, text):
    with pytest.raises(UsageError, match=text):
        volume(word)


def test_relabelling_is_refused_only_where_there_are_labels(monkeypatch):
    monkeypatch.setattr(mount_words.os.path, "exists", lambda path: False)
    assert volume("/src:/dst:ro,Z") == Bind("/src", "/dst", read_only=True, create=True)
    monkeypatch.setattr(mount_words.os.path, "exists", lambda path: path == "/sys/fs/selinux/enforce")
    with pytest.raises(UsageError, match="SELinux"):
        volume("/src:/dst:Z")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("type=bind,source=/src,target=/dst", Bind("/src", "/dst")),
        ("type=bind,src=/src,dst=/dst,ro", Bind("/src", "/dst", read_only=True)),
        ("type=bind,src=/src,destination=/dst,readonly=false", Bind("/src", "/dst")),
        ("type=bind,src=/src,dst=/dst,bind-recursive=disabled", Bind("/src", "/dst", recursive=False)),
        ("type=bind,src=/src,dst=/dst,bind-nonrecursive", Bind("/src", "/dst", recursive=False)),
        ("type=bind,src=/src,dst=/dst,bind-create-src=true,idmap", Bind("/src", "/dst", create=True, idmap=True)),
        ("type=bind,src=/src,dst=/dst,bind-propagation=rprivate,consistency=cached", Bind("/src", "/dst")),
        ('type=bind,"src=/a,b",dst=/dst', Bind("/a,b", "/dst")),
        ("source=data,target=/dst", Volume("data", "/dst")),
        ("type=volume,target=/dst,volume-nocopy", Volume("", "/dst", copy=False)),
        ("type=tmpfs,target=/dst", Tmpfs("/dst")),
        (
            "type=tmpfs,target=/dst,tmpfs-size=1m,tmpfs-mode=0700,readonly",
            Tmpfs("/dst", size=1 << 20, mode=0o700, read_only=True),
        ),
    ],
)
def test_mount(word, expected):
    assert mount(word) == expected


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("", "target is missing"),
        ("type=bind,source=/src", "target is missing"),
        ("type=bind,target=/dst", "source is missing"),
        ("type=bind,source=src,target=/dst", "not a path"),
        ("type=bind,source=/src,target=dst", "not an absolute path"),
        ("type=bind,source,target=/dst", "needs a value"),
        ("type=npipe,target=/dst", "unknown type"),
        ("type=tmpfs,target=/dst,source=/x", "no source"),
        ("type=tmpfs,target=/dst,tmpfs-size=big", "not a size"),
        ("type=bind,source=/src,target=/dst,tmpfs-size=1m", "no meaning for type=bind"),
        ("type=volume,target=/dst,idmap", "no meaning for type=volume"),
        ("type=bind,source=/src,target=/dst,readonly=maybe", "readonly=maybe"),
        ("type=bind,source=/src,target=/dst,redonly", "did you mean readonly"),
        ("type=bind,source=/a,src=/b,target=/dst", "given twice"),
        ("type=bind,source=/src,target=/dst,bind-propagation=rshared", "private to a container"),
        ("type=bind,source=/src,target=/dst,bind-recursive=writable", "enabled or disabled"),
        ('type=bind,"source=/src', "quotes"),
    ],
)
def test_no_mount(word, text):
    with pytest.raises(UsageError, match=text):
        mount(word)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/run", Tmpfs("/run")),
        ("/run:", Tmpfs("/run")),
        (
            "/run:size=64m,mode=755,ro,exec",
            Tmpfs("/run", size=64 << 20, mode=0o755, read_only=True, exec=True),
        ),
        ("/run:rw,noexec,nosuid,nodev", Tmpfs("/run")),
    ],
)
def test_tmpfs(word, expected):
    assert tmpfs(word) == expected


@pytest.mark.parametrize("word", ["", "run", "/", "/run:size", "/run:size=50%", "/run:suid", "/run:uid=5", "/run:ro=1"])
def test_no_tmpfs(word):
    with pytest.raises(UsageError):
        tmpfs(word)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/dev/fuse", Device("/dev/fuse", "/dev/fuse")),
        ("/dev/fuse:r", Device("/dev/fuse", "/dev/fuse", "r")),
        ("/dev/fuse:/dev/x", Device("/dev/fuse", "/dev/x")),
        ("/dev/fuse:/dev/x:rw", Device("/dev/fuse", "/dev/x", "rw")),
    ],
)
def test_device(word, expected):
    assert device(word) == expected


@pytest.mark.parametrize("word", ["", "fuse", "/dev/fuse:x", "/dev/fuse:/dev/x:rr", "/dev/fuse:/dev/x:", "/a:/b:r:w"])
def test_no_device(word):
    with pytest.raises(UsageError):
        device(word)


@given(st.text(alphabet="/:.,=abroz\"'\0 é", max_size=30))
def test_any_word_is_read_or_refused(word):
    for read in (volume, mount, tmpfs, device):
        try:
            made = read(word)
        except UsageError as error:
            assert str(error)
        else:
            assert made.target.startswith("/") and made.target != "/"
            assert ".." not in made.target.split("/")
            if isinstance(made, Bind):
                assert os.path.isabs(made.source)

"""`pyrtc cluster` without any cluster."""

import pytest

from pyrtc.cli.main import main
from pyrtc.engine import Engine
from pyrtc.errors import UnsupportedError


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("join",), "etcd is missing"),
        (("join", "--etcd", "localhost:2379"), "is no address of etcd"),
        (("join", "--etcd", "http://127.0.0.1:1", "x"), "unexpected argument: x"),
        (("leave",), "in no cluster"),
        (("ls",), "pyrtc cluster join --etcd"),
        (("inspect",), "pyrtc cluster join --etcd"),
        (("rm-host",), "the host is missing"),
        (("rm-host", "h1"), "pyrtc cluster join --etcd"),
        (("add",), "unknown command: cluster add"),
    ],
)
def test_what_is_wrong_is_said(words, text, capsys, monkeypatch):
    monkeypatch.setattr("pyrtc.store.store.is_rootless", lambda: False)
    assert main(["cluster", *words]) == 1
    assert text in capsys.readouterr().err


def test_help_lists_all(capsys):
    assert main(["cluster"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {verb} " in listed for verb in ("join", "leave", "ls", "inspect", "rm-host"))


def test_an_ordinary_user_has_no_overlay_networks(tmp_path, monkeypatch):
    monkeypatch.setattr("pyrtc.store.store.is_rootless", lambda: True)
    with Engine(tmp_path / "s") as engine, pytest.raises(UnsupportedError, match="only root"):
        engine.cluster.join(["http://192.0.2.1:2379"])

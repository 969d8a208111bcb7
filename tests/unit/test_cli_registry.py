"""pyrtc pull, push, login, logout and manifest: what they take, and what they show."""

import io
import os
import sys

import pytest

from pyrtc.cli import registry
from pyrtc.cli.main import main
from pyrtc.cli.transfers import _Live, showing
from pyrtc.errors import UsageError
from pyrtc.image.registry.progress import TransferEvent

DIGEST = "sha256:0123456789abcdef" + "0" * 48


@pytest.mark.parametrize("command", ["pull", "push", "login", "logout", "manifest"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"pyrtc {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pull"], "the image is missing"),
        (["push"], "one image at a time"),
        (["push", "a", "b"], "one image at a time"),
        (["pull", "UPPER"], "must be lowercase"),
        (["pull", "--platform", "a/b/c/d", "x"], "invalid platform"),
        (["login", "a", "b"], "one registry at a time"),
        (["login", "not a host"], "is no registry"),
        (["login", "-u", "x", "-p", "y", "--password-stdin", "a.test"], "mutually exclusive"),
        (["login", "--password-stdin", "a.test"], "needs --username"),
        (["login", "-u", "a:b", "-p", "y", "a.test"], "cannot have a colon"),
        (["login", "-u", "a", "-p", "", "a.test"], "must not be empty"),
        (["manifest", "insect"], "did you mean inspect"),
        (["manifest", "inspect"], "one name at a time"),
    ],
)
def test_what_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "store"))
    assert main(words) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "domain"),
    [
        ([], "docker.io"),
        (["docker.io"], "docker.io"),
        (["https://index.docker.io/v1/"], "docker.io"),
        (["a.test"], "a.test"),
        (["https://a.test:5000/v2/"], "a.test:5000"),
        (["localhost:5000"], "localhost:5000"),
    ],
)
def test_registries(words: list[str], domain: str) -> None:
    assert registry._domain(words) == domain


def test_what_is_no_registry() -> None:
    for word in ("name", "a b", "a.test:x", "/"):
        with pytest.raises(UsageError):
            registry._domain([word])


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(quiet=False) as show:
        assert show is not None
        for phase in ("waiting", "downloading", "downloaded", "unpacking", "done"):
            show(TransferEvent(DIGEST, phase, 1, 2))
        show(TransferEvent(DIGEST, "retrying", 1, 2, "broken \x1b[2J"))
        show(TransferEvent(DIGEST, "mounted", 1, 2, "other/place"))
    assert capsys.readouterr().out.splitlines() == [
        "0123456789ab: Download complete",
        "0123456789ab: Pull complete",
        r"0123456789ab: Retrying: broken \x1b[2J",
        "0123456789ab: Mounted from other/place",
    ]
    with showing(quiet=True) as show:
        assert show is None


def test_live_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setitem(os.environ, "TERM", "xterm")
    monkeypatch.setitem(os.environ, "COLUMNS", "100")
    with showing(quiet=False) as show:
        assert show is not None
        show(TransferEvent(DIGEST, "downloading", 500_000, 1_000_000))
        show(TransferEvent("sha256:" + "f" * 64, "waiting", 0, 5))
        show(TransferEvent(DIGEST, "done", 1_000_000, 1_000_000))
    assert "0123456789ab: Pull complete" in terminal.getvalue()
    assert "ffffffffffff: Waiting" in terminal.getvalue()


def test_nothing_new_needs_no_terminal_library() -> None:
    live = _Live()
    live.close()
    assert live._progress is None

import pytest

from pyrtc.errors import StoreError, UsageError
from pyrtc.store import Store
from pyrtc.store import settings as module
from pyrtc.store.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No settings but the test's."""
    monkeypatch.setattr(module, "SYSTEM_FILE", str(tmp_path / "etc.toml"))
    monkeypatch.delenv("PYRTC_BLOBS", raising=False)
    monkeypatch.delenv("PYRTC_ADDITIONAL_STORES", raising=False)


def test_nothing_said(tmp_path) -> None:
    assert read_settings(str(tmp_path)) == Settings("keep", (), False)


def test_the_first_that_says_something_decides(tmp_path, monkeypatch) -> None:
    (tmp_path / "etc.toml").write_text('blobs = "drop"\nadditional_stores = ["/etc-store"]\nshared = true\n')
    assert read_settings(str(tmp_path)) == Settings("drop", ("/etc-store",), False)
    (tmp_path / "config.toml").write_text('blobs = "keep"\nadditional_stores = []\nshared = true\n')
    assert read_settings(str(tmp_path)) == Settings("keep", (), True)
    monkeypatch.setenv("PYRTC_BLOBS", "drop")
    monkeypatch.setenv("PYRTC_ADDITIONAL_STORES", f"/a:/b:{tmp_path}:/a")
    assert read_settings(str(tmp_path)) == Settings("drop", ("/a", "/b"), True)
    assert read_settings(str(tmp_path), blobs="keep", additional_stores=["/c"]).additional_stores == ("/c",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('blobs = "maybe"', "blobs is 'maybe'"),
        ("blobs = 1", "blobs is 1"),
        ('additional_stores = "/a"', "list of directories"),
        ("shared = 1", "shared is 1"),
        ('shared = "yes"', "shared is 'yes'"),
        ("blbos = 1", "unknown setting blbos"),
        ("blobs", "cannot read the settings"),
        ("\udcff", "cannot read the settings"),
    ],
)
def test_wrong_files(tmp_path, text: str, words: str) -> None:
    (tmp_path / "config.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match=words):
        read_settings(str(tmp_path))
    with pytest.raises(StoreError, match=words):
        Store(tmp_path)


def test_wrong_words(tmp_path, monkeypatch) -> None:
    with pytest.raises(UsageError, match="no absolute path"):
        read_settings(str(tmp_path), additional_stores=["a"])
    monkeypatch.setenv("PYRTC_BLOBS", "yes")
    with pytest.raises(UsageError, match="blobs is 'yes'"):
        Store(tmp_path)

import pytest

from pyrtc.errors import UsageError
from pyrtc.image.platform import Platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", ("linux", "amd64", "")),
        ("amd64", ("linux", "amd64", "")),
        ("x86_64", ("linux", "amd64", "")),
        ("linux/arm/v7", ("linux", "arm", "v7")),
        ("Linux/aarch64", ("linux", "arm64", "")),
    ],
)
def test_parse(text: str, expected: tuple[str, str, str]) -> None:
    platform = Platform.parse(text)
    assert (platform.os, platform.architecture, platform.variant) == expected
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/amd64/v1/x", "linux/am d64", "../x"])
def test_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "rank"),
    [
        ("linux/amd64", "linux/amd64", 0),
        ("linux/amd64", "windows/amd64", None),
        ("linux/amd64", "linux/arm64", None),
        ("linux/arm64", "linux/arm64/v8", 0),
        ("linux/arm64/v8", "linux/arm64", 0),
        ("linux/arm64/v8", "linux/arm64/v9", None),
        ("linux/arm", "linux/arm/v7", 0),
        ("linux/arm/v7", "linux/arm/v6", 1),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/amd64", "linux/amd64/v3", None),
        ("linux/amd64/v3", "linux/amd64", 2),
        ("linux/riscv64", "linux/riscv64", 0),
    ],
)
def test_rank(wanted: str, offered: str, rank: int | None) -> None:
    assert Platform.parse(wanted).rank(Platform.parse(offered)) == rank


def test_host_is_a_platform() -> None:
    assert Platform.host().os == "linux"
    assert Platform.host().rank(Platform.host()) == 0

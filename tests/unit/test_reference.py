"""Names, held against what Docker accepts (github.com/distribution/reference, its tests' tables in our words)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.errors import ImageError
from pyrtc.image.reference import Reference, valid_digest

SHA256 = "sha256:" + "ab" * 32
SHA512 = "sha512:" + "cd" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("library/debian", "docker.io/library/debian", "debian"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/library/debian:x", "docker.io/library/debian:x", "debian:x"),
        ("user/name", "docker.io/user/name", "user/name"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("quay.io/a/b/c:v1", "quay.io/a/b/c:v1", "quay.io/a/b/c:v1"),
        ("Registry/app", "Registry/app", "Registry/app"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app", "127.0.0.1:5000/app"),
        ("[::1]:5000/app:t", "[::1]:5000/app:t", "[::1]:5000/app:t"),
        ("a__b/c-d.e---f", "docker.io/a__b/c-d.e---f", "a__b/c-d.e---f"),
        (f"app@{SHA256}", f"docker.io/library/app@{SHA256}", f"app@{SHA256}"),
        (f"app:1@{SHA512}", f"docker.io/library/app:1@{SHA512}", f"app:1@{SHA512}"),
        ("docker.io/localhost/x", "docker.io/localhost/x", "docker.io/localhost/x"),
        ("sha256:abcd", "docker.io/library/sha256:abcd", "sha256:abcd"),
        ("app:" + "t" * 128, "docker.io/library/app:" + "t" * 128, "app:" + "t" * 128),
    ],
)
def test_forms(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (reference.canonical, reference.familiar, str(reference)) == (canonical, familiar, familiar)


@pytest.mark.parametrize(
    "text",
    [
        "", ":1", "@" + SHA256, "Debian", "user/Name", "a//b", "/a", "a/", "-a", "a-", "a/-b", "a___b", "a..b",
        "a._b", "a:",
        "a:-t", "a:.t", "a:" + "t" * 129, "a@", "a@sha256:", "a@sha256:abcd", "a@md5:" + "a" * 32,
        "a@" + SHA256.upper(),
        "a@sha256:" + "g" * 64, "aa/asdf$$^/aa", "a b", "a\nb", "a\0", "é", "a:é", "http://a/b", "a/b:c:d",
        "localhost:5x/app",
        "f" * 64, "a@" + SHA256 + "@" + SHA256, "reg.io:/a", "-reg.io/a", "a:1@2", "٣",
        "a" * 256, "reg.io/" + "a/" * 128 + "a", "[::1/a", "[fe80::1%eth0]/a",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(ImageError):
        Reference.parse(text)


def test_longest() -> None:
    assert Reference.parse("a" * 247).path == "library/" + "a" * 247
    with pytest.raises(ImageError, match="255"):
        Reference.parse("a" * 248)
    with pytest.raises(ImageError, match="characters"):
        Reference.parse("a" * 100_000)


def test_default_tag() -> None:
    assert Reference.parse("debian").with_default_tag().tag == "latest"
    assert Reference.parse("debian:12").with_default_tag().tag == "12"
    assert Reference.parse(f"debian@{SHA256}").with_default_tag().tag is None


def test_digests() -> None:
    assert valid_digest(SHA256)
    assert valid_digest(SHA512)
    for text in (
        "sha256:../../etc/passwd",
        "sha256:" + "A" * 64,
        SHA256 + "0",
        SHA256[:-1],
        "../" + SHA256,
        SHA256 + "\n",
    ):
        assert not valid_digest(text)


_alnum = st.text("abcz019", min_size=1, max_size=8)
_component = st.lists(_alnum, min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([".", "_", "__", "-", "---"]).map(lambda separator: separator.join(parts))
)
_domain = st.sampled_from(["", "docker.io/", "localhost/", "localhost:5000/", "quay.io/", "r.example.com:443/", "Up/"])
_tag = st.one_of(st.just(""), st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
_digest = st.sampled_from(["", "@" + SHA256, "@" + SHA512])


@given(_domain, st.lists(_component, min_size=1, max_size=4), _tag, _digest)
def test_every_legal_name_survives(domain: str, path: list[str], tag: str, digest: str) -> None:
    text = domain + "/".join(path) + tag + digest
    reference = Reference.parse(text)
    assert Reference.parse(reference.canonical) == reference
    assert Reference.parse(reference.familiar) == reference
    assert (f":{reference.tag}" if reference.tag else "") == tag


@given(st.text(max_size=80))
def test_anything_is_parsed_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except ImageError:
        return
    assert Reference.parse(reference.canonical) == reference
    assert ".." not in reference.path.split("/")
    assert reference.canonical.isascii()

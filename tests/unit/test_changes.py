import pytest

from pyrtc.errors import UsageError
from pyrtc.image.changes import apply_changes


def changed(*lines: str, **before: object) -> dict[str, object]:
    config = dict(before)
    apply_changes(config, lines)
    return config


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
        ("CMD echo $HOME", {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
        ("cmd []", {"Cmd": []}),
        ("CMD", {"Cmd": []}),
        ("CMD [ -f x ]", {"Cmd": ["/bin/sh", "-c", "[ -f x ]"]}),
        ('ENTRYPOINT ["/init"]', {"Entrypoint": ["/init"]}),
        ("ENV A=1 B='x y'", {"Env": ["A=1", "B=x y"]}),
        ("ENV A the rest of it", {"Env": ["A=the rest of it"]}),
        ("ENV A=", {"Env": ["A="]}),
        ('LABEL a=1 "b c"=2', {"Labels": {"a": "1", "b c": "2"}}),
        ("USER 1000:1000", {"User": "1000:1000"}),
        ("WORKDIR /srv", {"WorkingDir": "/srv"}),
        ("STOPSIGNAL SIGTERM", {"StopSignal": "SIGTERM"}),
        ("STOPSIGNAL 9", {"StopSignal": "9"}),
        ("STOPSIGNAL SIGRTMIN+3", {"StopSignal": "SIGRTMIN+3"}),
        ("EXPOSE 80 53/UDP", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        ("EXPOSE 8000-8002", {"ExposedPorts": {"8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        ('HEALTHCHECK CMD ["a", "b"]', {"Healthcheck": {"Test": ["CMD", "a", "b"]}}),
        (
            "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2s --retries=3 CMD test -e /x",
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "test -e /x"],
                    "Interval": 90 * 10**9,
                    "Timeout": 5 * 10**8,
                    "StartPeriod": 2 * 10**9,
                    "Retries": 3,
                }
            },
        ),
    ],
)
def test_line(line: str, expected: dict[str, object]) -> None:
    assert changed(line) == expected


def test_lines_add_up() -> None:
    assert changed("ENV A=1", "ENV B=2", "ENV A=3") == {"Env": ["B=2", "A=3"]}
    assert changed("WORKDIR /a", "WORKDIR b", "WORKDIR c") == {"WorkingDir": "/a/b/c"}
    assert changed("LABEL a=1", "LABEL a=2 b=3") == {"Labels": {"a": "2", "b": "3"}}


@pytest.mark.parametrize(
    "line",
    [
        "RUN true", "FROM x", "", "ENV", "ENV A", "ENV A=1 B", "ENV =1", "ENV 'A=1", "LABEL a", "EXPOSE 0",
        "EXPOSE 70000", "EXPOSE 9-8", "EXPOSE 80/icmp", "EXPOSE http", "STOPSIGNAL NOPE", "STOPSIGNAL 0",
        "STOPSIGNAL 65",
        'CMD ["a", 1]', 'VOLUME [""]', "USER", "WORKDIR", "HEALTHCHECK",
        "HEALTHCHECK true", "HEALTHCHECK --interval=x CMD true", "HEALTHCHECK --retries=0 CMD true", "HEALTHCHECK CMD",
        "ONBUILD", "ONBUILD FROM x", "ONBUILD ONBUILD RUN x",
    ],
)  # fmt: skip
def test_refused(line: str) -> None:
    with pytest.raises(UsageError):
        changed(line)

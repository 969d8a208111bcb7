"""Changes to an image's config in Dockerfile's words: ``CMD``, ``ENTRYPOINT``, ``ENV``, ``WORKDIR``, ``USER``,
``EXPOSE``, ``LABEL``, ``VOLUME``, ``STOPSIGNAL``, ``HEALTHCHECK``, ``ONBUILD``."""

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

from pyrtc.errors import UsageError

__all__ = ["apply_changes"]

_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_SHELL = ["/bin/sh", "-c"]


def apply_changes(config: dict[str, Any], changes: tuple[str, ...]) -> None:
    """Apply lines to the ``config`` part of an image's config document.

    Raises
    ------
    UsageError: a line is no instruction that may change a config.
    """
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        instruction = _INSTRUCTIONS.get(word.upper())
        rest = rest.strip()
        if instruction is None:
            raise UsageError(f"{word!r} cannot be used in --change: write one of {', '.join(_INSTRUCTIONS)}")
        if not rest and word.upper() not in ("CMD", "ENTRYPOINT"):
            raise UsageError(f"{word.upper()} in --change needs a value")
        instruction(config, rest)


def _json_words(text: str, line: str) -> list[str] | None:
    """Read ``["a", "b"]``; None when it is not that form."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None  # Docker's rule: what is no JSON is a shell's
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError(f"{line} in --change: a JSON array of strings is needed, not {text}")
    return words


def _command(field: str) -> Callable[[dict[str, Any], str], None]:
    def change(config: dict[str, Any], text: str) -> None:
        words = _json_words(text, field.upper())
        config[field] = words if words is not None else [*(config.get("Shell") or _SHELL), text] if text else []

    return change


def _pairs(text: str, line: str) -> list[tuple[str, str]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{line} in --change: {error}: {text}") from error
    if "=" not in words[0]:
        # The old form: ENV NAME everything else is the value.
        name, _, value = text.partition(" ")
        if not value:
            raise UsageError(f"{line} in --change must have the form NAME=VALUE: {text}")
        return [(name, value.strip())]
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise UsageError(f"{line} in --change must have the form NAME=VALUE: {text}")
    return [(name, value) for name, _, value in pairs]


def _env(config: dict[str, Any], text: str) -> None:
    for name, value in _pairs(text, "ENV"):
        kept = [entry for entry in (config.get("Env") or []) if entry.partition("=")[0] != name]
        config["Env"] = [*kept, f"{name}={value}"]


def _label(config: dict[str, Any], text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text, "LABEL"))}


def _workdir(config: dict[str, Any], text: str) -> None:
    base = config.get("WorkingDir") or "/"
    config["WorkingDir"] = text if text.startswith("/") else f"{base.rstrip('/')}/{text}"


def _user(config: dict[str, Any], text: str) -> None:
    config["User"] = text


def _stop_signal(config: dict[str, Any], text: str) -> None:
    import signal

    number = text.isdigit() and 0 < int(text) < signal.NSIG
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if not number and not re.fullmatch(r"SIGRT(MIN|MAX)([+-][0-9]+)?", name) and name not in signal.Signals.__members__:
        raise UsageError(f"STOPSIGNAL in --change: unknown signal {text}")
    config["StopSignal"] = text


def _expose(config: dict[str, Any], text: str) -> None:
    for word in text.split():
        match = _PORT.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if match is None or not 0 < first <= last < 65536:
            raise UsageError(f"EXPOSE in --change: invalid port {word}: write 80, 80/udp or 8000-8010")
        protocol = (match[3] or "tcp").lower()
        ports = config["ExposedPorts"] = config.get("ExposedPorts") or {}
        ports.update({f"{port}/{protocol}": {} for port in range(first, last + 1)})


def _volume(config: dict[str, Any], text: str) -> None:
    words = _json_words(text, "VOLUME")
    volumes = config["Volumes"] = config.get("Volumes") or {}
    for path in text.split() if words is None else words:
        if not path:
            raise UsageError("VOLUME in --change cannot be empty")
        volumes[path] = {}


_HEALTH_TIMES = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}


_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def _go_duration(text: str, option: str) -> int:
    """Read ``1m30s``, in nanoseconds."""
    part = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|ms|[smh])"
    if not re.fullmatch(f"(?:{part})+", text):
        raise UsageError(f"HEALTHCHECK in --change: {option}: write a time such as 30s or 1m30s")
    return round(sum(float(number) * _UNITS[unit] for number, unit in re.findall(part, text)))


def _healthcheck(config: dict[str, Any], text: str) -> None:
    """Read ``[--interval=30s ...] CMD words...`` or ``NONE``; Docker keeps times in nanoseconds."""
    said: dict[str, Any] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        text = text.strip()
        name, _, value = option[2:].partition("=")
        if name in _HEALTH_TIMES:
            said[_HEALTH_TIMES[name]] = _go_duration(value, option)
        elif name == "retries" and value.isascii() and value.isdigit() and 0 < int(value) < 1 << 31:
            said["Retries"] = int(value)
        else:
            raise UsageError(
                f"HEALTHCHECK in --change: {option}: there are --interval, --timeout, --start-period (times) and "
                "--retries (a number)"
            )
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    if word.upper() == "NONE" and not rest and not said:
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if word.upper() != "CMD" or not rest:
        raise UsageError(f"HEALTHCHECK in --change: write CMD and a command, or NONE, not {text!r}")
    words = _json_words(rest, "HEALTHCHECK")
    config["Healthcheck"] = {"Test": ["CMD", *words] if words is not None else ["CMD-SHELL", rest], **said}


def _onbuild(config: dict[str, Any], text: str) -> None:
    word = text.partition(" ")[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise UsageError(f"ONBUILD in --change: {word} is not allowed there")
    config["OnBuild"] = [*(config.get("OnBuild") or []), text]


_INSTRUCTIONS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}

"""Words for numbers: sizes, rates, times, counts, signals, resource limits.

Every function takes one word and raises UsageError with the reason and an example; the option and the value are named
by the caller (`option_table.Parsed`). Patterns are compiled when first used: most runs need none of them.
"""

import re

from pyrtc.errors import UsageError
from pyrtc.options import RestartPolicy, Ulimit

__all__ = [
    "bit_rate",
    "cpus",
    "device_count",
    "device_rate",
    "duration",
    "integer",
    "limit_size",
    "network_rate",
    "octal_mode",
    "restart_policy",
    "signal_name",
    "signal_number",
    "size",
    "stop_timeout",
    "swap_size",
    "ulimit",
    "whole",
]

SIZE = r"(\d{1,19}(?:\.\d{1,19})?)(?: ?(?:([kmgtp])(?:i?b)?|b))?"
BIT_RATE = r"(\d{1,15}(?:\.\d{1,15})?)(?: ?([kmgt])?bit(?:/s)?)?"
DURATION = r"(\d+(?:\.\d+)?)(ms|s|m|h)"
NUMBER = r"\d+(?:\.\d+)?"
REAL_TIME_SIGNAL = r"(RTMIN|RTMAX)(?:([+-])(\d{1,2}))?"
SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Eight exbibytes less one: what the kernel's files take.
MAX_SIZE = (1 << 63) - 1
MAX_SECONDS = 10 * 365 * 86400.0

# Every RLIMIT_* there is; Docker lacks `as`.
RESOURCES = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
    *("rtprio", "rttime", "sigpending", "stack"),
)


def size(word: str) -> int:
    """Read bytes: `512`, `64m`, `1.5g`, `10MiB`; units are powers of 1024, in either case."""
    match = re.fullmatch(SIZE, word, re.ASCII | re.IGNORECASE)
    if match is None:
        raise UsageError("not a size; write a number and b, k, m, g or t, for example 64m")
    number, unit = match[1], (match[2] or "").lower()
    # Whole numbers stay exact: a float has only 53 bits.
    value = int(number) << SHIFT[unit] if number.isdigit() else int(float(number) * (1 << SHIFT[unit]))
    if value > MAX_SIZE:
        raise UsageError("beyond eight exbibytes")
    return value


def limit_size(word: str) -> int | None:
    """Read a size whose 0 stands for no limit."""
    return size(word) or None


def swap_size(word: str) -> int | None:
    """Read a size, or -1 for unlimited; 0 stands for not given."""
    return -1 if word == "-1" else limit_size(word)


def bit_rate(word: str) -> int:
    """Read bits per second: `10mbit`, `1.5gbit`, `64kbit`, `8000`; units are powers of 1000, as tc has them."""
    match = re.fullmatch(BIT_RATE, word, re.ASCII | re.IGNORECASE)
    if match is None:
        raise UsageError("not a rate; write bits per second, for example 10mbit, 1gbit or 500kbit")
    scale: int = 1000 ** " kmgt".index((match[2] or " ").lower())
    if match[1].isdigit():
        return int(match[1]) * scale
    # What is less than one bit is none that can be had, but not 0, which is no limit to some.
    rate = float(match[1]) * scale
    return max(1, int(rate)) if rate else 0


def network_rate(word: str) -> int | None:
    """Read bits per second of which 0 stands for no limit."""
    return bit_rate(word) or None


def integer(word: str) -> int:
    """Read a whole number that may be negative."""
    if not re.fullmatch(r"-?\d{1,18}", word, re.ASCII):
        raise UsageError("not a whole number")
    return int(word)


def whole(word: str) -> int | None:
    """Read a whole number of which 0 stands for not given."""
    return integer(word) or None


def cpus(word: str) -> float | None:
    """Read a number of CPUs: `2`, `0.5`; 0 stands for no limit."""
    if not re.fullmatch(NUMBER, word, re.ASCII):
        raise UsageError("not a number of CPUs; write for example 1.5")
    return float(word) or None


def octal_mode(word: str) -> int:
    """Read permission bits: `1777`."""
    if not re.fullmatch(r"[0-7]{1,5}", word) or int(word, 8) > 0o7777:
        raise UsageError("not an octal mode; write for example 1777")
    return int(word, 8)


def duration(word: str) -> float:
    """Read a time as seconds: `30`, `0.5`, or with units, `500ms`, `1m30s`, `2h`."""
    if re.fullmatch(NUMBER, word, re.ASCII):
        seconds = float(word)
    else:
        parts = re.findall(DURATION, word, re.ASCII)
        if not parts or "".join(number + unit for number, unit in parts) != word:
            raise UsageError("not a time; write seconds, or units as in 1m30s, 500ms")
        seconds = sum(float(number) * UNIT_SECONDS[unit] for number, unit in parts)
    if seconds > MAX_SECONDS:
        raise UsageError("more than ten years")
    return seconds


def stop_timeout(word: str) -> float:
    """Read the seconds between the stop signal and the kill; -1 is the longest time there is, ten years."""
    return MAX_SECONDS if word == "-1" else duration(word)


def signal_number(word: str) -> int:
    """Read a signal: `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`."""
    import signal

    if word.isascii() and word.isdigit():
        number = int(word[:4])
    else:
        name = word.upper().removeprefix("SIG")
        real_time = re.fullmatch(REAL_TIME_SIGNAL, name, re.ASCII)
        if real_time:
            base = signal.SIGRTMIN if real_time[1] == "RTMIN" else signal.SIGRTMAX
            offset = int(real_time[3] or 0)
            number = base - offset if real_time[2] == "-" else base + offset
            if not signal.SIGRTMIN <= number <= signal.SIGRTMAX:
                raise UsageError("no real-time signal; they are SIGRTMIN to SIGRTMIN+30")
        else:
            known = signal.Signals.__members__.get(f"SIG{name}")
            if known is None:
                raise UsageError("no such signal; write for example SIGTERM, INT or 9")
            number = known
    if not 1 <= number <= 64:
        raise UsageError("no such signal; they are numbered from 1 to 64")
    return int(number)


def signal_name(word: str) -> str:
    """Read a signal and return it in the one form that images use, `SIGTERM`, or its number where it has no name."""
    import signal

    number = signal_number(word)
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def ulimit(word: str) -> Ulimit:
    """Read a resource limit: `nofile=1024:2048`, `nofile=1024`, `core=-1`."""
    name, equals, values = word.partition("=")
    if not equals:
        raise UsageError("not a limit; write for example nofile=1024:2048")
    if name not in RESOURCES:
        raise UsageError(f"no resource is called {name!r}; there are {', '.join(RESOURCES)}")
    soft_word, colon, hard_word = values.partition(":")
    soft = _ulimit_value(soft_word)
    hard = _ulimit_value(hard_word) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise UsageError(f"the soft limit must be less than or equal to the hard limit: {soft_word} > {hard_word}")
    return Ulimit(name, soft, hard)


def _ulimit_value(word: str) -> int:
    if word == "unlimited":
        return -1
    value = integer(word)
    if value < -1:
        raise UsageError("a limit cannot be negative; -1 stands for unlimited")
    return value


def restart_policy(word: str) -> RestartPolicy:
    """Read a restart policy: `no`, `on-failure`, `on-failure:3`, `always`, `unless-stopped`."""
    name, colon, count = word.partition(":")
    if name not in ("no", "on-failure", "always", "unless-stopped"):
        raise UsageError("no such policy; there are no, on-failure[:retries], always and unless-stopped")
    if not colon:
        return RestartPolicy(name)  # type: ignore[arg-type]
    if name != "on-failure":
        raise UsageError("maximum retry count cannot be used with this policy; only on-failure has one")
    retries = integer(count)
    if retries < 0:
        raise UsageError("maximum retry count cannot be negative")
    return RestartPolicy("on-failure", retries)


def device_rate(word: str) -> tuple[str, int]:
    """Read a device and bytes per second: `/dev/sda:10mb`."""
    device, rate = _device_and_rate(word, "/dev/sda:10mb")
    return device, size(rate)


def device_count(word: str) -> tuple[str, int]:
    """Read a device and operations per second: `/dev/sda:1000`."""
    device, rate = _device_and_rate(word, "/dev/sda:1000")
    return device, integer(rate)


def _device_and_rate(word: str, example: str) -> tuple[str, str]:
    device, colon, rate = word.rpartition(":")
    if not colon or not device or not rate:
        raise UsageError(f"write a block device and a rate, for example {example}")
    return device, rate

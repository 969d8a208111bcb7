"""Seccomp profiles in Docker's format: read strictly, and decided for one container.

The format is that of the OCI runtime specification (config-linux.md, "Seccomp") with what Docker added to it: archMap,
and includes and excludes, which make a rule depend on capabilities, architecture and kernel. A profile is a file
somebody wrote, and a mistake in it is a hole in a wall; so everything that would not have the effect it seems to have
is an error.
"""

import errno
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence

from pyrtc.errors import UsageError, reason
from pyrtc.runtime.capabilities import NAMES, names_of
from pyrtc.values import dataclass

__all__ = ["ARCHITECTURES", "Action", "Comparison", "Profile", "Rule", "decide", "parse", "read"]

MAX_SIZE = 1 << 20
_MAX_RULES = 20_000
_MAX_ERRNO = 4095  # what the kernel can return as an error

_RETURN_VALUES = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
#: libseccomp's enum scmp_compare.
_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
#: Architectures that pyrtc's machines can execute: libseccomp's token, which is the kernel's AUDIT_ARCH_* but for x32.
ARCHITECTURES = {
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
}
#: Other names of the specification: a profile may speak of them, a process here cannot be of them.
_FOREIGN = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        *(
            "MIPS",
            "MIPS64",
            "MIPS64N32",
            "MIPSEL",
            "MIPSEL64",
            "MIPSEL64N32",
            "PPC",
            "PPC64",
            "PPC64LE",
            "S390",
            "S390X",
        ),
        *("PARISC", "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB"),
    )
)
#: uname's machine: its name in includes and excludes, its architecture, and those it can execute besides.
_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64", frozenset({"SCMP_ARCH_X86", "SCMP_ARCH_X32"})),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64", frozenset({"SCMP_ARCH_ARM"})),
}
_TOP_KEYS = (
    "defaultAction",
    "defaultErrnoRet",
    "defaultErrno",
    "architectures",
    "archMap",
    "syscalls",
    "flags",
    "listenerPath",
    "listenerMetadata",
)
_RULE_KEYS = ("name", "names", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes")


@dataclass(frozen=True, slots=True)
class Action:
    """What the kernel does with a call: the return value of the filter, without an errno for `errno` -1."""

    name: str
    errno: int = -1

    @property
    def value(self) -> int:
        """The filter's return value (SECCOMP_RET_*)."""
        return _RETURN_VALUES[self.name] | max(self.errno, 0)

    @property
    def strictness(self) -> int:
        """The kernel's order: of the verdicts of several filters it takes the lowest, as a signed number."""
        kind = _RETURN_VALUES[self.name]
        return (1 << 31) - (kind if kind < 1 << 31 else kind - (1 << 32))

    @property
    def permits(self) -> bool:
        """Whether the call is executed."""
        return self.name in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition on argument `index`; for MASKED_EQ `value` is the mask and `value_two` what remains."""

    index: int
    operator: int
    value: int
    value_two: int


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with a system call when all comparisons hold."""

    name: str
    action: Action
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile decided for one container: nothing in it depends on anything any more."""

    default: Action
    architectures: tuple[int, ...]
    rules: tuple[Rule, ...]
    names: frozenset[str]  #: every call it speaks of, also where a rule only repeats the default


def read(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a profile file.

    Raises
    ------
    UsageError: it cannot be read, is no regular file, or is larger than 1 MiB.
    """
    try:
        # Not to be kept waiting by a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"cannot read the seccomp profile {os.fspath(path)}: {reason(error.errno or 0)}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"the seccomp profile {os.fspath(path)} is not a file")
    with os.fdopen(fd, "rb") as file:
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise UsageError(f"the seccomp profile {os.fspath(path)} is larger than {MAX_SIZE >> 20} MiB")
    return content


def parse(content: bytes) -> dict[str, object]:
    """Return the JSON object in content; a key that is there twice is an error.

    Raises
    ------
    UsageError: it is not a JSON object.
    """
    try:
        document = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the seccomp profile is not valid JSON: {error}") from None
    return _object(document, "the seccomp profile")


def decide(document: Mapping[str, object], *, capabilities: int, kernel: tuple[int, int], machine: str) -> Profile:
    """Check a whole profile, then keep the rules that hold for this container.

    Parameters
    ----------
    capabilities: the container's bounding set.
    kernel: major and minor version.
    machine: as uname tells it, x86_64 or aarch64.

    Raises
    ------
    UsageError: what is wrong and where in the profile.
    """
    if machine not in _MACHINES:
        raise UsageError(f"no seccomp filters for {machine}, only for {' and '.join(_MACHINES)}")
    _known_keys(document, _TOP_KEYS, "the seccomp profile")
    for key in ("listenerPath", "listenerMetadata"):
        if document.get(key):
            raise UsageError(f"{key}: pyrtc does not hand system calls to a listener")
    for flag in _strings(document.get("flags"), "flags"):
        # One thread loads the filter before the command exists, so there is nothing to synchronise.
        if flag != "SECCOMP_FILTER_FLAG_TSYNC":
            raise UsageError(f"flags: pyrtc does not support {flag}")
    if not document.get("defaultAction"):
        raise UsageError("defaultAction is missing; to run without a filter use seccomp=unconfined")
    default = _action(document, "defaultAction", "defaultErrnoRet", "defaultErrno", "")
    context = _Context(frozenset(names_of(capabilities)), kernel, _MACHINES[machine][0])
    rules: list[Rule] = []
    names: set[str] = set()
    for index, item in enumerate(_list(document.get("syscalls"), "syscalls")):
        where = f"syscalls[{index}]"
        group = _rules(_object(item, where), context, where)
        names.update(rule.name for rule in group)
        rules += [rule for rule in group if rule.action != default]
        if len(rules) > _MAX_RULES:
            raise UsageError(f"{where}: more than {_MAX_RULES} rules")
    kept = _without_contradictions(rules)
    return Profile(default, _architectures(document, machine), kept, frozenset(names))


@dataclass(frozen=True, slots=True)
class _Context:
    capabilities: frozenset[str]
    kernel: tuple[int, int]
    architecture: str


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r} is there twice in one object")
    return result


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"{where} must be an object")
    return value


def _list(value: object, where: str) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where} must be a list")
    return value


def _strings(value: object, where: str) -> list[str]:
    strings = [item for item in _list(value, where) if isinstance(item, str) and item]
    if len(strings) != len(_list(value, where)):
        raise UsageError(f"{where} must be a list of names")
    return strings


def _number(value: object, highest: int, where: str) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise UsageError(f"{where} must be a number from 0 to {highest}")
    return value


def _choice(value: object, choices: Iterable[str], where: str) -> str:
    if isinstance(value, str) and value in choices:
        return value
    raise UsageError(f"{where}: {value!r} is none of {', '.join(choices)}")


def _known_keys(document: Mapping[str, object], known: Sequence[str], where: str) -> None:
    for key in document:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")


def _action(document: Mapping[str, object], key: str, number: str, word: str, where: str) -> Action:
    """Read an action and its errno, which Docker writes as a number and podman as a name too."""
    action = document.get(key)
    if action in ("SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"):
        # A process of the container could attach to another and let the call through: the rule would forbid nothing.
        raise UsageError(f"{where}{key}: {action} needs a tracer outside the container, which pyrtc does not have")
    name = _choice(action, _RETURN_VALUES, f"{where}{key}")
    values: set[int] = set()
    if document.get(number) is not None:
        values.add(_number(document[number], _MAX_ERRNO, f"{where}{number}"))
    if document.get(word):
        code = getattr(errno, str(document[word]), None)
        if not str(document[word]).startswith("E") or not isinstance(code, int):
            raise UsageError(f"{where}{word}: {document[word]!r} is not the name of an error")
        values.add(code)
    if len(values) > 1:
        raise UsageError(f"{where}{number} and {word} contradict each other")
    if name == "SCMP_ACT_ERRNO":
        return Action(name, values.pop() if values else errno.EPERM)
    if values:
        raise UsageError(f"{where}{number}: only SCMP_ACT_ERRNO returns an error")
    return Action("SCMP_ACT_KILL" if name == "SCMP_ACT_KILL_THREAD" else name)


def _architectures(document: Mapping[str, object], machine: str) -> tuple[int, ...]:
    """Return the tokens of the architectures to filter for: the machine's own, which is always one, first."""
    _, native, besides = _MACHINES[machine]
    listed = _strings(document.get("architectures"), "architectures")
    mapped = _list(document.get("archMap"), "archMap")
    if listed and mapped:
        raise UsageError("architectures and archMap are both there; use one")
    for index, item in enumerate(mapped):
        where = f"archMap[{index}]"
        entry = _object(item, where)
        _known_keys(entry, ("architecture", "subArchitectures"), where)
        below = _strings(entry.get("subArchitectures"), f"{where}.subArchitectures")
        for name in (entry.get("architecture"), *below):
            _choice(name, {**ARCHITECTURES, **dict.fromkeys(sorted(_FOREIGN))}, where)
        if entry["architecture"] == native:
            listed = below
    for name in listed:
        _choice(name, {**ARCHITECTURES, **dict.fromkeys(sorted(_FOREIGN))}, "architectures")
    return tuple(dict.fromkeys([ARCHITECTURES[native], *(ARCHITECTURES[name] for name in listed if name in besides)]))


def _kernel_version(value: object, where: str) -> tuple[int, int]:
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise UsageError(f"{where}: write the kernel version as two numbers, for example 4.8")
    return int(parts[0]), int(parts[1])


def _conditions(value: object, context: _Context, where: str) -> tuple[list[bool], list[bool], list[bool]]:
    """Return whether each condition of includes or excludes holds: architectures, capabilities, kernel."""
    if value is None:
        return [], [], []
    conditions = _object(value, where)
    _known_keys(conditions, ("arches", "caps", "minKernel"), where)
    capabilities = _strings(conditions.get("caps"), f"{where}.caps")
    for name in capabilities:
        if name not in NAMES:
            raise UsageError(f"{where}.caps: there is no capability {name!r}")
    arches = _strings(conditions.get("arches"), f"{where}.arches")
    kernel = conditions.get("minKernel")
    return (
        [context.architecture in arches] if arches else [],
        [name in context.capabilities for name in capabilities],
        [context.kernel >= _kernel_version(kernel, f"{where}.minKernel")] if kernel else [],
    )


def _comparisons(value: object, where: str) -> list[Comparison]:
    comparisons = []
    for index, item in enumerate(_list(value, where)):
        here = f"{where}[{index}]"
        argument = _object(item, here)
        _known_keys(argument, ("index", "value", "valueTwo", "op"), here)
        comparisons.append(
            Comparison(
                _number(argument.get("index"), 5, f"{here}.index"),
                _OPERATORS[_choice(argument.get("op"), _OPERATORS, f"{here}.op")],
                _number(argument.get("value"), (1 << 64) - 1, f"{here}.value"),
                _number(argument.get("valueTwo", 0), (1 << 64) - 1, f"{here}.valueTwo"),
            )
        )
    return comparisons


def _rules(item: Mapping[str, object], context: _Context, where: str) -> list[Rule]:
    """Return the rules of one group, none when it does not hold here; it is checked whole in either case."""
    _known_keys(item, _RULE_KEYS, where)
    names = _strings(item.get("names"), f"{where}.names")
    if item.get("name"):
        if names:
            raise UsageError(f"{where}: name and names are both there; use one")
        names = _strings([item["name"]], f"{where}.name")
    if not names:
        raise UsageError(f"{where} names no system calls")
    action = _action(item, "action", "errnoRet", "errno", f"{where}.")
    comparisons = _comparisons(item.get("args"), f"{where}.args")
    included = _conditions(item.get("includes"), context, f"{where}.includes")
    excluded = _conditions(item.get("excludes"), context, f"{where}.excludes")
    # As in Docker: all conditions of includes must hold, and none of excludes may.
    if not all(held for held in (*included[0], *included[1], *included[2])):
        return []
    if any(held for held in (*excluded[0], *excluded[1], *excluded[2])):
        return []
    # As in runc: two conditions on one argument are alternatives, because libseccomp cannot join them in one rule.
    indices = [comparison.index for comparison in comparisons]
    joined = len(set(indices)) == len(indices)
    alternatives = [tuple(comparisons)] if joined else [(comparison,) for comparison in comparisons]
    return [Rule(name, action, alternative) for name in names for alternative in alternatives]


def _without_contradictions(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Keep the stricter of two rules for the same arguments; podman's profile, for one, has such pairs.

    libseccomp would keep the first and drop the other without a word. It would also drop every rule with conditions for
    a call that has one without, which is an error here where their actions differ.
    """
    kept: dict[tuple[str, frozenset[Comparison]], Rule] = {}
    for rule in rules:
        key = rule.name, frozenset(rule.comparisons)
        if key not in kept or rule.action.strictness > kept[key].action.strictness:
            kept[key] = rule
    for rule in kept.values():
        always = kept.get((rule.name, frozenset()))
        if always is not None and always.action != rule.action:
            raise UsageError(
                f"{rule.name} has the rule {always.action.name} without conditions, which leaves no room for "
                f"{rule.action.name} with conditions"
            )
    return tuple(kept.values())

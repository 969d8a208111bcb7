"""Device rules as a BPF program, which is how version 2 of control groups enforces them.

The program is called with a pointer to ``struct bpf_cgroup_dev_ctx {u32 access_type, major, minor}`` whenever a process
of the cgroup opens or makes a device node, and returns 1 to allow it. Source: the kernel's include/uapi/linux/bpf.h and
Documentation/bpf/standardization/instruction-set.rst.
"""

import struct
from collections.abc import Sequence

from pyrtc.runtime.cgroups.limits import DeviceRule

__all__ = ["assemble", "attach"]

_BLOCK, _CHARACTER = 1, 2
_ACCESS = {"m": 1, "r": 2, "w": 4}

# Instruction codes: class | operation | source.
_LOAD_WORD = 0x61  # dst = *(u32 *)(src + off)
_MOVE_REGISTER = 0xBF
_MOVE = 0xB7
_AND = 0x57
_SHIFT_RIGHT = 0x77
_JUMP_NOT_EQUAL = 0x55
_EXIT = 0x95

# Registers: the context comes in 1, the answer leaves in 0.
_ANSWER, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, target | source << 4, offset, value)


def assemble(rules: Sequence[DeviceRule]) -> bytes:
    """Return the program that allows what the rules allow together and nothing else.

    Each rule that matches the device strikes its accesses off the wanted ones; when none is left the answer is yes.
    """
    program = [
        _instruction(_LOAD_WORD, _TYPE, _CONTEXT, 0),
        _instruction(_MOVE_REGISTER, _WANTED, _TYPE),
        _instruction(_AND, _TYPE, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _WANTED, value=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for rule in rules:
        tests = []
        if rule.type != "a":
            tests.append((_TYPE, _BLOCK if rule.type == "b" else _CHARACTER))
        if rule.major is not None:
            tests.append((_MAJOR, rule.major))
        if rule.minor is not None:
            tests.append((_MINOR, rule.minor))
        others = ~sum(_ACCESS[letter] for letter in rule.access)
        body = [
            _instruction(_AND, _WANTED, value=others),
            _instruction(_JUMP_NOT_EQUAL, _WANTED, offset=2, value=0),
            _instruction(_MOVE, _ANSWER, value=1),
            _instruction(_EXIT),
        ]
        for position, (register, value) in enumerate(tests):
            skip = len(tests) - position - 1 + len(body)
            program.append(_instruction(_JUMP_NOT_EQUAL, register, offset=skip, value=value))
        program += body
    program += [_instruction(_MOVE, _ANSWER, value=0), _instruction(_EXIT)]
    return b"".join(program)


def attach(cgroup_fd: int, rules: Sequence[DeviceRule]) -> None:
    """Enforce the rules in a version 2 cgroup for as long as it exists.

    Raises
    ------
    LimitError: the kernel or the user's rights refuse.
    """
    from pyrtc import core

    core.attach_device_filter(cgroup_fd, assemble(rules))

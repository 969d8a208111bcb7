"""Running a seccomp filter as the kernel does, for tests; written apart from what pyrtc knows of filters."""

import struct

X86_64, I386, X32_BIT = 0xC000003E, 0x40000003, 0x40000000


def run(program: bytes, number: int, *arguments: int, arch: int = X86_64) -> int:
    """Interpret a filter as the kernel does (net/core/filter.c, kernel/seccomp.c)."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    for _ in range(len(instructions)):
        code, true, false, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x15:
                at += true if accumulator == value else false
            case 0x25:
                at += true if accumulator > value else false
            case 0x35:
                at += true if accumulator >= value else false
            case 0x45:
                at += true if accumulator & value else false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unexpected instruction {code:#x}")
    raise AssertionError("the filter does not end")

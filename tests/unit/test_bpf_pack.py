"""Packed filters answer as the originals, are smaller, and are not used when they differ."""

import itertools
import os
import random
import struct
import time
import warnings

import pytest
from bpf_interpreter import I386, X32_BIT, X86_64, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrtc.errors import UnsupportedError
from pyrtc.runtime import bpf_pack, bpf_program, bpf_tree, bpf_writer, libseccomp, seccomp, seccomp_profile
from pyrtc.runtime.bpf_pack import pack
from pyrtc.runtime.capabilities import DEFAULT, NAMES

ALLOW, EPERM, ENOSYS, KILL, KILL_PROCESS = 0x7FFF0000, 0x50001, 0x50026, 0, 0x80000000
LOAD, AND, JUMP, EQUAL, GREATER, GREATER_EQUAL, ANY_BIT, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
NUMBER, ARCH, ARGUMENT = 0, 4, 16
DOCKER = sum(1 << NAMES.index(name) for name in DEFAULT)
HIGH = (1 << 32) - 1


def assemble(*instructions: tuple[int, ...]) -> bytes:
    """Write (code, value) or (code, value, true, false)."""
    return b"".join(struct.pack("=HBBI", code, *(jumps or (0, 0)), value) for code, value, *jumps in instructions)


def chain(answers: dict[int, int], otherwise: int) -> list[tuple[int, ...]]:
    """Compare the number one by one, as libseccomp without its tree does."""
    program: list[tuple[int, ...]] = [(LOAD, NUMBER)]
    for number, answer in answers.items():
        program += [(EQUAL, number, 0, 1), (RETURN, answer)]
    return [*program, (RETURN, otherwise)]


def depth(program: bytes, number: int, arch: int) -> int:
    """Count the instructions that the kernel runs ahead for one call."""
    instructions, accumulator, at = list(struct.iter_unpack("=HBBI", program)), 0, 0
    for steps in itertools.count(1):
        code, true, false, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                if value > ARCH:
                    return steps
                accumulator = number if value == NUMBER else arch
            case 0x06:
                return steps
            case 0x05:
                at += value
            case 0x15:
                at += true if accumulator == value else false
            case 0x25:
                at += true if accumulator > value else false
            case 0x35:
                at += true if accumulator >= value else false
            case _:
                raise AssertionError(hex(code))
    raise AssertionError


def around(*programs: bytes) -> set[int]:
    """Return all that the programs compare with, and its neighbours."""
    constants = {
        value for program in programs for code, _, _, value in struct.iter_unpack("=HBBI", program) if code & 7 == 5
    }
    return {value + change & HIGH for value in constants | {0} for change in (-1, 0, 1)}


def assert_same(original: bytes, packed: bytes, source: random.Random, *, calls: int = 300) -> None:
    """Compare answers at everything that either program compares with, in random combinations."""
    values = sorted(around(original, packed))
    for _ in range(calls):
        number, arch = source.choice(values), source.choice([X86_64, I386, source.choice(values)])
        arguments = [source.choice(values) | source.choice([0, 0, source.choice(values)]) << 32 for _ in range(6)]
        expected = run(original, number, *arguments, arch=arch)
        assert run(packed, number, *arguments, arch=arch) == expected, (number, hex(arch), arguments)


def assert_valid(program: bytes) -> None:
    """Check what the kernel checks (bpf_check_classic, seccomp_check_filter), for the instructions that pack writes."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert 0 < len(instructions) <= 4096
    assert instructions[-1][0] == RETURN
    for at, (code, true, false, value) in enumerate(instructions, start=1):
        assert code in (LOAD, AND, JUMP, EQUAL, GREATER, GREATER_EQUAL, ANY_BIT, RETURN)
        if code == LOAD:
            assert value % 4 == 0 and value < 64
        elif code == JUMP:
            assert at + value < len(instructions)
        elif code & 7 == 5:
            assert at + max(true, false) < len(instructions)


def compiled(profile: dict[str, object], capabilities: int = 0) -> bytes:
    """Return what libseccomp makes of a profile, not packed."""
    try:
        libseccomp.version()
    except UnsupportedError as problem:
        pytest.skip(str(problem))
    decided = seccomp_profile.decide(profile, capabilities=capabilities, kernel=(6, 1), machine="x86_64")
    if os.uname().machine != "x86_64":
        pytest.skip("libseccomp compiles for the machine it is on, and this is not x86_64")
    return libseccomp.compile_to_bpf(decided)


@pytest.fixture(scope="module")
def original() -> bytes:
    return compiled(seccomp_profile.parse(seccomp._default_content()), DOCKER)


@pytest.fixture(scope="module")
def packed(original) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return pack(original)


# ---- Docker's rules -------------------------------------------------------------------------------------------------


def test_docker_rules_become_small_and_shallow(original, packed):
    assert_valid(packed)
    assert len(original) // 8 > 1000
    assert len(packed) // 8 <= 250
    depths = [depth(packed, number, arch) for arch in (X86_64, I386) for number in range(463)]
    assert sum(depths) / len(depths) < 12
    assert max(depths) <= 18


def test_every_number(original, packed):
    source = random.Random(1)
    numbers = [
        *range(601),
        *(source.getrandbits(32) for _ in range(300)),
        1 << 31,
        HIGH,
        X32_BIT - 1,
        (X32_BIT << 1) - 1,
    ]
    for number, bit, arch in itertools.product(numbers, (0, X32_BIT), (X86_64, I386)):
        arguments = source.choice([(), (0x10000000,), (40, 1), (HIGH << 32,), (8, 8, 8)])
        expected = run(original, number | bit, *arguments, arch=arch)
        assert run(packed, number | bit, *arguments, arch=arch) == expected, (number | bit, hex(arch), arguments)


def test_every_argument_that_is_looked_at(original, packed):
    """clone's flags, socket's family, personality's value; on three architectures."""
    low = {
        *range(50),
        *(1 << bit for bit in range(32)),
        0x7E020000,
        0x7E020000 ^ HIGH,
        0x20008,
        0x3D0F00,
        HIGH,
        HIGH - 1,
    }
    values = [*low, *(value | 1 << 32 for value in low), *(value << 32 for value in low), (1 << 64) - 1]
    calls = [(X86_64, number | bit) for number in (41, 56, 135, 435) for bit in (0, X32_BIT)]
    calls += [(I386, number) for number in (102, 120, 136, 359, 435)]
    answers = set()
    for (arch, number), value in itertools.product(calls, values):
        expected = run(original, number, value, arch=arch)
        assert run(packed, number, value, arch=arch) == expected, (number, hex(arch), hex(value))
        answers.add(expected)
    assert answers == {ALLOW, EPERM, ENOSYS}


def test_other_architectures(original, packed):
    source = random.Random(2)
    arches = {
        X86_64 - 1,
        X86_64 + 1,
        I386 - 1,
        I386 + 1,
        0,
        HIGH,
        0xC00000B7,
        *(source.getrandbits(32) for _ in range(50)),
    }
    for arch, number in itertools.product(arches, (0, 1, 56, 41, 600, X32_BIT)):
        assert run(packed, number, arch=arch) == run(original, number, arch=arch) == KILL_PROCESS


def test_packing_is_quick_and_final(original, packed):
    begin = time.process_time()
    assert pack(original) == packed
    assert time.process_time() - begin < 1  # 0.03 to 0.1 s
    assert pack(packed) in (packed, pack(pack(packed)))


@pytest.mark.parametrize("capabilities", [0, (1 << 41) - 1, DOCKER | 1 << NAMES.index("CAP_SYS_ADMIN")])
def test_other_capabilities(capabilities):
    program = compiled(seccomp_profile.parse(seccomp._default_content()), capabilities)
    smaller = pack(program)
    assert_valid(smaller)
    assert len(smaller) < len(program) / 4
    for arch, number in itertools.product((X86_64, I386), range(500)):
        assert run(smaller, number, arch=arch) == run(program, number, arch=arch)
    assert_same(program, smaller, random.Random(capabilities), calls=1000)


# ---- profiles and programs of all kinds -----------------------------------------------------------------------------

COMPARISON = st.fixed_dictionaries(
    {
        "index": st.integers(0, 5),
        "op": st.sampled_from(["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]).map(lambda name: f"SCMP_CMP_{name}"),
        "value": st.one_of(st.integers(0, 70), st.integers(0, (1 << 64) - 1)),
        "valueTwo": st.integers(0, 70),
    }
)
CALLS = st.sampled_from(
    ["read", "write", "clone", "socket", "mount", "openat", "ioctl", "clone3", "openat2", "futex", "waitpid"]
)
RULE = st.fixed_dictionaries(
    {
        "names": st.lists(CALLS, min_size=1, max_size=5),
        "action": st.sampled_from(["ALLOW", "ERRNO", "TRAP", "KILL_PROCESS"]).map(lambda name: f"SCMP_ACT_{name}"),
        "args": st.lists(COMPARISON, max_size=3),
    }
)
PROFILE = st.fixed_dictionaries(
    {
        "defaultAction": st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL"]),
        "architectures": st.sets(st.sampled_from(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])).map(sorted),
        "syscalls": st.lists(RULE, min_size=1, max_size=12),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(profile=PROFILE, seed=st.integers(0, 1 << 32))
def test_random_profiles(profile, seed):
    try:
        program = compiled(profile)
    except (seccomp_profile.UsageError, UnsupportedError):
        return  # rules that contradict each other
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smaller = pack(program)
    assert_valid(smaller)
    assert len(smaller) <= len(program)
    assert_same(program, smaller, random.Random(seed))


def random_program(source: random.Random) -> bytes:
    """Any order of the instructions that are understood, which libseccomp would never write."""
    size = source.randint(8, 80)
    constants = [0, 1, 2, 3, 7, 8, X32_BIT, I386, X86_64, 1 << 31, HIGH]
    codes = [EQUAL] * 6 + [GREATER] * 3 + [GREATER_EQUAL] * 3 + [ANY_BIT] + [LOAD] * 3 + [AND, JUMP, RETURN]
    program: list[tuple[int, ...]] = [(LOAD, source.choice([NUMBER, ARCH]))]
    for at in range(1, size):
        room = size - at - 2
        code = source.choice(codes)
        if room < 0 or code == RETURN:
            program.append((RETURN, source.choice([ALLOW, EPERM, ENOSYS, KILL])))
        elif code == LOAD:
            program.append((LOAD, source.choice([NUMBER, NUMBER, ARCH, ARGUMENT, ARGUMENT + 4])))
        elif code == AND and program[-1][0] != RETURN:
            # On a loaded argument only: after others the program would be returned as it is.
            program[-1] = (LOAD, ARGUMENT)
            program.append((AND, source.choice(constants)))
        elif code == JUMP:
            program.append((JUMP, source.randint(0, min(3, room))))
        else:
            reach = min(source.choice([1, 4, 20]), room)
            value = source.choice(constants) if code != ANY_BIT else source.choice([X32_BIT, 1 << 31, 3 << 28])
            program.append((code if code != AND else EQUAL, value, source.randint(0, reach), source.randint(0, reach)))
    return assemble(*program)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 1 << 64))
def test_random_programs(seed):
    source = random.Random(seed)
    program = random_program(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smaller = pack(program)
    assert_valid(smaller)
    assert len(smaller) <= len(program)
    assert_same(program, smaller, source, calls=100)


def test_a_program_with_far_jumps():
    """More leaves than a conditional jump can pass over, so that answers are copied and jumps are made in two steps."""
    source = random.Random(3)
    answers = {number: 0x50000 | source.choice([1, 2, 3, *range(4, 120)]) for number in range(1200)}
    program = assemble((LOAD, ARCH), (EQUAL, X86_64, 1, 0), (RETURN, KILL), *chain(answers, ENOSYS))
    smaller = pack(program)
    assert_valid(smaller)
    assert len(smaller) < len(program)
    assert all(run(smaller, number) == answer for number, answer in answers.items())
    assert run(smaller, 1200) == run(smaller, HIGH) == ENOSYS
    assert run(smaller, 0, arch=I386) == KILL


def test_jumps_in_two_steps_to_what_is_no_answer():
    """The argument's tests are shared by two numbers far apart, and are too long to be near to both."""
    tests = [
        instruction for value in range(300) for instruction in ((EQUAL, value * 2, 0, 1), (RETURN, 0x50000 | value))
    ]
    inner = [(LOAD, ARGUMENT), *tests, (RETURN, ALLOW)]
    numbers = [(EQUAL, 3 * number, 0, 1) for number in range(500)]
    ladder = [item for number, test in enumerate(numbers) for item in (test, (RETURN, 0x50000 | number % 90))]
    jumps = [(EQUAL, 301, 0, 1), (JUMP, len(ladder) + 3), (EQUAL, 1402, 0, 1), (JUMP, len(ladder) + 1)]
    program = assemble((LOAD, NUMBER), *jumps, *ladder, (RETURN, ENOSYS), *inner)
    smaller = pack(program)
    assert_valid(smaller)
    assert len(smaller) < len(program)
    for number, value in itertools.product((0, 3, 300, 301, 302, 1401, 1402, 1403), (0, 1, 2, 100, 598, 599, 600)):
        assert run(smaller, number, value) == run(program, number, value), (number, value)
    assert run(smaller, 301, 598) == 0x50000 | 299


def test_a_mask_is_applied_anew_to_what_is_loaded():
    tests = [(AND, 12), (EQUAL, 4, 0, 1), (RETURN, 1), (AND, 4), (EQUAL, 4, 0, 1), (RETURN, 2), (LOAD, ARGUMENT)]
    tests += [(AND, 2), (EQUAL, 2, 0, 1), (RETURN, 3), (RETURN, ALLOW)]
    padding = [(JUMP, 0)] * 5
    program = assemble((LOAD, ARGUMENT), *padding, (EQUAL, 99, 0, 1), (RETURN, 4), *tests)
    smaller = pack(program)
    assert len(smaller) < len(program)
    for value in [*range(64), 99]:
        assert run(smaller, 0, value) == run(program, 0, value), value


def test_a_constant_program():
    assert pack(assemble((LOAD, ARCH), (EQUAL, X86_64, 0, 0), (RETURN, ALLOW))) == assemble((RETURN, ALLOW))


def test_bits_of_the_number_are_understood_when_they_are_high():
    program = assemble(
        (LOAD, NUMBER), (ANY_BIT, X32_BIT, 0, 1), (RETURN, EPERM), *chain(dict.fromkeys(range(50), ALLOW), 0)
    )
    smaller = pack(program)
    assert len(smaller) < len(program)
    assert_same(program, smaller, random.Random(4))


# ---- what is left alone ---------------------------------------------------------------------------------------------

LONG = chain(dict.fromkeys(range(50), ALLOW), ENOSYS)


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"1234567",
        assemble((RETURN, ALLOW)),
        assemble((LOAD, NUMBER)),
        assemble((LOAD, NUMBER), (JUMP, 1), (RETURN, ALLOW)),
        assemble((LOAD, NUMBER), (EQUAL, 1, 1, 0), (RETURN, ALLOW)),
        assemble((EQUAL, 1, 0, 0), *LONG),  # nothing was loaded
        assemble((LOAD, 2), *LONG),
        assemble((LOAD, 64), *LONG),
        assemble((0x80, 0), *LONG),  # the size of the data
        assemble((0x00, 5), *LONG),  # a constant
        assemble((0x07, 0), *LONG),  # to the other register
        assemble((0x02, 0), *LONG),  # to memory
        assemble((0x16, 0), *LONG),  # return of the accumulator
        assemble((LOAD, NUMBER), (0x04, 1), (EQUAL, 1, 0, 0), *LONG),  # an addition
        assemble((LOAD, NUMBER), (ANY_BIT, 1, 0, 1), (RETURN, EPERM), *LONG),
        assemble((LOAD, NUMBER), (AND, 0xFF), (EQUAL, 1, 0, 1), (RETURN, EPERM), *LONG),
    ],
)
def test_what_is_not_understood_stays(program):
    assert pack(program) is program


def test_a_program_that_takes_too_long_stays():
    """Every number runs through a long chain: quadratic, and bounded."""
    numbers = {number * 2: 0x50000 | number % 2 for number in range(2000)}
    begin = time.process_time()
    program = assemble(*chain(numbers, ALLOW))
    assert pack(program) is program
    assert time.process_time() - begin < 20  # a second or two


# ---- what would be wrong is not used --------------------------------------------------------------------------------


def shift_a_boundary(monkeypatch):
    original = bpf_tree._Tree._split
    monkeypatch.setattr(bpf_tree._Tree, "_split", lambda self, middle, low, high: original(self, middle, high, low))


def move_a_number(monkeypatch):
    original = bpf_tree._join
    monkeypatch.setattr(
        bpf_tree,
        "_join",
        lambda pieces: [piece._replace(low=piece.low + (piece.low == 56)) for piece in original(pieces)],
    )


def lose_a_piece(monkeypatch):
    original = bpf_tree._join
    monkeypatch.setattr(bpf_tree, "_join", lambda pieces: (joined := original(pieces))[: len(joined) // 2 + 1])


def jump_too_far(monkeypatch):
    original = bpf_writer._Writer._offset
    monkeypatch.setattr(
        bpf_writer._Writer, "_offset", lambda self, entry: original(self, entry) + (len(self._reversed) == 50)
    )


def leave_out_loads(monkeypatch):
    monkeypatch.setattr(
        bpf_writer, "_entry", lambda graph, origin, target: bpf_writer._Entry(target, 2 if target < 1 else 0)
    )


def write_another_answer(monkeypatch):
    original = bpf_writer._Writer.add

    def add(self, code, value, true=0, false=0):
        original(self, code, ALLOW if value == ENOSYS else value, true, false)

    monkeypatch.setattr(bpf_writer._Writer, "add", add)


def write_another_mask(monkeypatch):
    original = bpf_writer._Writer.add

    def add(self, code, value, true=0, false=0):
        original(self, code, value & ~0x10000000 if code == AND else value, true, false)

    monkeypatch.setattr(bpf_writer._Writer, "add", add)


def read_the_other_half(monkeypatch):
    original = bpf_writer._Writer.add

    def add(self, code, value, true=0, false=0):
        original(self, code, value ^ 4 if code == LOAD and value >= ARGUMENT else value, true, false)

    monkeypatch.setattr(bpf_writer._Writer, "add", add)


def write_what_is_not_understood(monkeypatch):
    original = bpf_writer._Writer.content
    monkeypatch.setattr(bpf_writer._Writer, "content", lambda self: original(self)[:-8])


@pytest.mark.parametrize(
    "damage",
    [
        *(shift_a_boundary, move_a_number, lose_a_piece, jump_too_far, leave_out_loads, write_another_answer),
        *(write_another_mask, read_the_other_half, write_what_is_not_understood),
    ],
)
def test_a_wrong_packing_is_found(original, monkeypatch, damage):
    damage(monkeypatch)
    with pytest.warns(RuntimeWarning, match="does not answer as the one that libseccomp compiled"):
        assert pack(original) is original


def test_each_changed_number_is_found(original, packed):
    """No constant, jump or code of the packed program can change by one without being found or being without effect."""
    source = random.Random(5)
    instructions = list(struct.iter_unpack("=HBBI", packed))
    graph = bpf_program.Graph()
    found = 0
    for _ in range(60):
        at = source.randrange(len(instructions))
        code, true, false, value = instructions[at]
        match source.randrange(3):
            case 0:
                changed = code, true, false, value ^ 1 << source.randrange(32)
            case 1:
                changed = code, true ^ 1 << source.randrange(8), false, value
            case _:
                changed = {EQUAL: GREATER, GREATER_EQUAL: GREATER, GREATER: EQUAL}.get(code, code), true, false, value
        mutant = b"".join(
            struct.pack("=HBBI", *(changed if here == at else instruction))
            for here, instruction in enumerate(instructions)
        )
        if not bpf_pack._same(graph, original, mutant):
            found += 1
        else:
            assert_same(original, mutant, source, calls=2000)
    assert found > 25

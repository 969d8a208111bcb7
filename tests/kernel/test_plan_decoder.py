"""The plan that pyrtc-init is given: a malformed one ends in the check and not in a wild pointer (CVE-2021-43784)."""

import errno
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from pyrtc import core
from pyrtc._core import ffi, lib
from pyrtc.runtime import namespaces
from pyrtc.runtime.helper import helper_fd
from pyrtc.runtime.plan import Plan, describe, operation, words

ROOT = Path(__file__).parents[2]
HEADER = struct.Struct("=IIII")
HEAD = struct.Struct("=HHIiIQQII")
CASES = 30_000

HARNESS = r"""
#include "init.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t text_length(const char *text) { return strlen(text); }

/* Every byte that an operation may look at. */
static unsigned long touch(const struct plan *plan)
{
    unsigned long sum = 0;
    const struct plan_op *op = plan_first(plan);
    for (uint32_t i = 0; i < plan->header->slot_count; i++)
        sum += (unsigned long)plan->slots[i];
    for (uint32_t i = 0; i < plan->header->op_count; i++, op = plan_next(op)) {
        for (uint32_t k = 0; k < op->string_count + 1 && k < 100; k++)
            sum += strlen(plan_string(op, k));
        const unsigned char *blob = plan_blob(op);
        for (uint32_t k = 0; k < op->blob_size; k++)
            sum += blob[k];
        sum += strlen(plan_text(op));
        if (op->slot >= 0)
            sum += (unsigned long)plan->slots[op->slot];
    }
    return sum;
}

int main(void)
{
    uint32_t size;
    while (fread(&size, sizeof(size), 1, stdin) == 1) {
        char *bytes = malloc(size ? size : 1); /* exactly this long: the sanitizer sees the first byte beyond */
        if (size && fread(bytes, size, 1, stdin) != 1)
            return 1;
        struct plan plan;
        long result = plan_check(bytes, size, &plan);
        printf("%ld %lu\n", result, result < 0 ? 0 : touch(&plan));
        free(bytes);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """init/plan.c under the sanitizers, as a program that checks plan after plan."""
    compiler = shutil.which("clang") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    directory = tmp_path_factory.mktemp("decoder")
    (directory / "harness.c").write_text(HARNESS)
    sources = ["-I", ROOT / "csrc" / "init", directory / "harness.c", ROOT / "csrc" / "init" / "plan.c"]
    flags = ["-std=gnu17", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-D_GNU_SOURCE"]
    done = subprocess.run(
        [compiler, *flags, *sources, "-o", directory / "decoder"], capture_output=True, text=True, check=False
    )
    if (done.returncode and "sanitize" in done.stderr) or "asan" in done.stderr:
        pytest.skip(f"needs the sanitizers of {compiler}")
    assert done.returncode == 0, done.stderr
    return directory / "decoder"


def check(decoder: Path, plans: list[bytes]) -> list[int]:
    """Return what plan_check() says of each."""
    stream = b"".join(struct.pack("=I", len(plan)) + plan for plan in plans)
    environment = {"ASAN_OPTIONS": "detect_leaks=0", "PATH": os.environ.get("PATH", "")}
    done = subprocess.run([decoder], input=stream, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    answers = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert len(answers) == len(plans)
    return answers


def encode(operations: list[bytes], slots: tuple[int, ...] = (-1, -1, -1), **header: int) -> bytes:
    table = struct.pack(f"={len(slots)}i", *slots)
    table += b"\0" * (-len(table) % 8)
    body = table + b"".join(operations)
    fields = {
        "magic": 0x70727463,
        "size": HEADER.size + len(body),
        "slot_count": len(slots),
        "ops": len(operations),
        **header,
    }
    return HEADER.pack(fields["magic"], fields["size"], fields["slot_count"], fields["ops"]) + body


def sample(chance: random.Random) -> list[bytes]:
    """A plan as Python writes it, with everything that operations can carry."""
    operations = []
    for _ in range(chance.randint(1, 8)):
        strings = [chance.randbytes(chance.randint(0, 40)).replace(b"\0", b"x") for _ in range(chance.randint(0, 5))]
        operations.append(
            operation(
                chance.randint(1, lib.PLAN_EXEC),
                *strings,
                slot=chance.choice([-1, 0, 1, 2]),
                flags=chance.getrandbits(16),
                mode=chance.getrandbits(32),
                a=chance.getrandbits(64),
                b=chance.getrandbits(64),
                blob=chance.randbytes(chance.randint(0, 50)),
            )
        )
    return operations


def test_what_python_writes_is_accepted(decoder: Path) -> None:
    chance = random.Random(1)
    plans = [encode(sample(chance), tuple(range(3, 3 + chance.randint(3, 20)))) for _ in range(500)]
    assert check(decoder, plans) == [0] * 500
    assert check(decoder, [encode([], ()), encode([operation(1)], (5,))]) == [0, 0]


def test_malformed_plans_are_refused(decoder: Path) -> None:
    good = operation(lib.PLAN_HOSTNAME, "name", blob=b"blob")

    def head(**changes: int) -> bytes:
        names = ("code", "flags", "size", "slot", "mode", "a", "b", "strings", "blob")
        fields = dict(zip(names, HEAD.unpack_from(good), strict=True)) | changes
        return HEAD.pack(*(fields[name] for name in names)) + good[HEAD.size :]

    plans = {
        "empty": b"",
        "short header": encode([])[:15],
        "wrong magic": encode([good], magic=1),
        "size too small": encode([good], size=len(encode([good])) - 8),
        "size too large": encode([good], size=len(encode([good])) + 8),
        "too many slots": encode([good], slot_count=1025),
        "slots beyond the end": encode([], (), slot_count=1000),
        "slots that overflow": encode([good], slot_count=0xFFFFFFFF),
        "more operations than there are": encode([good], ops=2),
        "operations without end": encode([good], ops=0xFFFFFFFF),
        "fewer operations than there are": encode([good, good], ops=1),
        "operation of size 0": encode([head(size=0)]),
        "operation smaller than its head": encode([head(size=HEAD.size - 8)]),
        "operation beyond the end": encode([head(size=len(good) + 8)]),
        "operation of 4 GiB": encode([head(size=0xFFFFFFF8)]),
        "size not a multiple of 8": encode([head(size=len(good) - 4)]),
        "string without end": encode([head(strings=3)[: len(good)].rstrip(b"\0").ljust(len(good), b"x")]),
        "more strings than fit": encode([head(strings=1000)]),
        "4 G strings": encode([head(strings=0xFFFFFFFF)]),
        "blob beyond the end": encode([head(blob=len(good))]),
        "blob of 4 GiB": encode([head(blob=0xFFFFFFFF)]),
        "slot beyond the table": encode([head(slot=3)]),
        "largest slot": encode([head(slot=0x7FFFFFFF)]),
        "too large": encode([operation(1, blob=b"x" * (16 << 20))]),
        "half an operation": encode([good])[:-8],
    }
    answers = dict(zip(plans, check(decoder, list(plans.values())), strict=True))
    assert answers == dict.fromkeys(plans, -errno.EBADMSG)


def test_mutated_plans_never_lead_outside(decoder: Path) -> None:
    chance = random.Random(int(os.environ.get("PYRTC_FUZZ_SEED", "2")))
    plans = []
    for _ in range(int(os.environ.get("PYRTC_FUZZ_CASES", str(CASES)))):
        plan = bytearray(encode(sample(chance), tuple(range(chance.randint(0, 5)))))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(plan))
            match chance.randrange(5):
                case 0:
                    plan[at] ^= 1 << chance.randrange(8)
                case 1:
                    plan[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
                case 2:
                    at &= ~3
                    plan[at : at + 4] = struct.pack(
                        "=I", chance.choice([0, 1, 8, 48, 0x7FFFFFFF, 0xFFFFFFF8, 0xFFFFFFFF])
                    )
                case 3:
                    del plan[at : at + chance.choice([1, 4, 8, 16])]
                case 4:
                    plan[at:at] = chance.randbytes(chance.choice([1, 4, 8, 16]))
            plan = plan or bytearray(b"\0")
        if chance.random() < 0.5 and len(plan) >= 8:  # get past the first check
            plan[4:8] = struct.pack("=I", len(plan))
        plans.append(bytes(plan))
    answers = check(decoder, plans)
    assert set(answers) <= {0, -errno.EBADMSG}
    assert answers.count(0) > len(answers) // 50  # else nothing behind the check was looked at


# ---- the program itself --------------------------------------------------------------------------------------------

EVERYTHING = (
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
)


def report_of(operations: list[bytes], slots: tuple[int, ...] = (-1, -1, -1)) -> tuple[int, int, int]:
    """Run pyrtc-init in namespaces of its own; returns the failing operation, the error, and the exit code."""
    child = core.spawn(helper_fd(), operations, slots, EVERYTHING)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=child.status_fd) as status:
            status.settimeout(10)
            message = status.recv(4096)
        end = core.reap(child.pidfd)
    finally:
        os.close(child.pidfd)
    assert end is not None
    assert not end.signaled, f"killed by {signal.Signals(end.status).name}"
    assert len(message) == ffi.sizeof("struct report")
    kind, index, code = struct.unpack_from("=IIi", message)
    assert kind == lib.REPORT_FAILED
    return index, code, end.status


def test_the_program_reports_what_is_malformed() -> None:
    good = operation(lib.PLAN_UMASK, mode=0o22)
    broken = HEAD.pack(1, 0, 0xFFFFFFF8, -1, 0, 0, 0, 0, 0)
    for operations in ([broken], [good, broken], [good[:8]], [good, good + b"\0" * 8]):
        assert report_of(operations) == (0, errno.EBADMSG, 125)


def test_the_program_stops_at_the_first_failure() -> None:
    good = operation(lib.PLAN_UMASK, mode=0o22)
    cases = {
        "unknown code": (operation(9999), errno.ENOSYS),
        "code 0": (operation(0), errno.ENOSYS),
        "no slot": (operation(lib.PLAN_TASKS), errno.EINVAL),
        "nobody to join": (operation(lib.PLAN_JOIN, a=namespaces.CLONE_NEWNS), errno.EINVAL),
        "something else than a process to join": (operation(lib.PLAN_JOIN, slot=0, a=EVERYTHING), errno.EBADF),
        "a new process where nothing was joined": (operation(lib.PLAN_FORK), errno.EINVAL),
        "no mount": (operation(lib.PLAN_BIND_SLOT, "/x"), errno.EINVAL),
        "no root": (operation(lib.PLAN_ROOT_SLOT), errno.EINVAL),
        "no layers": (operation(lib.PLAN_ROOT_OVERLAY, "upper", "work"), errno.EINVAL),
        "too many layers": (operation(lib.PLAN_ROOT_OVERLAY, *["x"] * 600), errno.EINVAL),
        "no arguments": (operation(lib.PLAN_EXEC, "PATH=/"), errno.E2BIG),
        "too many arguments": (operation(lib.PLAN_EXEC, *["x"] * 65537, a=1), errno.E2BIG),
        "more arguments than strings": (operation(lib.PLAN_EXEC, "x", a=2), errno.E2BIG),
        "filter of half an instruction": (operation(lib.PLAN_SECCOMP, blob=b"1234"), errno.EINVAL),
        "empty program name": (operation(lib.PLAN_EXEC, "", a=1), errno.ENOENT),
        "a mount without a root": (operation(lib.PLAN_MOUNT, "tmpfs", "/x"), errno.EPERM),
        "no way to the target": (operation(lib.PLAN_MKDIR, "/x"), errno.EBADF),
    }
    for what, (bad, code) in cases.items():
        index, error, status = report_of([good, bad, good])
        assert (index, status) == (1, 125), what
        assert error in (code, errno.EBADF), what
    assert report_of([good]) == (1, errno.ENOEXEC, 125)  # a plan without an end


def test_plans_for_people() -> None:
    plan = Plan()
    plan.add(lib.PLAN_BIND, "/source", "/target", mode=1, flags=lib.PLAN_RECURSIVE, a=1, b=2)
    plan.add(lib.PLAN_EXEC, "echo", "hello", "SECRET=x", a=2)
    assert words(plan.operations[0]) == ("bind", ["/source", "/target"])
    lines = plan.describe().splitlines()
    assert lines[0].split()[:3] == ["bind", "/source", "/target"]
    assert lines[1].split() == ["exec", "echo", "hello"]
    assert "SECRET" not in describe(plan.operations[1])

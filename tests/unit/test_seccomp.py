"""Seccomp filters: what they answer, interpreted here and asked of the kernel; profiles; the cache."""

import errno
import json
import os
import stat
import struct
import subprocess
import sys
import threading

import pytest
from bpf_interpreter import I386, X32_BIT, X86_64, run

from pyrtc.errors import UnsupportedError, UsageError
from pyrtc.runtime import libseccomp, seccomp, seccomp_profile
from pyrtc.runtime.capabilities import DEFAULT, NAMES
from pyrtc.runtime.seccomp import cached_filter, compile_profile

if os.uname().machine != "x86_64":
    pytest.skip("the call numbers in these tests are those of x86_64", allow_module_level=True)
try:
    libseccomp.version()
except UnsupportedError as problem:
    pytest.skip(str(problem), allow_module_level=True)

ALLOW, EPERM, ENOSYS, KILL, KILL_PROCESS = 0x7FFF0000, 0x50001, 0x50026, 0, 0x80000000
DOCKER = sum(1 << NAMES.index(name) for name in DEFAULT)

# Numbers on x86_64, where x32 has the same with a bit set, unless written otherwise.
# fmt: off
NUMBER = {
    "read": 0, "socket": 41, "clone": 56, "ptrace": 101, "syslog": 103, "personality": 135, "chroot": 161,
    "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169, "iopl": 172,
    "init_module": 175, "mbind": 237, "kexec_load": 246, "keyctl": 250, "openat": 257, "unshare": 272,
    "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308, "kcmp": 312, "bpf": 321, "userfaultfd": 323,
    "io_uring_setup": 425, "open_tree": 428, "clone3": 435, "openat2": 437, "arch_prctl": 158, "vhangup": 153,
}
# fmt: on
NUMBER_I386 = {"read": 3, "waitpid": 7, "mount": 21, "socketcall": 102, "clone": 120, "socket": 359, "clone3": 435}


def capabilities(*names: str) -> int:
    return DOCKER | sum(1 << NAMES.index(f"CAP_{name}") for name in names)


@pytest.fixture(scope="module")
def default() -> bytes:
    return compile_profile(None, capabilities=DOCKER)


def small(**changes: object) -> dict[str, object]:
    """A profile that allows read, with changes."""
    rules = [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules, **changes}


def rule(name: str, action: str = "SCMP_ACT_ALLOW", **more: object) -> dict[str, object]:
    return {"names": [name], "action": action, **more}


# ---- the default rules ----------------------------------------------------------------------------------------------


def test_the_default_profile_is_dockers():
    profile = seccomp_profile.parse(seccomp._default_content())
    groups = profile["syscalls"]
    assert isinstance(groups, list)
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert len(profile["archMap"]) == 9  # type: ignore[arg-type]
    assert len(groups) == 33
    assert len(groups[0]["names"]) == len(set(groups[0]["names"])) == 361
    assert len({name for group in groups for name in group["names"]}) == 426
    decided = seccomp_profile.decide(profile, capabilities=DOCKER, kernel=(6, 1), machine="x86_64")
    # 361 + ptrace and process_vm_* (3) + socket (3) + personality (5) + arch_prctl, modify_ldt + chroot + clone, clone3
    assert len(decided.rules) == 377


def test_size_is_bounded(default):
    assert len(default) % 8 == 0
    assert len(default) // 8 <= 300


@pytest.mark.parametrize("name", ["read", "openat", "openat2", "ptrace", "chroot", "arch_prctl"])
def test_allowed(default, name):
    assert run(default, NUMBER[name]) == ALLOW


@pytest.mark.parametrize(
    "name",
    [
        *("mount", "umount2", "unshare", "setns", "open_tree", "keyctl", "bpf", "perf_event_open", "userfaultfd"),
        *("io_uring_setup", "kexec_load", "reboot", "swapon", "init_module", "iopl", "acct", "settimeofday", "syslog"),
        *("open_by_handle_at", "kcmp", "mbind", "vhangup"),
    ],
)
def test_denied(default, name):
    assert run(default, NUMBER[name]) == EPERM
    assert run(default, NUMBER[name] | X32_BIT) == EPERM


def test_new_namespaces_and_clone3(default):
    thread = 0x3D0F00  # CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | ... as pthread_create asks
    assert run(default, NUMBER["clone"], thread) == ALLOW
    assert run(default, NUMBER["clone"], 17) == ALLOW
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert run(default, NUMBER["clone"], 17 | bit) == EPERM
        assert run(default, NUMBER_I386["clone"], 17 | bit, arch=I386) == EPERM
    assert run(default, NUMBER["clone3"]) == ENOSYS
    assert run(default, NUMBER_I386["clone3"], arch=I386) == ENOSYS
    powerful = compile_profile(None, capabilities=capabilities("SYS_ADMIN"))
    assert run(powerful, NUMBER["clone"], 0x10000000) == ALLOW
    assert run(powerful, NUMBER["clone3"]) == ALLOW


def test_address_families(default):
    for family in range(64):
        expected = EPERM if family in (38, 40) else ALLOW
        assert run(default, NUMBER["socket"], family) == expected, family
        assert run(default, NUMBER["socket"] | X32_BIT, family) == expected, family
        assert run(default, NUMBER_I386["socket"], family, arch=I386) == expected, family
    assert run(default, NUMBER_I386["socketcall"], arch=I386) == ALLOW


def test_personalities(default):
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert run(default, NUMBER["personality"], value) == ALLOW
    for value in (1, 0x0400000, 0x40000, 0xFFFFFFFE, 1 << 32):
        assert run(default, NUMBER["personality"], value) == EPERM


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ("SYS_ADMIN", ["mount", "umount2", "unshare", "setns", "open_tree", "bpf", "perf_event_open", "syslog"]),
        ("SYS_BOOT", ["reboot"]),
        ("SYS_MODULE", ["init_module"]),
        ("SYS_PACCT", ["acct"]),
        ("SYS_PTRACE", ["kcmp", "ptrace"]),
        ("SYS_RAWIO", ["iopl"]),
        ("SYS_TIME", ["settimeofday"]),
        ("SYS_TTY_CONFIG", ["vhangup"]),
        ("SYS_NICE", ["mbind"]),
        ("SYSLOG", ["syslog"]),
        ("BPF", ["bpf"]),
        ("PERFMON", ["perf_event_open"]),
        ("DAC_READ_SEARCH", ["open_by_handle_at"]),
    ],
)
def test_capabilities_open_their_calls(default, capability, names):
    program = compile_profile(None, capabilities=capabilities(capability))
    opened = {name for name, number in NUMBER.items() if run(program, number) == ALLOW != run(default, number)}
    assert {name for name in names if run(default, NUMBER[name]) != ALLOW} <= opened
    assert opened <= {*names, "clone3"}


def test_without_a_capability_its_calls_are_closed():
    program = compile_profile(None, capabilities=0)
    assert run(program, NUMBER["chroot"]) == EPERM
    assert run(program, NUMBER["read"]) == ALLOW


def test_an_old_kernel_has_no_ptrace():
    assert run(compile_profile(None, capabilities=DOCKER, kernel=(4, 7)), NUMBER["ptrace"]) == EPERM
    assert run(compile_profile(None, capabilities=DOCKER, kernel=(4, 8)), NUMBER["ptrace"]) == ALLOW


def test_other_architectures(default):
    assert run(default, NUMBER_I386["read"], arch=I386) == ALLOW
    assert run(default, NUMBER_I386["waitpid"], arch=I386) == ALLOW
    assert run(default, NUMBER_I386["mount"], arch=I386) == EPERM
    assert run(default, NUMBER["read"] | X32_BIT) == ALLOW
    assert run(default, NUMBER["clone3"] | X32_BIT) == ENOSYS
    assert run(default, NUMBER["read"], arch=0xC00000B7) == KILL_PROCESS


def test_calls_newer_than_the_profile_do_not_exist(default):
    assert run(default, 500) == ENOSYS
    for number in (600, 0x3FFFFFFF):  # x32 has calls of its own from 512 to 547
        assert run(default, number) == ENOSYS
        assert run(default, number | X32_BIT) == ENOSYS
        assert run(default, number, arch=I386) == ENOSYS
    assert run(compile_profile(small(), capabilities=0), 1) == ENOSYS
    assert run(compile_profile(small(syscalls=[rule("write"), rule("read")]), capabilities=0), 2) == ENOSYS
    permitting = small(defaultAction="SCMP_ACT_ALLOW", syscalls=[rule("read", "SCMP_ACT_ERRNO")])
    assert run(compile_profile(permitting, capabilities=0), 600) == ALLOW


def test_every_call_on_every_architecture_is_answered_as_its_rules_say(default):
    """Against a plain reading of the rules, argument conditions aside."""
    _, library = libseccomp._library()
    decided = seccomp_profile.decide(
        seccomp_profile.parse(seccomp._default_content()), capabilities=DOCKER, kernel=(6, 1), machine="x86_64"
    )
    for arch, token, bit in ((X86_64, X86_64, 0), (I386, I386, 0), (X86_64, 0x4000003E, X32_BIT)):
        expected: dict[int, int] = {}
        conditional: set[int] = set()
        for item in decided.rules:
            number = library.seccomp_syscall_resolve_name_arch(token, item.name.encode())
            if number >= 0:
                expected[number & ~bit] = item.action.value
                if item.comparisons:
                    conditional.add(number & ~bit)
        if arch == I386:
            # To libseccomp these are parts of socketcall and ipc; the numbers of their own came with Linux 4.3 and 5.1.
            expected |= dict.fromkeys([337, 345, *range(360, 374), *range(393, 403)], ALLOW)
            conditional.add(NUMBER_I386["socket"])
        assert len(expected) > 250
        youngest = max(expected)
        for number in range(youngest + 20):
            if number not in conditional:
                answer = expected.get(number, ENOSYS if number > youngest else EPERM)
                assert run(default, number | bit, arch=arch) == answer, (hex(arch), number)


LOADED = """
import ctypes, errno, json, os, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
program = sys.stdin.buffer.read()
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0) == 0, ctypes.get_errno()
def call(*arguments):
    result = libc.syscall(*map(ctypes.c_long, arguments))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "ok"
def family(number):
    try:
        socket.socket(number, socket.SOCK_SEQPACKET if number == 38 else socket.SOCK_DGRAM).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
thread = threading.Thread(target=lambda: None)
thread.start(); thread.join()
child = os.fork()
if child == 0:
    os._exit(7)
print(json.dumps({
    "getpid": call(39), "mount": call(165, 0, 0, 0, 0, 0), "unshare": call(272, 0x10000000), "clone3": call(435, 0, 0),
    "future": call(600), "x32": call(0x40000000 | 165, 0, 0, 0, 0, 0), "keyctl": call(250, 0, -3, 0), "unix": family(1),
    "alg": family(38), "vsock": family(40), "fork": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]),
}))
"""


def load(program: bytes, script: str = LOADED, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", script, *arguments], input=program, capture_output=True)


def test_the_kernel_takes_it_and_answers_alike(default):
    done = load(default)
    assert done.returncode == 0, done.stderr.decode()
    answers = dict.fromkeys(("mount", "unshare", "x32", "keyctl", "alg", "vsock"), "EPERM")
    answers |= dict.fromkeys(("clone3", "future"), "ENOSYS") | dict.fromkeys(("getpid", "unix"), "ok")
    assert json.loads(done.stdout) == {**answers, "fork": 7}


KILLED = (
    LOADED[: LOADED.index("def family")]
    + """
import time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
call(int(sys.argv[1], 0), 0, -3, 0)
print("alive")
"""
)


@pytest.mark.parametrize("number", ["250", "0x40000000"])
def test_the_kernel_kills_the_whole_process(number):
    document = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("keyctl", "SCMP_ACT_KILL_PROCESS")]}
    done = load(compile_profile(document, capabilities=0), KILLED, number)
    assert (done.returncode, done.stdout) == (-31, b"")  # SIGSYS


# ---- profiles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "more", "value"),
    [
        ("SCMP_ACT_ALLOW", {}, ALLOW),
        ("SCMP_ACT_LOG", {}, 0x7FFC0000),
        ("SCMP_ACT_ERRNO", {"errnoRet": 38}, ENOSYS),
        ("SCMP_ACT_ERRNO", {"errno": "ENOSYS"}, ENOSYS),
        ("SCMP_ACT_ERRNO", {"errno": "ENOSYS", "errnoRet": 38}, ENOSYS),
        ("SCMP_ACT_ERRNO", {"errnoRet": 0}, 0x50000),
        ("SCMP_ACT_TRAP", {}, 0x30000),
        ("SCMP_ACT_KILL", {}, KILL),
        ("SCMP_ACT_KILL_THREAD", {}, KILL),
        ("SCMP_ACT_KILL_PROCESS", {}, KILL_PROCESS),
    ],
)
def test_actions(action, more, value):
    program = compile_profile(small(syscalls=[rule("mount", action, **more), rule("openat2")]), capabilities=0)
    assert run(program, NUMBER["mount"]) == value
    assert run(program, NUMBER["openat"]) == EPERM


@pytest.mark.parametrize(
    ("operator", "value", "two", "allowed"),
    [
        ("NE", 5, 0, lambda x: x != 5),
        ("LT", 5, 0, lambda x: x < 5),
        ("LE", 5, 0, lambda x: x <= 5),
        ("EQ", 5, 0, lambda x: x == 5),
        ("GE", 5, 0, lambda x: x >= 5),
        ("GT", 5, 0, lambda x: x > 5),
        ("MASKED_EQ", 6, 4, lambda x: x & 6 == 4),
        ("GT", 1 << 40, 0, lambda x: x > 1 << 40),
    ],
)
def test_operators(operator, value, two, allowed):
    argument = {"index": 2, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": two}
    program = compile_profile(small(syscalls=[rule("mount", args=[argument]), rule("openat2")]), capabilities=0)
    for x in (0, 3, 4, 5, 6, 7, 100, 1 << 32 | 5, 1 << 40, (1 << 40) + 1, (1 << 64) - 1):
        assert run(program, NUMBER["mount"], 9, 9, x) == (ALLOW if allowed(x) else EPERM), x


def test_conditions_on_several_arguments_join_and_on_one_are_alternatives():
    def equal(index: int, value: int) -> dict[str, object]:
        return {"index": index, "op": "SCMP_CMP_EQ", "value": value}

    both = compile_profile(small(syscalls=[rule("mount", args=[equal(0, 1), equal(1, 2)])]), capabilities=0)
    answers = [run(both, NUMBER["mount"], *arguments) for arguments in ((1, 2), (1, 3), (2, 2))]
    assert answers == [ALLOW, EPERM, EPERM]
    either = compile_profile(small(syscalls=[rule("mount", args=[equal(0, 1), equal(0, 2)])]), capabilities=0)
    assert [run(either, NUMBER["mount"], value) for value in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]


def test_the_stricter_of_two_rules_holds():
    for first, second in (("SCMP_ACT_ALLOW", "SCMP_ACT_TRAP"), ("SCMP_ACT_TRAP", "SCMP_ACT_ALLOW")):
        program = compile_profile(small(syscalls=[rule("mount", first), rule("mount", second)]), capabilities=0)
        assert run(program, NUMBER["mount"]) == 0x30000


def test_architectures_of_a_profile():
    only = compile_profile(small(architectures=["SCMP_ARCH_X86_64"]), capabilities=0)
    assert run(only, 0) == ALLOW
    assert run(only, NUMBER_I386["read"], arch=I386) == KILL_PROCESS
    assert run(only, X32_BIT) == KILL_PROCESS
    assert run(compile_profile(small(architectures=["SCMP_ARCH_X86"]), capabilities=0), 3, arch=I386) == ALLOW
    mapped = [{"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]}]
    assert run(compile_profile(small(archMap=mapped), capabilities=0), 3, arch=I386) == KILL_PROCESS
    conditional = [
        rule("mount", includes={"arches": ["arm64"]}),
        rule("openat", excludes={"arches": ["amd64"]}),
        rule("openat2"),
    ]
    program = compile_profile(small(syscalls=conditional), capabilities=0)
    assert [run(program, NUMBER[name]) for name in ("mount", "openat", "openat2")] == [EPERM, EPERM, ALLOW]


def test_unknown_calls_are_left_out_where_that_denies_them():
    program = compile_profile(small(syscalls=[rule("read"), rule("call_of_tomorrow")]), capabilities=0)
    assert run(program, 0) == ALLOW
    denying = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("mout", "SCMP_ACT_ERRNO")]}
    with pytest.raises(UsageError, match=r"denies mout, which libseccomp .* does not know"):
        compile_profile(denying, capabilities=0)


ONE = {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"defaultAction": None}, "defaultAction is missing; .*unconfined"),
        ({"defaultAction": "ALLOW"}, "defaultAction: 'ALLOW' is none of SCMP_ACT_KILL"),
        ({"defaultAction": "SCMP_ACT_TRACE"}, "SCMP_ACT_TRACE needs a tracer"),
        ({"defaultErrnoRet": 4096}, "defaultErrnoRet must be a number from 0 to 4095"),
        ({"defaultErrnoRet": True}, "defaultErrnoRet must be a number"),
        ({"defaultErrno": "EWHAT"}, "'EWHAT' is not the name of an error"),
        ({"defaultErrno": "errorcode"}, "not the name of an error"),
        ({"defaultErrno": "ENOSYS", "defaultErrnoRet": 1}, "contradict each other"),
        ({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}, "only SCMP_ACT_ERRNO returns an error"),
        ({"syscall": []}, "unknown key 'syscall'"),
        ({"syscalls": {}}, "syscalls must be a list"),
        ({"syscalls": ["read"]}, r"syscalls\[0\] must be an object"),
        ({"syscalls": [{"action": "SCMP_ACT_ALLOW"}]}, r"syscalls\[0\] names no system calls"),
        ({"syscalls": [{"names": ["a"], "name": "b", "action": "SCMP_ACT_ALLOW"}]}, "name and names are both there"),
        ({"syscalls": [rule("read"), {"names": ["a", 1], "action": "SCMP_ACT_ALLOW"}]}, r"syscalls\[1\].names must be"),
        ({"syscalls": [rule("read", "SCMP_ACT_NOTIFY")]}, r"syscalls\[0\].action: SCMP_ACT_NOTIFY"),
        ({"syscalls": [rule("read", "SCMP_ACT_DENY")]}, r"syscalls\[0\].action: 'SCMP_ACT_DENY' is none of"),
        ({"syscalls": [rule("read", arg=[])]}, "unknown key 'arg'"),
        ({"syscalls": [rule("read", args=[{**ONE, "index": 6}])]}, r"args\[0\].index must be a number from 0 to 5"),
        ({"syscalls": [rule("read", args=[{**ONE, "op": "=="}])]}, r"args\[0\].op: '==' is none of SCMP_CMP_NE"),
        ({"syscalls": [rule("read", args=[{**ONE, "value": -1}])]}, r"args\[0\].value must be a number"),
        ({"syscalls": [rule("read", args=[{**ONE, "value": 1 << 64}])]}, r"args\[0\].value must be a number"),
        ({"syscalls": [rule("read", args=[{"index": 0, "op": "SCMP_CMP_EQ"}])]}, r"args\[0\].value must be a number"),
        ({"syscalls": [rule("read", includes={"caps": ["SYS_ADMIN"]})]}, "there is no capability 'SYS_ADMIN'"),
        ({"syscalls": [rule("read", excludes={"minKernel": "new"})]}, "minKernel: write the kernel version as two"),
        ({"syscalls": [rule("read", includes={"kernel": "5.1"})]}, "includes: unknown key 'kernel'"),
        ({"syscalls": [rule("socket"), rule("socket", "SCMP_ACT_TRAP", args=[ONE])]}, "leaves no room for"),
        ({"architectures": ["x86_64"]}, "architectures: 'x86_64' is none of SCMP_ARCH_X86"),
        ({"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}, "use one"),
        ({"archMap": [{"architecture": "SCMP_ARCH_VAX"}]}, r"archMap\[0\]: 'SCMP_ARCH_VAX' is none of"),
        ({"flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}, "does not support SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
        ({"listenerPath": "/run/listener"}, "listenerPath: pyrtc does not hand"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UsageError, match=message):
        compile_profile(small(**changes), capabilities=DOCKER)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[]", "must be an object"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"defaultAction": "SCMP_ACT_ERRNO", "defaultAction": "SCMP_ACT_ALLOW"}', "'defaultAction' is there twice"),
        (b" " * (1 << 20) + b"{}", "larger than 1 MiB"),
    ],
)
def test_files_that_are_no_profile(tmp_path, content, message):
    (tmp_path / "profile.json").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        compile_profile(tmp_path / "profile.json", capabilities=0)
    with pytest.raises(UsageError, match=message):
        cached_filter(tmp_path / "cache", tmp_path / "profile.json", capabilities=0)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, message in (("missing", "ENOENT"), ("fifo", "is not a file"), (".", "EISDIR|is not a file")):
        with pytest.raises(UsageError, match=message):
            compile_profile(tmp_path / name, capabilities=0)


def test_too_large_for_the_kernel():
    many = [rule("mount", args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": value * 3}]) for value in range(6000)]
    with pytest.raises(UsageError, match="instructions; the kernel takes 4096"):
        compile_profile(small(syscalls=many), capabilities=0)


# ---- the cache ------------------------------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch):
    """The list of profiles that were compiled, with nothing remembered from before."""
    seen: list[object] = []
    original = libseccomp.compile_to_bpf

    def count(profile):
        seen.append(profile)
        return original(profile)

    monkeypatch.setattr(libseccomp, "compile_to_bpf", count)
    monkeypatch.setattr(seccomp, "_remembered", {})
    return seen


def entry(cache):
    (name,) = os.listdir(cache)
    return cache / name


def test_compiled_once(tmp_path, compiled, default):
    cache = tmp_path / "new" / "cache"
    assert cached_filter(cache, capabilities=DOCKER) == default
    assert cached_filter(cache, capabilities=DOCKER) is cached_filter(cache, capabilities=DOCKER)
    seccomp._remembered.clear()
    assert cached_filter(cache, capabilities=DOCKER) == default
    assert len(compiled) == 1
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry(cache).stat().st_mode) == 0o600


def test_everything_that_matters_is_in_the_key(tmp_path, compiled, monkeypatch):
    (tmp_path / "profile.json").write_text(json.dumps(small()))
    for capability in (DOCKER, 0):
        cached_filter(tmp_path / "cache", capabilities=capability)
    cached_filter(tmp_path / "cache", tmp_path / "profile.json", capabilities=0)
    (tmp_path / "profile.json").write_text(json.dumps(small(defaultErrnoRet=5)))
    changed = cached_filter(tmp_path / "cache", tmp_path / "profile.json", capabilities=0)
    assert run(changed, 0) == ALLOW
    seccomp._remembered.clear()
    monkeypatch.setattr(seccomp, "_library", lambda: b"another libseccomp")
    cached_filter(tmp_path / "cache", capabilities=0)
    seccomp._remembered.clear()
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*uname[:2], "6.99.0", *uname[3:])))
    cached_filter(tmp_path / "cache", capabilities=0)
    assert len(compiled) == len(os.listdir(tmp_path / "cache")) == 6


def truncate(path):
    os.truncate(path, path.stat().st_size - 8)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace_by_link(path):
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)


def permit(path):
    """What an attacker would write: a filter that allows everything, under a digest of its own."""
    path.write_bytes(seccomp._FORMAT + b"\0" * 32 + struct.pack("=HBBI", 6, 0, 0, ALLOW))


def open_up(path):
    path.chmod(0o620)


def give_away(path):
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize(
    "damage",
    [truncate, flip, replace_by_link, replace_by_fifo, permit, open_up, give_away, lambda path: path.write_bytes(b"")],
)
def test_a_damaged_or_foreign_entry_is_made_anew(tmp_path, compiled, default, damage):
    cached_filter(tmp_path, capabilities=DOCKER)
    path = entry(tmp_path)
    damage(path)
    seccomp._remembered.clear()
    assert cached_filter(tmp_path, capabilities=DOCKER) == default
    assert len(compiled) == 2
    seccomp._remembered.clear()
    assert cached_filter(tmp_path, capabilities=DOCKER) == default
    assert len(compiled) == 2
    assert stat.S_ISREG(path.lstat().st_mode)


def test_an_entry_under_another_name_is_not_used(tmp_path, compiled, default):
    powerful = cached_filter(tmp_path, capabilities=capabilities("SYS_ADMIN"))
    path = entry(tmp_path)
    other = seccomp._name(seccomp._origin(seccomp._default_content(), DOCKER))
    path.rename(tmp_path / other)
    assert cached_filter(tmp_path, capabilities=DOCKER) == default != powerful


def test_a_directory_where_others_write_is_not_used(tmp_path, compiled, default):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    assert cached_filter(cache, capabilities=DOCKER) == default
    assert os.listdir(cache) == []
    (tmp_path / "file").touch()
    seccomp._remembered.clear()
    assert cached_filter(tmp_path / "file", capabilities=DOCKER) == default


def test_many_threads(tmp_path, compiled, default):
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(cached_filter(tmp_path, capabilities=DOCKER))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [default] * 8
    assert len(os.listdir(tmp_path)) == 1


def test_without_libseccomp_nothing_is_compiled(tmp_path, compiled, monkeypatch):
    from cffi import FFI

    def missing(self, name, flags=0):
        raise OSError(errno.ENOENT, f"cannot load library {name!r}")

    monkeypatch.setattr(FFI, "dlopen", missing)
    libseccomp._library.cache_clear()
    try:
        with pytest.raises(UnsupportedError, match="libseccomp2"):
            cached_filter(tmp_path, capabilities=DOCKER)
    finally:
        monkeypatch.undo()
        libseccomp._library.cache_clear()
    assert os.listdir(tmp_path) == []

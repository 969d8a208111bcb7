"""Control groups with the real kernel: version 1, version 2 or both, whatever this machine has."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from descriptors import descriptors, left_open

from pyrtc.errors import ContainerError, ContainerNotFound, LimitError, UnsupportedError
from pyrtc.runtime.cgroups import (
    Cgroup,
    DeviceRule,
    Hierarchy,
    Limits,
    control_files,
    detect,
    node,
    remove_parent,
    sweep,
    sweep_abandoned,
    tree,
    v1,
    v2,
)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root may make control groups at the top"),
    pytest.mark.skipif(detect().mode == "none", reason="needs mounted control groups"),
]

MIB = 1 << 20


def version_1_only() -> Hierarchy:
    """Return this machine as it would be without version 2."""
    machine = detect()
    places = {name: place for name, place in machine.places.items() if place.version == 1}
    if "freezer" not in places:
        pytest.skip("needs the version 1 freezer controller")
    return machine._replace(mode="v1", unified=None, places=places)


@pytest.fixture(params=["as it is", "version 1 only"])
def hierarchy(request: pytest.FixtureRequest) -> Hierarchy:
    return detect() if request.param == "as it is" else version_1_only()


@pytest.fixture
def parent() -> Iterator[str]:
    """A parent cgroup of this test's own; afterwards no directory may be left of it anywhere."""
    name = f"pyrtc-test-{os.getpid()}-{threading.get_ident()}"
    yield name
    for machine in (detect(), *([version_1_only()] if "freezer" in detect().places else [])):
        kept = sweep(lambda _: False, parent=name, hierarchy=machine).kept
        assert not kept
    remove_parent(name)
    left = [place.base for place in detect().all_places() if os.path.exists(f"{place.base}/{name}")]
    assert not left, f"{name} is left in {left}"


def need(hierarchy: Hierarchy, *controllers: str) -> None:
    for controller in controllers:
        if controller not in hierarchy.places:
            pytest.skip(f"needs the {controller} controller: {'; '.join(hierarchy.missing[controller])}")


def enter(group: Cgroup) -> None:
    """Put the calling process into the control groups, as a container's first process does."""
    if group.into_fd is not None:
        control_files.write(group.into_fd, "cgroup.procs", "0")
    for fd in group.tasks_fds:
        os.write(fd, b"0")


def start(group: Cgroup, program: str, **options: object) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-I", "-S", "-c", textwrap.dedent(program)]
    _ = group.into_fd, group.tasks_fds
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        arguments, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: enter(group), **options
    )


def output(group: Cgroup, program: str) -> str:
    process = start(group, program)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return text


def directories(hierarchy: Hierarchy, parent: str, name: str) -> list[str]:
    return [place.name for place in hierarchy.all_places() if os.path.exists(f"{place.base}/{parent}/{name}")]


SLEEP = "import time; print('up', flush=True); time.sleep(600)"
SPIN = "print('up', flush=True)\nwhile True: pass"
# Grandchildren in sessions of their own, one of them making and losing children all the time.
FAMILY = """
    import os, time
    for _ in range(5):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            time.sleep(600)
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork() == 0:
                time.sleep(0.01)
                os._exit(0)
            os.waitpid(-1, 0)
    print('up', flush=True)
    time.sleep(600)
"""


def test_without_limits_there_is_one_directory(hierarchy: Hierarchy, parent: str) -> None:
    group = Cgroup.create("plain", parent=parent, hierarchy=hierarchy)
    found = directories(hierarchy, parent, "plain")
    if hierarchy.unified is not None:
        assert found == [hierarchy.unified.name]
        assert group.tasks_fds == ()
        assert group.into_fd is not None
    else:
        assert "freezer" in found
        assert set(found) <= {"freezer", "cpuacct", "cpu,cpuacct"}
        assert group.into_fd is None
    assert group.warnings == ()
    group.remove()
    assert directories(hierarchy, parent, "plain") == []
    group.remove()


def test_a_process_can_be_born_in_the_cgroup(parent: str) -> None:
    """CLONE_INTO_CGROUP through into_fd: the child is never anywhere else."""
    group = Cgroup.create("born", parent=parent)
    if group.into_fd is None:
        pytest.skip("needs the unified hierarchy")
    reader, writer = os.pipe()
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    # set_tid_size, cgroup
    arguments = (ctypes.c_uint64 * 11)(0x200000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group.into_fd)
    pid = ctypes.CDLL(None, use_errno=True).syscall(435, arguments, ctypes.sizeof(arguments))
    if pid == 0:
        os.dup2(writer, 1)
        os.execv("/bin/cat", ["cat", "/proc/self/cgroup"])
    assert pid > 0, os.strerror(ctypes.get_errno())
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader) as file:
        assert f"0::/{parent}/born\n" in file.read()
    group.remove()


def test_memory_limit_kills_and_is_told(hierarchy: Hierarchy, parent: str) -> None:
    need(hierarchy, "memory")
    limits = Limits(memory=32 * MIB, memory_swap=32 * MIB)
    group = Cgroup.create("oom", limits, parent=parent, hierarchy=hierarchy)
    assert not group.memory_kills
    process = start(group, "b = bytearray(200 << 20)")
    assert process.wait(60) == -signal.SIGKILL
    assert group.memory_kills
    stats = group.stats()
    assert stats.memory_limit == 32 * MIB
    assert stats.oom_kills is not None and stats.oom_kills >= 1
    assert stats.memory_peak is not None and 16 * MIB < stats.memory_peak <= 33 * MIB
    group.remove()


def test_memory_below_the_limit_is_counted_and_not_killed(hierarchy: Hierarchy, parent: str) -> None:
    need(hierarchy, "memory")
    group = Cgroup.create("fits", Limits(memory=128 * MIB), parent=parent, hierarchy=hierarchy)
    process = start(group, "b = bytearray(b'x') * (40 << 20)\nprint('up', flush=True)\nimport time; time.sleep(600)")
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    stats = group.stats()
    assert stats.memory is not None and 40 * MIB <= stats.memory <= 80 * MIB
    assert not group.memory_kills
    group.remove()
    assert process.wait(10) == -signal.SIGKILL


def test_swap_limit_and_reservation_reach_the_kernel(parent: str) -> None:
    need(detect(), "memory")
    limits = Limits(memory=64 * MIB, memory_swap=96 * MIB, memory_reservation=16 * MIB)
    group = Cgroup.create("swap", limits, parent=parent)
    place = detect().places["memory"]
    made = Path(place.base, parent, "swap")
    if place.version == 1:
        assert int((made / "memory.limit_in_bytes").read_text()) == 64 * MIB
        assert int((made / "memory.memsw.limit_in_bytes").read_text()) == 96 * MIB
        assert int((made / "memory.soft_limit_in_bytes").read_text()) == 16 * MIB
    else:
        assert int((made / "memory.max").read_text()) == 64 * MIB
        assert int((made / "memory.swap.max").read_text()) == 32 * MIB
        assert int((made / "memory.low").read_text()) == 16 * MIB
        assert (made / "memory.oom.group").read_text() == "1\n"
    group.remove()


@pytest.mark.parametrize(("swap", "v1_text", "v2_text"), [(None, 128 * MIB, 64 * MIB), (-1, None, None)])
def test_swap_defaults_to_as_much_as_memory(
    parent: str, swap: int | None, v1_text: int | None, v2_text: int | None
) -> None:
    need(detect(), "memory")
    group = Cgroup.create("swap2", Limits(memory=64 * MIB, memory_swap=swap), parent=parent)
    place = detect().places["memory"]
    made = Path(place.base, parent, "swap2")
    if place.version == 1:
        value = int((made / "memory.memsw.limit_in_bytes").read_text())
        assert value == v1_text if v1_text else value > 1 << 62
    else:
        assert (made / "memory.swap.max").read_text() == (f"{v2_text}\n" if v2_text else "max\n")
    group.remove()


def test_pids_limit_refuses_the_next_fork(hierarchy: Hierarchy, parent: str) -> None:
    need(hierarchy, "pids")
    group = Cgroup.create("pids", Limits(pids=5), parent=parent, hierarchy=hierarchy)
    text = output(
        group,
        """
        import errno, os, signal, time
        children = []
        try:
            while len(children) < 50:
                pid = os.fork()
                if pid == 0:
                    time.sleep(600)
                children.append(pid)
        except OSError as error:
            print(len(children), errno.errorcode[error.errno])
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        """,
    )
    assert text == "4 EAGAIN\n"
    stats = group.stats()
    assert (stats.pids, stats.pids_limit) == (0, 5)
    assert stats.pids_peak in (5, 6, None)
    group.remove()


def test_cpu_limit_throttles(hierarchy: Hierarchy, parent: str) -> None:
    need(hierarchy, "cpu")
    group = Cgroup.create("cpu", Limits(cpus=0.2), parent=parent, hierarchy=hierarchy)
    # A machine that has no time for a fifth of a processor throttles nothing: then it is tried for longer.
    began, before, throttled = time.monotonic(), group.stats().cpu_usage, 0.0
    while throttled <= 0.1 and time.monotonic() < began + 60:
        output(group, "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass")
        stats = group.stats()
        throttled = stats.cpu_throttled or 0.0
    assert throttled > 0.1
    assert stats.cpu_throttled_periods is not None and stats.cpu_throttled_periods > 0
    if stats.cpu_usage is not None:
        assert 0 < stats.cpu_usage - (before or 0) < 0.8 * (time.monotonic() - began)
    group.remove()


def test_cpu_shares_reach_the_kernel(parent: str) -> None:
    need(detect(), "cpu")
    group = Cgroup.create("shares", Limits(cpu_shares=512), parent=parent)
    place = detect().places["cpu"]
    file = "cpu.shares" if place.version == 1 else "cpu.weight"
    assert Path(place.base, parent, "shares", file).read_text() == ("512\n" if place.version == 1 else "59\n")
    group.remove()


def test_cpuset_binds_processes(parent: str) -> None:
    need(detect(), "cpuset")
    group = Cgroup.create("cpuset", Limits(cpuset_cpus="0"), parent=parent)
    assert output(group, "import os; print(os.sched_getaffinity(0))") == "{0}\n"
    group.remove()


def test_cpu_time_is_counted_without_limits(hierarchy: Hierarchy, parent: str) -> None:
    group = Cgroup.create("time", parent=parent, hierarchy=hierarchy)
    output(group, "import time\nwhile time.process_time() < 0.2: pass")
    stats = group.stats()
    assert stats.cpu_usage is not None and stats.cpu_usage > 0.15
    assert stats.cpu_user is not None and stats.cpu_system is not None
    group.remove()


def test_accounting_counts_what_nobody_limits(hierarchy: Hierarchy, parent: str) -> None:
    need(hierarchy, "memory", "pids")
    group = Cgroup.create("counted", parent=parent, hierarchy=hierarchy, accounting=True)
    process = start(group, SLEEP)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    stats = group.stats()
    assert stats.memory is not None and stats.memory > 0
    assert stats.memory_limit is None
    assert stats.pids == 1
    assert group.process_ids() == (process.pid,)
    group.remove()
    process.wait(10)


def test_freeze_stops_and_thaw_resumes(hierarchy: Hierarchy, parent: str) -> None:
    group = Cgroup.create("frozen", parent=parent, hierarchy=hierarchy)
    process = start(group, SPIN)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    group.freeze()
    assert group.frozen
    before = group.stats().cpu_usage
    time.sleep(0.2)
    assert group.stats().cpu_usage == before
    group.thaw()
    assert not group.frozen
    time.sleep(0.3)
    after = group.stats().cpu_usage
    assert before is not None and after is not None and after > before
    group.remove()
    process.wait(10)


@pytest.mark.parametrize("frozen", [False, True])
def test_kill_reaches_the_whole_family(hierarchy: Hierarchy, parent: str, frozen: bool) -> None:
    group = Cgroup.create("family", parent=parent, hierarchy=hierarchy)
    process = start(group, FAMILY)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    deadline = time.monotonic() + 10
    while len(group.process_ids()) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(group.process_ids()) >= 12
    if frozen:
        group.freeze()
    assert not group.wait_empty(0.05)
    group.kill()
    process.wait(10)
    assert group.wait_empty(10)
    assert group.process_ids() == ()
    group.remove()


def test_kill_without_cgroup_kill(hierarchy: Hierarchy, parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 5.14 has no cgroup.kill; then everything is frozen, listed and killed."""

    def write(directory: int, path: str, text: str) -> None:
        if path.endswith("/cgroup.kill"):
            raise FileNotFoundError(errno.ENOENT, "no such file")
        control_files.write(directory, path, text)

    monkeypatch.setattr(node, "write", write)
    group = Cgroup.create("old", parent=parent, hierarchy=hierarchy)
    process = start(group, FAMILY)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    group.kill()
    process.wait(10)
    assert group.wait_empty(10)
    group.remove()


def test_remove_kills_what_is_left(hierarchy: Hierarchy, parent: str) -> None:
    limits = Limits(memory=64 * MIB) if "memory" in hierarchy.places else Limits()
    group = Cgroup.create("left", limits, parent=parent, hierarchy=hierarchy)
    process = start(group, FAMILY)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    reaper = threading.Thread(target=process.wait)
    reaper.start()
    group.remove()
    reaper.join(10)
    assert process.returncode == -signal.SIGKILL
    assert directories(hierarchy, parent, "left") == []


def test_remove_gives_up_on_what_does_not_die(
    hierarchy: Hierarchy, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Cgroup.create("stuck", parent=parent, hierarchy=hierarchy)
    process = start(group, SLEEP)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    with monkeypatch.context() as patch:
        patch.setattr(Cgroup, "kill", lambda _: None)
        patch.setattr(node.Node, "kill_listed", lambda _: None)
        began = time.monotonic()
        with pytest.raises(ContainerError, match=rf"still holds process {process.pid} \(python"):
            group.remove(timeout=0.2)
        assert time.monotonic() - began < 5
    group.remove()
    process.wait(10)


def test_remove_takes_cgroups_that_the_container_made(parent: str) -> None:
    group = Cgroup.create("nested", parent=parent)
    process = start(group, SLEEP)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    _, top = group.mounts()[-1]
    deep = top
    for level in range(40):
        deep += f"/d{level}"
        os.mkdir(deep)
        os.mkdir(f"{deep}/side")
    control_files.write(-1, f"{deep}/cgroup.procs", str(process.pid))
    assert group.process_ids() == (process.pid,)
    assert not group.wait_empty(0)
    group.remove()
    assert process.wait(10) == -signal.SIGKILL
    assert not os.path.exists(top)


def test_open_finds_what_another_process_made(hierarchy: Hierarchy, parent: str) -> None:
    limits = Limits(pids=7) if "pids" in hierarchy.places else Limits()
    made = Cgroup.create("found", limits, parent=parent, hierarchy=hierarchy)
    process = start(made, SLEEP)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    group = Cgroup.open("found", parent=parent, hierarchy=hierarchy)
    assert sorted(group.mounts()) == sorted(made.mounts())
    assert len(group.tasks_fds) == len(made.tasks_fds)
    assert group.process_ids() == (process.pid,)
    if limits.pids:
        assert group.stats().pids_limit == 7
    second = start(group, SLEEP)
    assert second.stdout is not None and second.stdout.readline() == "up\n"
    assert set(made.process_ids()) == {process.pid, second.pid}
    group.remove()
    process.wait(10)
    second.wait(10)
    made.close()
    with pytest.raises(ContainerNotFound, match="no control group of container found"):
        Cgroup.open("found", parent=parent, hierarchy=hierarchy)


def test_an_exec_is_killed_apart_from_its_container(hierarchy: Hierarchy, parent: str) -> None:
    limits = Limits(memory=64 * MIB, pids=40) if {"memory", "pids"} <= set(hierarchy.places) else Limits()
    group = Cgroup.create("main", limits, parent=parent, hierarchy=hierarchy)
    process = start(group, SLEEP)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    part = group.subgroup("exec1")
    with pytest.raises(ContainerError, match="exec1 exists already"):
        group.subgroup("exec1")
    family = start(part, FAMILY)
    assert family.stdout is not None and family.stdout.readline() == "up\n"
    assert process.pid not in part.process_ids()
    assert {process.pid, family.pid} <= set(group.process_ids())
    if limits.pids:
        assert (group.stats().pids or 0) >= 3
    part.kill()
    assert family.wait(10) == -signal.SIGKILL
    assert part.wait_empty(10)
    part.remove()
    assert process.poll() is None
    assert group.process_ids() == (process.pid,)

    # What is left of an exec goes with the container.
    late = start(group.subgroup("exec2"), SLEEP)
    assert late.stdout is not None and late.stdout.readline() == "up\n"
    group.remove()
    assert (process.wait(10), late.wait(10)) == (-signal.SIGKILL, -signal.SIGKILL)
    with pytest.raises(ContainerError, match="its control groups are removed"):
        group.subgroup("exec3")


def test_a_taken_name_is_refused_and_left_alone(hierarchy: Hierarchy, parent: str) -> None:
    first = Cgroup.create("taken", parent=parent, hierarchy=hierarchy)
    with pytest.raises(ContainerError, match="exists already"):
        Cgroup.create("taken", parent=parent, hierarchy=hierarchy)
    assert first.wait_empty(0)
    assert directories(hierarchy, parent, "taken")
    first.remove()


def test_a_limit_that_cannot_be_had_is_an_error_or_a_warning(parent: str) -> None:
    machine = detect()
    places = {name: place for name, place in machine.places.items() if name != "pids"}
    crippled = machine._replace(places=places, missing={"pids": ("it is not mounted", "mount it")})
    with pytest.raises(LimitError, match="cannot limit pids to 5: it is not mounted; mount it; or go on without"):
        Cgroup.create("poor", Limits(pids=5), parent=parent, hierarchy=crippled)
    assert directories(machine, parent, "poor") == []
    group = Cgroup.create("poor", Limits(pids=5), parent=parent, hierarchy=crippled, best_effort=True)
    assert group.warnings == ("cannot limit pids to 5: it is not mounted; mount it",)
    group.remove()


def test_a_refused_value_leaves_nothing_behind(parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(detect(), "memory", "pids")
    module = v1 if detect().places["memory"].version == 1 else v2
    real = module.settings

    def settings(controller: str, limits: Limits) -> list[control_files.Setting]:
        found = real(controller, limits)  # type: ignore[arg-type]
        if controller == "pids":
            found.append(control_files.Setting("pids", (("pids.nowhere", "1"), ("pids.max", "many"))))
        return found

    monkeypatch.setattr(module, "settings", settings)
    limits = Limits(memory=64 * MIB, pids=9)
    with pytest.raises(LimitError, match=r"cannot limit pids to 9: the kernel refuses 'many' for pids.max: .*EINVAL"):
        Cgroup.create("refused", limits, parent=parent)
    assert directories(detect(), parent, "refused") == []
    group = Cgroup.create("refused", limits, parent=parent, best_effort=True)
    assert len(group.warnings) == 1
    assert group.stats().memory_limit == 64 * MIB
    group.remove()


def device_hierarchies() -> list[Hierarchy]:
    machine = detect()
    found = [machine]
    if machine.unified is not None and machine.places["devices"].version == 1:
        found.append(machine._replace(places={**machine.places, "devices": machine.unified}))
    return found


@pytest.mark.parametrize("index", [0, 1])
def test_devices_are_refused_unless_a_rule_names_them(parent: str, index: int) -> None:
    need(detect(), "devices")
    machines = device_hierarchies()
    if index >= len(machines):
        pytest.skip("this machine has one way to enforce device rules only")
    rules = tuple(map(DeviceRule.parse, ("c 1:3 rw", "c 1:5 r", "c 1:9 r", "c 136:* rw")))
    group = Cgroup.create("devices", Limits(devices=rules), parent=parent, hierarchy=machines[index])
    text = output(
        group,
        """
        import errno, os
        for name, flags in (("null", os.O_RDWR), ("zero", os.O_RDONLY), ("zero", os.O_RDWR), ("full", os.O_RDONLY)):
            try:
                os.close(os.open("/dev/" + name, flags))
                print(name, "yes")
            except OSError as error:
                print(name, errno.errorcode[error.errno])
        """,
    )
    assert text.splitlines() == ["null yes", "zero yes", "zero EPERM", "full EPERM"]
    group.remove()


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[str]:
    """A disk of our own; skips where this kernel or machine has no loop devices."""
    image = tmp_path / "disk"
    image.write_bytes(b"")
    os.truncate(image, 16 * MIB)
    try:
        made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs losetup (util-linux)")
    if made.returncode:
        pytest.skip(f"needs a loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def test_io_limits_slow_a_disk_down(parent: str, loop_device: str) -> None:
    need(detect(), "io")
    limits = Limits(device_write_bps=((loop_device, MIB),), device_read_iops=((loop_device, 1000),))
    group = Cgroup.create("io", limits, parent=parent)
    program = f"""
        import mmap, os, time
        fd = os.open({loop_device!r}, os.O_WRONLY | os.O_DIRECT)
        block = mmap.mmap(-1, 1 << 18)
        began = time.monotonic()
        for _ in range(6):
            os.write(fd, block)
        print(time.monotonic() - began)
    """
    assert float(output(group, program)) > 0.7
    stats = group.stats()
    assert stats.io_write_bytes is not None and stats.io_write_bytes >= 6 << 18
    assert stats.io_writes is not None and stats.io_writes > 0
    group.remove()


def test_a_weight_for_disks_is_set_or_refused(parent: str) -> None:
    need(detect(), "io")
    try:
        group = Cgroup.create("weight", Limits(blkio_weight=300), parent=parent)
    except LimitError as error:
        assert "cannot limit blkio_weight to 300: this kernel has no weighted I/O scheduler" in str(error)
        return
    place = detect().places["io"]
    files = [Path(place.base, parent, "weight", f) for f in ("blkio.bfq.weight", "io.bfq.weight", "io.weight")]
    assert any("300" in file.read_text() or "2930" in file.read_text() for file in files if file.exists())
    group.remove()


def test_sweep_removes_the_dead_and_spares_the_living(hierarchy: Hierarchy, parent: str) -> None:
    alive = Cgroup.create("alive", parent=parent, hierarchy=hierarchy)
    for name in ("dead1", "dead2"):
        Cgroup.create(name, parent=parent, hierarchy=hierarchy, accounting=True).close()
    orphan = start(Cgroup.open("dead2", parent=parent, hierarchy=hierarchy), SLEEP)
    assert orphan.stdout is not None and orphan.stdout.readline() == "up\n"
    swept = sweep(lambda name: name == "alive", parent=parent, hierarchy=hierarchy)
    assert swept.removed == ("dead1", "dead2")
    assert swept.kept == ()
    assert orphan.wait(10) == -signal.SIGKILL
    assert directories(hierarchy, parent, "alive") and not directories(hierarchy, parent, "dead1")
    alive.remove()


def test_abandoned_groups_go_when_they_are_old_and_empty(hierarchy: Hierarchy, parent: str) -> None:
    for name in ("empty", "used"):
        Cgroup.create(name, parent=parent, hierarchy=hierarchy, accounting=True).close()
    used = start(Cgroup.open("used", parent=parent, hierarchy=hierarchy), SLEEP)
    assert used.stdout is not None and used.stdout.readline() == "up\n"
    assert sweep_abandoned(parent=parent, hierarchy=hierarchy) == ()
    time.sleep(0.02)
    assert sweep_abandoned(older_than=0.01, parent=parent, hierarchy=hierarchy) == ("empty",)
    assert directories(hierarchy, parent, "used") and not directories(hierarchy, parent, "empty")
    assert used.poll() is None
    Cgroup.open("used", parent=parent, hierarchy=hierarchy).remove()
    assert used.wait(10) == -signal.SIGKILL


def test_abandoned_groups_go_with_those_below_them(hierarchy: Hierarchy, parent: str) -> None:
    """A command executed in a container has a group of its own below the container's."""
    for name in ("empty", "used"):
        Cgroup.create(name, parent=parent, hierarchy=hierarchy, accounting=True).close()
    inner = [
        f"{place.base}/{parent}/{name}/exec-1/deeper"
        for place in hierarchy.all_places()
        for name in ("empty", "used")
        if os.path.exists(f"{place.base}/{parent}/{name}")
    ]
    for path in inner:
        os.makedirs(path)
    used = start(Cgroup.open("used", parent=parent, hierarchy=hierarchy), SLEEP)
    assert used.stdout is not None and used.stdout.readline() == "up\n"
    time.sleep(0.02)
    assert sweep_abandoned(older_than=0.01, parent=parent, hierarchy=hierarchy) == ("empty",)
    assert not directories(hierarchy, parent, "empty")
    assert all(os.path.isdir(path) == ("/used/" in path) for path in inner)
    Cgroup.open("used", parent=parent, hierarchy=hierarchy).remove()
    assert used.wait(10) == -signal.SIGKILL


def test_a_parent_that_was_removed_is_made_again(hierarchy: Hierarchy, parent: str) -> None:
    Cgroup.create("one", parent=parent, hierarchy=hierarchy, accounting=True).remove()
    for place in hierarchy.all_places():
        path = f"{place.base}/{parent}"
        if os.path.exists(path):
            os.rmdir(path)
    group = Cgroup.create("two", parent=parent, hierarchy=hierarchy, accounting=True)
    assert directories(hierarchy, parent, "two")
    assert group.stats().cpu_usage is not None
    group.remove()


def test_a_nested_parent_passes_controllers_on(parent: str) -> None:
    need(detect(), "memory")
    nested = f"{parent}/batch"
    limits = Limits(memory=64 * MIB, cpuset_cpus="0" if "cpuset" in detect().places else None)
    group = Cgroup.create("inner", limits, parent=nested)
    assert group.stats().memory_limit == 64 * MIB
    assert output(group, "print(1)") == "1\n"
    group.remove()
    remove_parent(nested)
    assert not any(os.path.exists(f"{place.base}/{parent}") for place in detect().all_places())


def test_many_threads_make_cgroups_at_once(parent: str) -> None:
    limits = Limits(memory=64 * MIB, pids=10) if "memory" in detect().places else Limits()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(15):
                Cgroup.create(f"t{number}-{count}", limits, parent=parent).remove()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_mounts_name_the_containers_own_directories(hierarchy: Hierarchy, parent: str) -> None:
    limits = Limits(pids=10) if "pids" in hierarchy.places else Limits()
    group = Cgroup.create("shown", limits, parent=parent, hierarchy=hierarchy)
    mounts = dict(group.mounts())
    if hierarchy.mode == "v2":
        assert list(mounts) == [""]
    elif hierarchy.mode == "hybrid":
        assert {"unified", "pids"} <= set(mounts)
    for path in mounts.values():
        assert path.endswith(f"/{parent}/shown")
        assert os.path.isdir(path)
    group.remove()


def test_descriptors_are_closed(parent: str) -> None:
    Cgroup.create("warm", accounting=True, parent=parent).remove()
    before = descriptors()
    for count in range(5):
        with Cgroup.create(f"fd{count}", accounting=True, parent=parent) as group:
            _ = group.into_fd, group.tasks_fds
        assert not tree.process_ids(group._nodes[0].parent.fd, group.container_id)
        Cgroup.open(f"fd{count}", parent=parent).remove()
    assert not left_open(before)


def test_without_any_hierarchy_only_limits_are_refused(parent: str) -> None:
    nothing = Hierarchy("none", None, {}, {"memory": ("no control groups are mounted", "mount them")})
    group = Cgroup.create("bare", parent=parent, hierarchy=nothing)
    assert (group.into_fd, group.tasks_fds, group.mounts(), group.memory_kills) == (None, (), (), 0)
    assert group.stats().cpu_usage is None
    with pytest.raises(UnsupportedError, match=r"cannot kill container bare .* no control groups are mounted"):
        group.kill()
    group.remove()
    with pytest.raises(LimitError, match="cannot limit memory to 67108864: no control groups are mounted"):
        Cgroup.create("bare", Limits(memory=64 * MIB), parent=parent, hierarchy=nothing)


# ---- an ordinary user ------------------------------------------------------------------------------------------------

NOBODY = 65534
AS_USER = """
import sys
sys.path.insert(0, sys.argv[1])
from pyrtc.errors import LimitError
from pyrtc.runtime.cgroups import Cgroup, Limits, detect
print(detect().describe(), file=sys.stderr)
group = Cgroup.create("user", parent="mine")
print("plain", group.into_fd is not None, len(group.mounts()))
if group.mounts():
    group.kill()
group.remove()
try:
    group = Cgroup.create("user", Limits(memory=64 << 20, pids=20), parent="mine")
    print("limited", group.stats().memory_limit, group.stats().pids_limit)
    group.remove()
except LimitError as error:
    print("refused", error)
best = Cgroup.create("user", Limits(pids=20), parent="mine", best_effort=True)
print("warnings", *best.warnings)
best.remove()
"""


def run_as_user(into: str | None = None) -> str:
    """Run AS_USER without privilege, in the given version 2 cgroup."""

    def become() -> None:
        if into is not None:
            control_files.write(-1, f"{into}/cgroup.procs", "0")
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    source = Path(__file__).parents[2]
    if not all(directory.stat().st_mode & 0o005 == 0o005 for directory in (source, *source.parents)):
        pytest.skip(f"needs a source tree that an ordinary user can read: {source}")
    command = [sys.executable, "-I", "-c", AS_USER, source]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=become, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_user_without_delegation_is_told_so() -> None:
    lines = run_as_user().splitlines()
    assert lines[0] == "plain False 0"
    assert lines[1].startswith("refused cannot limit memory to 67108864: ")
    assert "user 65534 owns no cgroup" in lines[1]
    assert "systemd-run --user --scope -p Delegate=yes" in lines[1]
    assert lines[2].startswith("warnings cannot limit pids to 20: ")


def test_a_user_with_a_delegated_group_has_limits(parent: str) -> None:
    machine = detect()
    if machine.unified is None:
        pytest.skip("needs the unified hierarchy")
    place = machine.unified
    offered = {"memory", "pids"} <= place.controllers
    directory = place.parent(parent)
    for controller in ("memory", "pids") if offered else ():
        place.enable(parent, directory, controller)
    top = f"{directory.path}/delegated"
    own = f"{top}/own"
    os.mkdir(top)
    os.mkdir(own)
    for path in (top, own):
        for file in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
            os.chown(path + file, NOBODY, NOBODY)
    lines = run_as_user(own).splitlines()
    assert lines[0] == "plain True 1"
    if offered:
        assert lines[1] == "limited 67108864 20"
        assert lines[2] == "warnings"
    else:
        assert lines[1].startswith("refused cannot limit memory to 67108864: ")

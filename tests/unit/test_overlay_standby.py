"""One watches, one waits, and nobody else is there; nothing of who started them is held."""

import os
import resource
import select
import tempfile

import pytest
from etcd_server import eventually

from pyrtc.network.overlay import bell
from pyrtc.network.overlay.standby import Lock


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="pyrtc-") as path:
        yield f"{path}/overlay"


def test_one_has_the_lock_and_who_waited_knows_how_it_ended(directory):
    first = Lock(directory, "lock")
    assert first.fd >= 0 and not first.succeeded
    assert Lock(directory, "lock").fd == -1
    first.end()
    assert not os.path.exists(directory)
    again = Lock(directory, "lock")
    assert again.fd >= 0 and not again.succeeded
    again.end()


def test_the_bell_of_nobody_is_said_to_be_nobodys(directory):
    os.makedirs(directory)
    assert not bell.ring(directory)
    with bell.open_bell(directory):
        for _ in range(5000):
            assert bell.ring(directory)  # whoever listens may be stopped: who rings is not held
    assert not bell.ring(directory)


def test_what_waits_holds_no_descriptor_of_its_starter(directory, tmp_path):
    high = 1500
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] <= high:
        pytest.skip("no descriptor can be so high here")
    held = Lock(directory, "lock")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], high + 1), before[1]))
    reader, writer = os.pipe()
    try:
        os.dup2(writer, high, inheritable=True)
        os.close(writer)
        bell.start(str(tmp_path), directory)
        os.close(high)
        assert eventually(lambda: os.path.exists(f"{directory}/standby"))
        assert select.select([reader], [], [], 60)[0] and os.read(reader, 1) == b""
        bell.start(str(tmp_path), directory)  # a third ends at once
    finally:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        held.end()
    # There is no store to watch: the one that waited ends, too.
    assert eventually(lambda: not os.path.exists(directory))

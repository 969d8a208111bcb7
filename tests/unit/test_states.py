"""What the monitor wrote about an end, read back: whole, missing, damaged, unreadable."""

import os
from pathlib import Path

import pytest

from pyrtc.container import Outcome
from pyrtc.errors import StoreError
from pyrtc.states import Ended, outcome_of, read_exit
from pyrtc.store import ContainerRecord, Store

WHOLE = "code=3 signal=0 oom=0 timeout=0 started=1000000000 finished=3500000000 user_us=1500000 system_us=250000\n"


@pytest.fixture
def record(tmp_path: Path) -> ContainerRecord:
    store = Store(str(tmp_path / "store"))
    return store.containers.allocate(name="one", image_id="x", options_json=b"{}", directory=True, remove=False)


def write(record: ContainerRecord, text: bytes | str) -> None:
    Path(f"{record.directory}/exit").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_a_whole_one(record: ContainerRecord) -> None:
    write(record, WHOLE)
    ended = Ended(3, 0, False, 1.0, 3.5, False, 1.5, 0.25)
    assert read_exit(record) == ended
    assert (ended.returncode, outcome_of(ended)) == (3, Outcome.EXITED)


@pytest.mark.parametrize(
    ("said", "returncode", "outcome"),
    [
        (("code=3 signal=0", "code=0 signal=9"), 137, Outcome.SIGNALED),
        (("oom=0", "oom=1"), 3, Outcome.OOM_KILLED),
        (("timeout=0", "timeout=1"), 3, Outcome.TIMEOUT),
    ],
)
def test_why(record: ContainerRecord, said: tuple[str, str], returncode: int, outcome: Outcome) -> None:
    write(record, WHOLE.replace(*said))
    ended = read_exit(record)
    assert ended is not None and (ended.returncode, outcome_of(ended)) == (returncode, outcome)


@pytest.mark.parametrize("text", [b"", b"code=3", b"code=x" * 1000, b"\xff\0", WHOLE[:30].encode()])
def test_a_damaged_one_says_nothing(record: ContainerRecord, text: bytes) -> None:
    assert read_exit(record) is None, "nobody has written it"
    write(record, text)
    assert read_exit(record) is None


def test_what_cannot_be_read_is_not_taken_for_nothing(record: ContainerRecord, tmp_path: Path) -> None:
    """An end would be recorded as unknown for ever, only because this process had no descriptor left."""
    other = tmp_path / "other"
    other.write_text(WHOLE)
    os.symlink(other, f"{record.directory}/exit")
    with pytest.raises(StoreError, match="how container one ended"):
        read_exit(record)

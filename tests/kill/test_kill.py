"""A short run of the harness; `python -m tests.kill` is the long one."""

import time
from pathlib import Path

import pytest
from kill.harness import SEED, Harness, temporary

SECONDS = 15


@pytest.mark.timeout(240)
def test_killed_at_random_moments() -> None:
    print(f"\nseed {SEED} (PYRTC_KILL_SEED)")
    with temporary() as directory:
        harness = Harness(Path(directory), SEED)
        try:
            outcome = harness.run(1000, until=time.monotonic() + SECONDS)
        finally:
            harness.close()
    print(f"{outcome.rounds} rounds; killed in the middle: {dict(outcome.killed)}")
    assert outcome.failures == [], f"seed {SEED}: {outcome}"
    assert outcome.killed.total() >= 1

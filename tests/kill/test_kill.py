"""A short run of the harness; `python -m tests.kill` is the long one."""

import random
import time
from pathlib import Path

import pytest
from kill.harness import Harness, temporary

SECONDS = 15


@pytest.mark.timeout(240)
def test_killed_at_random_moments() -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    with temporary() as directory:
        harness = Harness(Path(directory), seed)
        try:
            outcome = harness.run(25, until=time.monotonic() + SECONDS)
        finally:
            harness.close()
    assert outcome.failures == [], f"seed {seed}: {outcome}"
    assert outcome.rounds >= 1

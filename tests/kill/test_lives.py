"""A short storm; longer ones with `SECONDS` raised."""

import os
import random
from pathlib import Path

import pytest
from kill.harness import temporary
from kill.lives import Storm

SECONDS = float(os.environ.get("PYRTC_STORM_SECONDS", "12"))


@pytest.mark.timeout(240 + SECONDS)
def test_containers_in_a_storm() -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    with temporary() as directory:
        tally = Storm(Path(directory) / "store", seed).run(SECONDS)
    assert tally.failures == [], f"seed {seed}: {tally}"
    assert tally.commands > tally.killed > 0

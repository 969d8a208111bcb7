"""A short storm; longer ones with `SECONDS` raised."""

import os
from pathlib import Path

import pytest
from kill.harness import SEED, temporary
from kill.lives import Storm

SECONDS = float(os.environ.get("PYRTC_STORM_SECONDS", "12"))


@pytest.mark.timeout(240 + SECONDS)
def test_containers_in_a_storm() -> None:
    print(f"\nseed {SEED} (PYRTC_KILL_SEED)")
    with temporary() as directory:
        tally = Storm(Path(directory) / "store", SEED).run(SECONDS)
    assert tally.failures == [], f"seed {SEED}: {tally}"
    assert tally.commands > tally.killed > 0

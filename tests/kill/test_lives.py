"""A short storm of few containers; PYRTC_STORM_SECONDS and PYRTC_STORM_CONTAINERS make it a long one of many."""

import os
from pathlib import Path

import pytest
from kill.harness import SEED, temporary
from kill.lives import Storm

SECONDS = float(os.environ.get("PYRTC_STORM_SECONDS", "12"))
CONTAINERS = int(os.environ.get("PYRTC_STORM_CONTAINERS", "10"))


@pytest.mark.timeout(240 + SECONDS + CONTAINERS)
def test_containers_in_a_storm() -> None:
    print(f"\nseed {SEED} (PYRTC_KILL_SEED)")
    with temporary() as directory:
        tally = Storm(Path(directory) / "store", SEED, containers=CONTAINERS).run(SECONDS)
    print(
        f"{tally.commands} commands, {tally.killed} killed; {tally.monitors_killed} monitors and "
        f"{tally.processes_killed} processes killed"
    )
    assert tally.failures == [], f"seed {SEED}: {tally}"
    assert tally.commands > tally.killed > 0

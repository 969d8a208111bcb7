"""`python -m tests.kill --rounds N --seed S`: the harness for as long as one likes."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.kill.harness import Harness


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--directory", help="where the store is made; the default is below the temporary directory")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pyrtc-kill-", dir=options.directory) as directory:
        harness = Harness(Path(directory), options.seed)
        try:
            outcome = harness.run(options.rounds)
        finally:
            harness.close()
    print(
        f"seed {options.seed}: {outcome.rounds} rounds in {time.monotonic() - began:.0f} s; killed in the middle: "
        f"{dict(outcome.killed)}; done before: {dict(outcome.finished)}"
    )
    for failure in outcome.failures:
        print(f"FAILED {failure}")
    return bool(outcome.failures)


if __name__ == "__main__":
    sys.exit(main())

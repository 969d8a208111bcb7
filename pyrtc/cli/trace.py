"""What `pyrtc run --trace` prints: the steps of a start, and how long each took."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrtc.runtime.trace import Step

__all__ = ["show_trace"]


def show_trace(steps: "tuple[Step, ...]") -> None:
    """Print the steps on standard error, in the order of their beginning; times are in microseconds."""
    lines = [f"{'begin':>8}  {'time':>8}  step"]
    for step in steps:
        # An image names some of them, and must not write to a terminal.
        name = step.name if step.name.isprintable() else ascii(step.name)
        indent = "    " if step.where == "container" else ""
        lines.append(f"{step.begin:8.0f}  {step.microseconds:8.0f}  {indent}{name}")
    print("\n".join(lines), file=sys.stderr)

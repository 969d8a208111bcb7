"""What the monitor of a container becomes when the container has ended: one interpreter that does what is due.

`python -I -c "...main()" ROOT ID`. It has no terminal and nobody who reads what it writes; what goes wrong here is put
right by the next command, which sees the same row.
"""

import gc
import os
import sys

__all__ = ["main"]


def main() -> None:
    """Record the end, release what the container held, remove it or start it again as its options say."""
    gc.disable()
    root, container_id = sys.argv[-2:]
    os.chdir("/")
    from pyrtc.restarting import end_of_monitor

    end_of_monitor(root, container_id)
    # Not through the interpreter's own end, which takes longer than all of this.
    os._exit(0)

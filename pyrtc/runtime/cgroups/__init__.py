"""Control groups: what a container may use, what it has used, and everything in it killed or frozen at once.

`Limits` says what is wanted, `Cgroup` makes it so on machines with version 1, version 2 or both, `detect` tells what
this machine and user can do.
"""

from typing import TYPE_CHECKING, Any

from pyrtc.runtime.cgroups.cgroup import DEFAULT_PARENT, Cgroup
from pyrtc.runtime.cgroups.hierarchy import Hierarchy, detect
from pyrtc.runtime.cgroups.limits import DEFAULT_DEVICE_RULES, DeviceRule, Limits
from pyrtc.runtime.cgroups.sweeping import Swept, remove_parent, sweep, sweep_abandoned

if TYPE_CHECKING:
    from pyrtc.runtime.cgroups.stats import CgroupStats

__all__ = [
    "DEFAULT_DEVICE_RULES",
    "DEFAULT_PARENT",
    "Cgroup",
    "CgroupStats",
    "DeviceRule",
    "Hierarchy",
    "Limits",
    "Swept",
    "detect",
    "remove_parent",
    "sweep",
    "sweep_abandoned",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import the statistics when somebody asks for them: starting a container does not."""
    if name == "CgroupStats":
        from pyrtc.runtime.cgroups.stats import CgroupStats

        return CgroupStats
    raise AttributeError(name)

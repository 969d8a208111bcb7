"""Whether a container is paused, asked of many at once: one look at one file each."""

from pyrtc.runtime.cgroups.cgroup import DEFAULT_PARENT
from pyrtc.runtime.cgroups.hierarchy import Hierarchy, detect
from pyrtc.runtime.cgroups.node import find

__all__ = ["is_frozen"]


def is_frozen(container_id: str, *, parent: str = DEFAULT_PARENT, hierarchy: Hierarchy | None = None) -> bool:
    """Say whether every process of a container is stopped; one without control groups is not."""
    hierarchy = hierarchy or detect()
    place = hierarchy.unified or hierarchy.places.get("freezer")
    node = find(place, parent, container_id) if place is not None else None
    return node is not None and node.frozen

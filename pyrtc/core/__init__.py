"""A thin typed layer over the C core: fills structs, raises errors, decides nothing.

Descriptors go in and come out; whoever passes one keeps it, whoever receives one closes it.
"""

from typing import TYPE_CHECKING

from pyrtc.core.error import (
    check,
)
from pyrtc.core.mounts import (
    attach_mount,
    clone_mount,
    file_ids,
    join_namespace,
    make_netns,
    mount_overlay,
    mount_view,
    own_mounts,
    unshare,
)
from pyrtc.core.processes import (
    Child,
    Exit,
    Report,
    attach_device_filter,
    go_on,
    next_report,
    poll,
    reap,
    seal_helper,
    send_descriptors,
    spawn,
    start_warden,
    write_in,
)
from pyrtc.core.trees import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    kernel_interface,
    measure_tree,
    openat2,
    remove_tree,
    sync_filesystem,
    watch_directory,
)

if TYPE_CHECKING:
    from pyrtc.core.copying import (
        COPY_CAPABILITIES,
        COPY_DEVICES,
        COPY_DIRECTORIES,
        COPY_OWNERS,
        CopyResult,
        copy_entry,
        copy_tree,
    )
    from pyrtc.core.layers import (
        TardiffResult,
        UntarLimits,
        UntarResult,
        tardiff,
        untar,
        untar_alone,
    )
    from pyrtc.core.monitored import (
        Monitored,
        connect_at,
        listen_at,
        send_message,
        spawn_monitored,
    )
    from pyrtc.core.network import (
        MACVLAN_MODES,
        Link,
        attach,
        detach,
        device_index,
        forget_flows,
        nft,
        open_in,
    )
    from pyrtc.core.pieces import Pieces

__all__ = [
    "COPY_CAPABILITIES",
    "COPY_DEVICES",
    "COPY_DIRECTORIES",
    "COPY_OWNERS",
    "MACVLAN_MODES",
    "RESOLVE_BENEATH",
    "RESOLVE_IN_ROOT",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "Child",
    "CopyResult",
    "Exit",
    "Link",
    "Monitored",
    "Pieces",
    "Report",
    "TardiffResult",
    "UntarLimits",
    "UntarResult",
    "attach",
    "attach_device_filter",
    "attach_mount",
    "check",
    "clone_mount",
    "connect_at",
    "copy_entry",
    "copy_tree",
    "detach",
    "device_index",
    "file_ids",
    "forget_flows",
    "go_on",
    "join_namespace",
    "kernel_interface",
    "listen_at",
    "make_netns",
    "measure_tree",
    "mount_overlay",
    "mount_view",
    "next_report",
    "nft",
    "open_in",
    "openat2",
    "own_mounts",
    "poll",
    "reap",
    "remove_tree",
    "seal_helper",
    "send_descriptors",
    "send_message",
    "spawn",
    "spawn_monitored",
    "start_warden",
    "sync_filesystem",
    "tardiff",
    "unshare",
    "untar",
    "untar_alone",
    "watch_directory",
    "write_in",
]

# What a start does without is imported at its first use.
_HOMES = {
    **dict.fromkeys(
        (
            "COPY_CAPABILITIES",
            "COPY_DEVICES",
            "COPY_DIRECTORIES",
            "COPY_OWNERS",
            "CopyResult",
            "copy_entry",
            "copy_tree",
        ),
        "pyrtc.core.copying",
    ),
    **dict.fromkeys(
        ("TardiffResult", "UntarLimits", "UntarResult", "tardiff", "untar", "untar_alone"), "pyrtc.core.layers"
    ),
    **dict.fromkeys(
        ("Monitored", "connect_at", "listen_at", "send_message", "spawn_monitored"), "pyrtc.core.monitored"
    ),
    **dict.fromkeys(
        ("MACVLAN_MODES", "Link", "attach", "detach", "device_index", "forget_flows", "nft", "open_in"),
        "pyrtc.core.network",
    ),
    "Pieces": "pyrtc.core.pieces",
}

if not TYPE_CHECKING:  # or every misspelt name would have a type

    def __getattr__(name: str) -> object:
        """Import a name at its first use."""
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

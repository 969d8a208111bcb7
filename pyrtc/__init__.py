"""Containers as a Python call: layered images, real kernel isolation, typed results, no daemon.

>>> import pyrtc
>>> done = pyrtc.run("host", ["python3", "-c", "print(6 * 7)"], timeout=5)
>>> done.returncode, done.stdout, done.outcome
(0, b'42\\n', <Outcome.EXITED: 'exited'>)

Everything public is named here and imported when it is first used; `pyrtc.aio` has the same for asyncio. Errors are one
tree under `PyrtcError`.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrtc.api import default_engine, run
    from pyrtc.container import Completed, Outcome, Running, Usage
    from pyrtc.engine import Engine
    from pyrtc.errors import (
        ClusterError,
        ClusterUnreachable,
        CommandNotExecutable,
        CommandNotFound,
        ContainerError,
        ContainerFailed,
        ContainerFileDenied,
        ContainerFileError,
        ContainerFileExists,
        ContainerFileIsADirectory,
        ContainerFileNotADirectory,
        ContainerFileNotFound,
        ContainerNotFound,
        DigestMismatch,
        ImageError,
        ImageNotFound,
        LimitError,
        NetworkError,
        NetworkNotFound,
        PyrtcError,
        RegistryBusy,
        RegistryDenied,
        RegistryError,
        RegistryUnreachable,
        StartError,
        StoreError,
        UnsupportedError,
        UsageError,
    )
    from pyrtc.events import Event
    from pyrtc.exec_process import ExecProcess
    from pyrtc.files import Copied, Files, FileStat
    from pyrtc.health import Health, HealthResult
    from pyrtc.inspection import ContainerSize, Inspection, MountInfo
    from pyrtc.listing import ContainerInfo
    from pyrtc.live import Container
    from pyrtc.logs import LogLine
    from pyrtc.network.overlay.cluster import ClusterHost, ClusterInfo
    from pyrtc.networks import NetworkInspection
    from pyrtc.options import (
        Bind,
        Device,
        HealthCheck,
        LogOptions,
        NetworkAttachment,
        Port,
        RestartPolicy,
        RunOptions,
        Tmpfs,
        Ulimit,
        Volume,
    )
    from pyrtc.processes import ProcessInfo
    from pyrtc.runtime.attach import AttachedExit, Attachment
    from pyrtc.runtime.cgroups import Limits
    from pyrtc.rw_layer import Change
    from pyrtc.snapshots import Snapshot
    from pyrtc.stats import Stats
    from pyrtc.store.network_records import Endpoint, Network

__all__ = [
    "AttachedExit",
    "Attachment",
    "Bind",
    "Change",
    "ClusterError",
    "ClusterHost",
    "ClusterInfo",
    "ClusterUnreachable",
    "CommandNotExecutable",
    "CommandNotFound",
    "Completed",
    "Container",
    "ContainerError",
    "ContainerFailed",
    "ContainerFileDenied",
    "ContainerFileError",
    "ContainerFileExists",
    "ContainerFileIsADirectory",
    "ContainerFileNotADirectory",
    "ContainerFileNotFound",
    "ContainerInfo",
    "ContainerNotFound",
    "ContainerSize",
    "Copied",
    "Device",
    "DigestMismatch",
    "Endpoint",
    "Engine",
    "Event",
    "ExecProcess",
    "FileStat",
    "Files",
    "Health",
    "HealthCheck",
    "HealthResult",
    "ImageError",
    "ImageNotFound",
    "Inspection",
    "LimitError",
    "Limits",
    "LogLine",
    "LogOptions",
    "MountInfo",
    "Network",
    "NetworkAttachment",
    "NetworkError",
    "NetworkInspection",
    "NetworkNotFound",
    "Outcome",
    "Port",
    "ProcessInfo",
    "PyrtcError",
    "RegistryBusy",
    "RegistryDenied",
    "RegistryError",
    "RegistryUnreachable",
    "RestartPolicy",
    "RunOptions",
    "Running",
    "Snapshot",
    "StartError",
    "Stats",
    "StoreError",
    "Tmpfs",
    "Ulimit",
    "UnsupportedError",
    "Usage",
    "UsageError",
    "Volume",
    "default_engine",
    "run",
]

__version__ = "0.1.0"

# A short command must not pay for what it does not use.
_HOMES = {
    **dict.fromkeys(
        (
            "default_engine",
            "run",
        ),
        "pyrtc.api",
    ),
    **dict.fromkeys(
        (
            "Completed",
            "Outcome",
            "Running",
            "Usage",
        ),
        "pyrtc.container",
    ),
    **dict.fromkeys(("Engine",), "pyrtc.engine"),
    **dict.fromkeys(("Stats",), "pyrtc.stats"),
    **dict.fromkeys(("ProcessInfo",), "pyrtc.processes"),
    **dict.fromkeys(("Event",), "pyrtc.events"),
    **dict.fromkeys(("ContainerInfo",), "pyrtc.listing"),
    **dict.fromkeys(
        (
            "ClusterError",
            "ClusterUnreachable",
            "CommandNotExecutable",
            "CommandNotFound",
            "ContainerError",
            "ContainerFailed",
            "ContainerFileDenied",
            "ContainerFileError",
            "ContainerFileExists",
            "ContainerFileIsADirectory",
            "ContainerFileNotADirectory",
            "ContainerFileNotFound",
            "ContainerNotFound",
            "DigestMismatch",
            "ImageError",
            "ImageNotFound",
            "LimitError",
            "NetworkError",
            "NetworkNotFound",
            "PyrtcError",
            "RegistryBusy",
            "RegistryDenied",
            "RegistryError",
            "RegistryUnreachable",
            "StartError",
            "StoreError",
            "UnsupportedError",
            "UsageError",
        ),
        "pyrtc.errors",
    ),
    **dict.fromkeys(
        (
            "Bind",
            "Device",
            "HealthCheck",
            "LogOptions",
            "NetworkAttachment",
            "Port",
            "RestartPolicy",
            "RunOptions",
            "Tmpfs",
            "Ulimit",
            "Volume",
        ),
        "pyrtc.options",
    ),
    **dict.fromkeys(("ExecProcess",), "pyrtc.exec_process"),
    **dict.fromkeys(("Copied", "FileStat", "Files"), "pyrtc.files"),
    **dict.fromkeys(("Health", "HealthResult"), "pyrtc.health"),
    **dict.fromkeys(("ContainerSize", "Inspection", "MountInfo"), "pyrtc.inspection"),
    **dict.fromkeys(("Container",), "pyrtc.live"),
    **dict.fromkeys(("LogLine",), "pyrtc.logs"),
    **dict.fromkeys(("Endpoint", "Network"), "pyrtc.store.network_records"),
    **dict.fromkeys(("ClusterHost", "ClusterInfo"), "pyrtc.network.overlay.cluster"),
    **dict.fromkeys(("NetworkInspection",), "pyrtc.networks"),
    **dict.fromkeys(("AttachedExit", "Attachment"), "pyrtc.runtime.attach"),
    **dict.fromkeys(("Limits",), "pyrtc.runtime.cgroups"),
    **dict.fromkeys(("Change",), "pyrtc.rw_layer"),
    **dict.fromkeys(("Snapshot",), "pyrtc.snapshots"),
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    from importlib import import_module

    if name == "aio":
        return import_module("pyrtc.aio")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """Name everything public."""
    return [*__all__, "__version__"]

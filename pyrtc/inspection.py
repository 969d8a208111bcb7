"""Everything that is known of one container, as one value."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from pyrtc.container import Completed, Outcome, Usage
from pyrtc.ended import completed_of
from pyrtc.errors import ContainerNotFound, ImageNotFound
from pyrtc.health import Health, read_health
from pyrtc.states import is_alive, status_of
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.handle import Handle
    from pyrtc.image.config import ImageConfig
    from pyrtc.options import Port, RunOptions
    from pyrtc.store import ContainerRecord
    from pyrtc.store.network_records import Endpoint

__all__ = ["ContainerSize", "Inspection", "MountInfo", "inspect", "size_of"]


@dataclass(frozen=True, slots=True)
class ContainerSize:
    """What a container takes. written: bytes on the disk in its R/W layer; total: with the file data of its image."""

    written: int
    total: int


@dataclass(frozen=True, slots=True)
class MountInfo:
    """Something mounted in a container.

    kind: ``volume``, ``bind`` or ``tmpfs``. name: of a volume, "" of others. source: path on the host, "" of a tmpfs.
    """

    kind: Literal["volume", "bind", "tmpfs"]
    name: str
    source: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """One container.

    image: as it was asked for. image_id: ``sha256:...`` or ``host``. status: as `Container.status`. pid: of its process
    1, None when it does not run. monitor_pid: of the process that keeps its log, None where there is none. created,
    started, finished: seconds since the epoch; of its last run, None before. restarts: by its restart policy, since
    somebody started it. last: how its last run ended, None before. error: why its last start failed. directory: where
    what it writes is kept, with ``upper``, ``log``. cgroup: directory of its control group. volumes: names of those it
    mounts. options: what it was asked to be, None where that is not kept. labels: (name, value) pairs, the image's
    included. usage: what it has used, while it runs and of its last run; None before. oom_killed: its last run ended
    for want of memory. mounts: what it asked to have mounted, and the image's volumes; without options kept, volumes
    and directories of the host only. image_config: what its image says, None where that is gone.
    network: what it was asked to be in. log_path: where its output is kept, None where it is not.
    endpoints: what it has on its networks while it runs. ports: of this machine that lead to it meanwhile.
    env: variables of its command, the image's included, as far as they are kept. health: see `Container.health`.
    """

    id: str
    name: str
    image: str
    image_id: str
    command: tuple[str, ...]
    status: str
    pid: int | None
    monitor_pid: int | None
    created: float
    started: float | None
    finished: float | None
    restarts: int
    remove: bool
    last: Completed | None
    error: str
    directory: str | None
    cgroup: str | None
    volumes: tuple[str, ...]
    options: "RunOptions | None"
    labels: tuple[tuple[str, str], ...]
    usage: Usage | None = None
    oom_killed: bool = False
    mounts: tuple[MountInfo, ...] = ()
    image_config: "ImageConfig | None" = None
    network: str = ""
    log_path: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    health: Health | None = None
    endpoints: "tuple[Endpoint, ...]" = ()
    ports: "tuple[Port, ...]" = ()


def inspect(container: "Handle") -> Inspection:
    """See `Container.inspect`."""
    from pyrtc.store.records import load_options

    record = container.record
    said = json.loads(record.options or b"{}")
    runs = record.state == "running" and is_alive(record)
    users = container.engine.store.volumes.users()
    options = load_options(record.spec) if record.spec else None
    ended = json.loads(record.exit or b"{}")
    last = completed_of(record) if "returncode" in ended else None
    image_config = _image_config(container)
    return Inspection(
        id=record.id,
        name=record.name,
        image=said.get("image", record.image_id),
        image_id=record.image_id,
        command=tuple(said.get("command") or ()),
        status=status_of(record),
        pid=record.pid if runs else None,
        monitor_pid=(record.monitor_pid or None) if runs else None,
        created=record.created,
        started=record.started,
        finished=None if runs else record.finished,
        restarts=record.restarts,
        remove=record.remove,
        last=last,
        error="" if runs else ended.get("error", ""),
        directory=record.directory,
        cgroup=container.cgroup_path if runs else None,
        volumes=tuple(volume for volume, holders in users.items() if record.id in holders),
        options=options,
        labels=tuple((said.get("labels") or {}).items()),
        usage=_usage_now(container, record) if runs else last.usage if last is not None else None,
        oom_killed=last is not None and last.outcome is Outcome.OOM_KILLED,
        mounts=_mounts(container, record, options, said.get("binds", ())),
        image_config=image_config,
        env=tuple(_environment(image_config, options).items()),
        health=read_health(record),
        endpoints=container.engine.store.networks.endpoints_of(record.id) if runs else (),
        ports=container.ports if runs else (),
        network=said.get("network", ""),
        log_path=f"{record.directory}/log" if record.detached and options and options.log.driver != "none" else None,
    )


def _usage_now(container: "Handle", record: "ContainerRecord") -> Usage | None:
    with suppress(ContainerNotFound):
        counted = container.cgroup().stats()
        return Usage(
            wall_seconds=max(0.0, time.time() - (record.started or record.created)),
            cpu_seconds=counted.cpu_usage or 0.0,
            user_seconds=counted.cpu_user or 0.0,
            system_seconds=counted.cpu_system or 0.0,
            memory_peak=counted.memory_peak,
            pids_peak=counted.pids_peak,
            read_bytes=counted.io_read_bytes or 0,
            written_bytes=counted.io_write_bytes or 0,
        )
    return None


def _mounts(
    container: "Handle",
    record: "ContainerRecord",
    options: "RunOptions | None",
    binds: "Sequence[tuple[str, str, bool]]",
) -> tuple[MountInfo, ...]:
    from pyrtc.options import Bind, Tmpfs, Volume

    store = container.engine.store
    asked = {mount.target: mount for mount in options.mounts} if options is not None else {}
    found = []
    for volume, target in store.containers.volumes_of(record.id):
        mount = asked.get(target)
        read_only = isinstance(mount, Volume) and mount.read_only
        found.append(MountInfo("volume", volume, f"{store.volumes.path}/{volume}/data", target, read_only))
    for target, mount in asked.items():
        if isinstance(mount, Bind):
            found.append(MountInfo("bind", "", mount.source, target, mount.read_only))
        elif isinstance(mount, Tmpfs):
            found.append(MountInfo("tmpfs", "", "", target, mount.read_only))
    if options is None:
        found += [MountInfo("bind", "", source, target, read_only) for source, target, read_only in binds]
    return tuple(found)


def _environment(config: "ImageConfig | None", options: "RunOptions | None") -> dict[str, str]:
    from pyrtc.runtime.spec import DEFAULT_PATH

    return {"PATH": DEFAULT_PATH, **dict(config.env if config else ()), **dict(options.env if options else ())}


def _image_config(container: "Handle") -> "ImageConfig | None":
    try:
        return container.image_config
    except ImageNotFound:
        return None


def size_of(container: "Handle") -> ContainerSize:
    """See `Container.size`."""
    store, record = container.engine.store, container.record
    written = store.trees.measure(store.containers.fd, f"{record.id}/upper") if record.directory is not None else 0
    try:
        image = store.image(record.image_id).size
    except ImageNotFound:  # host, or one that was removed by force
        image = 0
    return ContainerSize(written, written + image)

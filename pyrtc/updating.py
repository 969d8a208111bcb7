"""Other limits, or another restart policy, for a container that is there; see `Container.update`."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypedDict

from pyrtc.errors import ContainerError, ContainerNotFound, UnsupportedError, UsageError
from pyrtc.keywords import RATES, Rates, Size, limit_value
from pyrtc.network_words import check_networks
from pyrtc.options import RestartPolicy, RunOptions
from pyrtc.runtime.cgroups import Limits
from pyrtc.values import replace

if TYPE_CHECKING:
    from pyrtc.live import Container
    from pyrtc.store import ContainerRecord

__all__ = ["UpdateKeywords", "update"]


class UpdateKeywords(TypedDict, total=False):
    """What `Container.update` changes: what is not given stays, None takes a limit away."""

    memory: Size | None
    memory_swap: Size | None
    memory_reservation: Size | None
    cpus: float | None
    cpu_shares: int | None
    cpuset_cpus: str | None
    cpuset_mems: str | None
    pids: int | None
    blkio_weight: int | None
    device_read_bps: Rates
    device_write_bps: Rates
    device_read_iops: Iterable[tuple[str, int]]
    device_write_iops: Iterable[tuple[str, int]]
    network_in: int | str | None
    network_out: int | str | None
    restart: RestartPolicy | str


_NO_RATES: dict[str, Any] = {"network_in": None, "network_out": None}  # these are none of the control group's
_KNOWN = frozenset(UpdateKeywords.__annotations__)


def update(container: "Container", changes: Mapping[str, Any]) -> tuple[str, ...]:
    """See `Container.update`."""
    unknown = [key for key in changes if key not in _KNOWN]
    if unknown:
        raise UsageError(f"update() has no option {unknown[0]!r}")
    if not changes:
        raise UsageError("there is nothing to update: name a limit or a restart policy")
    store = container.engine.store
    with store.lives.hold(container.id):
        warnings = _update(container, container.record, changes)
    from pyrtc.ended import event_attributes
    from pyrtc.events import emit

    with suppress(ContainerNotFound):  # it may go when it ends, and have ended
        emit(store, "container", "update", container.id, event_attributes(container.record))
    return warnings


def _update(container: "Container", record: "ContainerRecord", changes: Mapping[str, Any]) -> tuple[str, ...]:
    from pyrtc.states import is_alive
    from pyrtc.store.records import dump_options, load_options

    options = load_options(record.spec) if record.spec is not None else None
    if "restart" in changes:
        if options is None or record.remove:
            raise UsageError(f"container {record.name} is removed when it ends, so it cannot have a restart policy")
        options = replace(options, restart=_policy(changes["restart"]))
    old = options.limits if options is not None else Limits()
    new = _changed(old, changes)
    warnings: tuple[str, ...] = ()
    if options is not None:
        options = replace(options, limits=new)
        if new.network_in is not None or new.network_out is not None:
            check_networks(options)
    running = record.state == "running" and is_alive(record)
    # First, as the control group's limits are all or none; these are put back where those are refused.
    rates = running and (new.network_in, new.network_out) != (old.network_in, old.network_out)
    if rates:
        _change_rates(container, record, options, old)
    if running and replace(new, **_NO_RATES) != replace(old, **_NO_RATES):
        try:
            warnings = _apply(container, record, old, new)
        except BaseException:
            if rates and options is not None:
                _change_rates(container, record, replace(options, limits=old), new)
            raise
    if options is not None:
        container.engine.store.lives.spec(record, dump_options(options), record.options)
    return warnings


def _change_rates(
    container: "Container", record: "ContainerRecord", options: "RunOptions | None", before: Limits
) -> None:
    from pyrtc.network.joining import change_rates

    store = container.engine.store
    if options is None:
        raise ContainerError(f"container {record.name} runs in the foreground: its network rates cannot be changed")
    if store.rootless:
        raise UnsupportedError(
            "the network rates of an ordinary user's container cannot be limited: its packets go through a program of "
            "that user"
        )
    change_rates(store, record, options, before)


def _apply(container: "Container", record: "ContainerRecord", old: Limits, new: Limits) -> tuple[str, ...]:
    from pyrtc.runtime.cgroups.updating import update as update_cgroup

    try:
        group = container.cgroup()
    except ContainerNotFound:
        raise UnsupportedError(
            f"cannot change the limits of container {record.name}: it has no control group, as this user may not make "
            "any; start it as root, or inside `systemd-run --user --scope -p Delegate=yes ...`"
        ) from None
    try:
        return update_cgroup(group, old, new)
    except OSError as error:
        raise ContainerError(
            f"cannot change the limits of container {record.name}: {error.strerror}: {error.filename or ''}"
        ) from error


def _changed(old: Limits, changes: Mapping[str, Any]) -> Limits:
    fields: dict[str, Any] = {}
    for key, value in changes.items():
        if key == "restart":
            continue
        if key in RATES:
            fields[key] = _rates(getattr(old, key), limit_value(key, value or ()))
        else:
            fields[key] = None if value is None else limit_value(key, value)
    return replace(old, **fields)


def _rates(old: tuple[tuple[str, int], ...], given: object) -> tuple[tuple[str, int], ...]:
    """Return the rates of all devices; a rate of 0 takes one away."""
    merged = {**dict(old), **dict(given)}  # type: ignore[call-overload]
    return tuple((device, rate) for device, rate in merged.items() if rate != 0)


def _policy(said: RestartPolicy | str) -> RestartPolicy:
    if isinstance(said, RestartPolicy):
        return said
    from pyrtc.quantities import restart_policy

    return restart_policy(said)

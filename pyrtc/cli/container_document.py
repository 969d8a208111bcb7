"""A container as Docker's `inspect` describes it: the fields that people script against, from pyrtc's own values."""

import math
from typing import TYPE_CHECKING, Any

from pyrtc.cli.network_settings import exposed_ports, network_settings, port_bindings
from pyrtc.options import RunOptions
from pyrtc.quantities import MAX_SECONDS
from pyrtc.runtime.cgroups import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrtc.image.config import ImageConfig
    from pyrtc.inspection import ContainerSize, Inspection, MountInfo

__all__ = ["container_document", "timestamp"]

NEVER = "0001-01-01T00:00:00Z"


def timestamp(seconds: float | None) -> str:
    """Write a moment as Docker does; None is Go's year one."""
    if seconds is None:
        return NEVER
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def container_document(found: "Inspection", size: "ContainerSize | None" = None) -> dict[str, Any]:
    """Return the object of one container. What is not kept of how it was made is left at its default.

    size: where it was asked for.
    """
    options = found.options or RunOptions(
        remove=found.remove, name=found.name, network="host" if found.network == "host" else "none"
    )
    command = list(found.command)
    return {
        "Id": found.id,
        "Created": timestamp(found.created),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": _state(found),
        "Image": found.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": found.log_path or "",
        "Name": f"/{found.name}",
        "RestartCount": found.restarts,
        "Driver": options.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(options, found.mounts),
        "GraphDriver": _graph_driver(found, options),
        **({} if size is None else {"SizeRw": size.written, "SizeRootFs": size.total}),
        "Mounts": [_mount(mount) for mount in found.mounts],
        "Config": _config(found, options),
        "NetworkSettings": network_settings(found, options),
        "Usage": _usage(found),
        "CgroupPath": found.cgroup or "",
    }


def _state(found: "Inspection") -> dict[str, Any]:
    runs = found.status in ("running", "paused")
    return {
        "Status": found.status,
        "Running": runs,
        "Paused": found.status == "paused",
        "Restarting": found.status == "restarting",
        "OOMKilled": found.oom_killed and not runs,
        "Dead": found.status == "dead",
        "Pid": found.pid or 0,
        "ExitCode": 0 if runs or found.last is None else found.last.returncode,
        "Error": found.error,
        "StartedAt": timestamp(found.started if found.started is not None or not runs else found.created),
        "FinishedAt": timestamp(found.finished),
        **_health_state(found),
    }


def _config(found: "Inspection", options: RunOptions) -> dict[str, Any]:
    image = found.image_config
    entrypoint = options.entrypoint if options.entrypoint is not None else image.entrypoint if image else None
    command = options.command
    if command is None and found.options is None:
        command = found.command
        entrypoint = None
    elif not command and image is not None and options.entrypoint is None:
        command = image.cmd
    return {
        "Hostname": "" if options.uts == "host" else options.hostname or found.id[:12],
        "Domainname": options.domainname or "",
        "User": options.user if options.user is not None else image.user if image else "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        **exposed_ports(image.ports if image else (), options),
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": False,
        "Env": [f"{name}={value}" for name, value in found.env],
        "Cmd": list(command) if command is not None else None,
        **_health(found.options, image),
        "Image": found.image,
        "Volumes": {path: {} for path in image.volumes} if image and image.volumes else None,
        "WorkingDir": options.workdir or (image.workdir if image else "") or "/",
        "Entrypoint": list(entrypoint) if entrypoint is not None else None,
        "OnBuild": None,
        "Labels": dict(found.labels),
        "StopSignal": options.stop_signal or (image.stop_signal if image else None) or "SIGTERM",
        # Whole seconds in Docker; what is left over is time as well.
        "StopTimeout": -1 if options.stop_timeout >= MAX_SECONDS else math.ceil(options.stop_timeout),
    }


def _health(options: RunOptions | None, image: "ImageConfig | None") -> dict[str, Any]:
    from pyrtc.health import merged

    check = merged(options.health if options else None, image.healthcheck if image else None)
    if check is None:
        return {}
    return {
        "Healthcheck": {
            "Test": list(check.test),
            "Interval": round(check.interval * 1e9),
            "Timeout": round(check.timeout * 1e9),
            "StartPeriod": round(check.start_period * 1e9),
            **({"StartInterval": round(check.start_interval * 1e9)} if check.start_interval else {}),
            "Retries": check.retries,
        }
    }


def _health_state(found: "Inspection") -> dict[str, Any]:
    if found.health is None:
        return {}
    return {
        "Health": {
            "Status": found.health.status,
            "FailingStreak": found.health.failing_streak,
            "Log": [
                {
                    "Start": timestamp(result.start),
                    "End": timestamp(result.end),
                    "ExitCode": result.returncode,
                    "Output": result.output,
                }
                for result in found.health.log
            ],
        }
    }


def _host_config(options: RunOptions, mounts: "Sequence[MountInfo]") -> dict[str, Any]:
    security = [] if options.no_new_privileges else ["no-new-privileges=false"]
    security += [f"seccomp={options.seccomp}"] if options.seccomp is not None else []
    security += ["systempaths=unconfined"] if options.systempaths == "unconfined" else []
    binds = [
        f"{mount.name or mount.source}:{mount.target}{':ro' if mount.read_only else ''}"
        for mount in mounts
        if mount.kind != "tmpfs"
    ]
    return {
        "Binds": binds or None,
        "ContainerIDFile": "",
        "LogConfig": _log(options),
        "NetworkMode": options.network,
        "PortBindings": port_bindings(options),
        "RestartPolicy": {"Name": options.restart.name, "MaximumRetryCount": options.restart.retries},
        "AutoRemove": options.remove,
        "VolumeDriver": "",
        "VolumesFrom": None,
        "ConsoleSize": [0, 0],
        "CapAdd": list(options.cap_add) or None,
        "CapDrop": list(options.cap_drop) or None,
        "CgroupnsMode": options.cgroupns,
        "Dns": list(options.dns),
        "DnsOptions": list(options.dns_option),
        "DnsSearch": list(options.dns_search),
        "ExtraHosts": [f"{name}:{address}" for name, address in options.add_host] or None,
        "GroupAdd": list(options.group_add) or None,
        "IpcMode": options.ipc,
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": options.oom_score_adj or 0,
        "PidMode": "host" if options.pid == "host" else "",
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": security or None,
        "Tmpfs": {mount.target: "" for mount in mounts if mount.kind == "tmpfs"},
        "UTSMode": "host" if options.uts == "host" else "",
        "UsernsMode": options.userns or "",
        "ShmSize": options.shm_size,
        "Sysctls": dict(options.sysctls),
        "Runtime": "pyrtc",
        "Isolation": "",
        "Init": options.init,
        "Devices": [
            {"PathOnHost": item.source, "PathInContainer": item.target, "CgroupPermissions": item.permissions}
            for item in options.devices
        ],
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
        "Ulimits": [{"Name": item.name, "Hard": item.hard, "Soft": item.soft} for item in options.ulimits],
        **_limits(options.limits),
        "Egress": None if options.egress is None else list(options.egress),
    }


def _limits(limits: Limits) -> dict[str, Any]:
    def rates(name: str) -> list[dict[str, Any]]:
        return [{"Path": device, "Rate": rate} for device, rate in getattr(limits, name)]

    return {
        "Memory": limits.memory or 0,
        "MemorySwap": limits.swap_total or 0,
        "MemoryReservation": limits.memory_reservation or 0,
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "NanoCpus": round((limits.cpus or 0) * 1e9),
        "CpuShares": limits.cpu_shares or 0,
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": limits.cpuset_cpus or "",
        "CpusetMems": limits.cpuset_mems or "",
        "PidsLimit": limits.pids,
        "BlkioWeight": limits.blkio_weight or 0,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": rates("device_read_bps"),
        "BlkioDeviceWriteBps": rates("device_write_bps"),
        "BlkioDeviceReadIOps": rates("device_read_iops"),
        "BlkioDeviceWriteIOps": rates("device_write_iops"),
        "CgroupParent": "",
        # Not in Docker: bits per second.
        "NetworkRateIn": limits.network_in or 0,
        "NetworkRateOut": limits.network_out or 0,
    }


def _log(options: RunOptions) -> dict[str, Any]:
    log = options.log
    settings = {"max-size": str(log.max_size), "max-file": str(log.max_files)} if log.driver == "local" else {}
    return {"Type": log.driver, "Config": settings}


def _mount(mount: "MountInfo") -> dict[str, Any]:
    named = {"Name": mount.name, "Driver": "local"} if mount.kind == "volume" else {}
    return {
        "Type": mount.kind,
        **named,
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": "ro" if mount.read_only else "",
        "RW": not mount.read_only,
        "Propagation": "rprivate" if mount.kind == "bind" else "",
    }


def _graph_driver(found: "Inspection", options: RunOptions) -> dict[str, Any]:
    if found.directory is None:
        return {"Name": options.driver, "Data": None}
    data = {"UpperDir": f"{found.directory}/upper", "WorkDir": f"{found.directory}/work"}
    return {"Name": options.driver, "Data": data}


def _usage(found: "Inspection") -> dict[str, Any] | None:
    """Return what the container has used; Docker tells no such thing."""
    usage = found.usage
    if usage is None:
        return None
    return {
        "WallSeconds": usage.wall_seconds,
        "CpuSeconds": usage.cpu_seconds,
        "UserSeconds": usage.user_seconds,
        "SystemSeconds": usage.system_seconds,
        "MemoryPeak": usage.memory_peak,
        "PidsPeak": usage.pids_peak,
        "ReadBytes": usage.read_bytes,
        "WrittenBytes": usage.written_bytes,
    }

"""How fast a container may receive and send, by token buckets (tc-tbf(8)) on its network devices.

What it receives waits at the host's end of the veth pair. What it sends waits at its own device, which costs nothing
more and which a container without CAP_NET_ADMIN cannot change. From one that has it, what it sends is led through an
ifb device of the host.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pyrtc.errors import NetworkError, UsageError
from pyrtc.network.detours import detour, remove_detours
from pyrtc.network.kernel import ask_kernel

if TYPE_CHECKING:
    from pyroute2 import IPRoute

    from pyrtc.runtime.cgroups import Limits
    from pyrtc.store.networks import Endpoint

__all__ = ["bucket", "shape"]

_ROOT, _INGRESS_PARENT = 0xFFFFFFFF, 0xFFFFFFF1  # TC_H_ROOT, TC_H_INGRESS
_INGRESS = 0xFFFF0000  # the handle of an ingress queue
_BUCKET = 0x10000
_ETH_P_ALL = 3
_FRAME = 18  # of an Ethernet frame beside what the MTU counts
_BURST = 131072  # bytes: what a segmenting device is handed at once passes, and then some
_LATENCY = 0.05  # seconds that a packet waits before others are dropped
_ENOENT, _EINVAL = 2, 22


def bucket(rate: int, mtu: int) -> dict[str, int]:
    """Return the token bucket for bits per second as pyroute2 takes it: bytes per second, and bytes.

    The burst is what a fast sender hands over at once. A slow link gets less, or its first second would be far beyond
    its rate; but a frame must fit.
    """
    each_second = rate // 8
    burst = max(min(_BURST, each_second // 10), each_second // 50, 2 * (mtu + _FRAME))
    return {"rate": each_second, "burst": burst, "limit": burst + max(int(each_second * _LATENCY), 10 * mtu)}


def shape(
    endpoints: "Iterable[Endpoint]", netns_fd: int, limits: "Limits", *, on_host: bool, before: "Limits | None" = None
) -> None:
    """Have the rates of limits hold for the devices of a container.

    Parameters
    ----------
    netns_fd: the container's network namespace. on_host: it can change its own devices.
    before: what holds until now; None: they are new.

    Raises
    ------
    UsageError: a network has nothing that could be limited. NetworkError, UnsupportedError: the kernel refuses.
    """
    endpoints = tuple(endpoints)
    _check(endpoints, limits)
    if limits.network_in != (before.network_in if before is not None else None):
        _limit("receives", [one.host_device for one in endpoints], limits.network_in)
    if limits.network_out == (before.network_out if before is not None else None):
        return
    inside = [one for one in endpoints if not on_host or one.network.driver == "macvlan"]
    _limit("sends", [one.device for one in inside], limits.network_out, netns_fd)
    for endpoint in endpoints:
        if endpoint not in inside:
            _limit_detour(endpoint, limits.network_out)


def _check(endpoints: "Iterable[Endpoint]", limits: "Limits") -> None:
    """Say which network has nothing that could be limited.

    Raises
    ------
    UsageError: one is of a driver whose devices have no end on this host.
    """
    for endpoint in endpoints:
        if endpoint.network.driver == "macvlan" and limits.network_in is not None:
            raise UsageError(
                f"what a container receives over the macvlan network {endpoint.network.name} does not pass through "
                "this host's hands: leave --network-rate-in out, or use a bridge network"
            )


def _limit(does: str, names: list[str], rate: int | None, netns_fd: int = -1) -> None:
    if names:
        ask_kernel(f"limit what a container {does}", lambda kernel: _shape_each(kernel, names, rate), netns_fd)


def _limit_detour(endpoint: "Endpoint", rate: int | None) -> None:
    what = "limit what a container sends"
    if rate is not None:
        ask_kernel(what, lambda kernel: _lead_through(kernel, endpoint, rate))
        return
    ask_kernel(what, lambda kernel: _take_ingress(kernel, endpoint.host_device))
    remove_detours((endpoint,))


def _shape_each(kernel: "IPRoute", names: list[str], rate: int | None) -> None:
    for name in names:
        link = _link(kernel, name)
        if rate is None:
            _delete(kernel, link["index"], _ROOT)
        else:
            kernel.tc("replace", "tbf", link["index"], _BUCKET, parent=_ROOT, **bucket(rate, link.get_attr("IFLA_MTU")))


def _link(kernel: "IPRoute", name: str) -> Any:  # noqa: ANN401  (pyroute2)
    found = kernel.link_lookup(ifname=name)
    if not found:
        raise NetworkError(f"the network device {name} is gone")
    return kernel.get_links(found[0])[0]


def _delete(kernel: "IPRoute", index: int, parent: int) -> None:
    """Delete the queue at a place, where there may be none."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        kernel.tc("del", None, index, parent=parent)
    except NetlinkError as error:
        if error.code not in (_ENOENT, _EINVAL):
            raise


def _take_ingress(kernel: "IPRoute", name: str) -> None:
    _delete(kernel, _link(kernel, name)["index"], _INGRESS_PARENT)


def _lead_through(kernel: "IPRoute", endpoint: "Endpoint", rate: int) -> None:
    """Have all that comes out of the container wait in a device of its own."""
    name = detour(endpoint)
    link = _link(kernel, endpoint.host_device)
    if not kernel.link_lookup(ifname=name):
        kernel.link("add", ifname=name, kind="ifb")
    index = kernel.link_lookup(ifname=name)[0]
    kernel.link("set", index=index, state="up", mtu=link.get_attr("IFLA_MTU"))
    _shape_each(kernel, [name], rate)
    _take_ingress(kernel, endpoint.host_device)
    kernel.tc("add", "ingress", link["index"], _INGRESS)
    kernel.tc(
        "add-filter",
        "u32",
        link["index"],
        parent=_INGRESS,
        prio=1,
        protocol=_ETH_P_ALL,
        target=0x1,
        keys=["0x0/0x0+0"],
        action={"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": index},
    )

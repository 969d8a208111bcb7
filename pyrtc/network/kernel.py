"""The kernel's network devices through pyroute2, for everything that is not in the way of a start.

pyroute2 takes a sixth of a second to import and runs an event loop of its own, which a thread that has one already
refuses; so each question gets a thread of its own. That is in the same network namespace as its caller, or enters
another, where it ends.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pyrtc.core import join_namespace
from pyrtc.errors import NetworkError, UnsupportedError, reason

if TYPE_CHECKING:
    from pyroute2 import IPRoute

__all__ = ["ask_kernel"]

T = TypeVar("T")
_EPERM, _EOPNOTSUPP = 1, 95


def ask_kernel(what: str, act: "Callable[[IPRoute], T]", netns_fd: int = -1) -> T:
    """Do something with the devices of a network namespace. what: for messages, as in "cannot" what.

    netns_fd: the namespace; -1: this one.

    Raises
    ------
    UnsupportedError: the kernel or this user's rights refuse. NetworkError: it fails otherwise.
    """
    answers: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            from pyroute2 import IPRoute

            if netns_fd >= 0:
                join_namespace(netns_fd)
            with IPRoute() as kernel:
                answers.append(act(kernel))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="pyrtc-network")
    thread.start()
    thread.join()
    if answers:
        return answers[0]
    raise _explained(what, failures[0])


def _explained(what: str, failure: BaseException) -> BaseException:
    # Not told by its class: pyroute2 has moved that before.
    code = getattr(failure, "code", None) or getattr(failure, "errno", None)
    if isinstance(failure, NetworkError) or not isinstance(code, int):
        return failure
    if code == _EPERM:
        return UnsupportedError(
            f"cannot {what}: {reason(code)}: only root makes networks on the host, with CAP_NET_ADMIN; ordinary users "
            "have networks beside it, when pyrtc is run by them"
        )
    if code == _EOPNOTSUPP:
        return UnsupportedError(f"cannot {what}: {reason(code)}: this kernel has no such devices")
    return NetworkError(f"cannot {what}: {reason(code)}")

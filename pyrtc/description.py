"""What the store keeps of a container in words, for who lists it or ends it without reading all its options."""

from functools import lru_cache

from pyrtc.image.config import ImageConfig
from pyrtc.options import Bind, Port, RunOptions
from pyrtc.quantities import signal_number
from pyrtc.runtime.spec import command_of
from pyrtc.values import replace

__all__ = ["describe_options", "exposed_ports"]


def exposed_ports(config: ImageConfig) -> tuple[Port, ...]:
    """Return the ports that an image names, of those that can be published."""
    from pyrtc.port_words import exposed

    return tuple(port for word in config.ports if not word.endswith("/sctp") for port in exposed(word))


@lru_cache(maxsize=128)
def describe_options(image: str, options: RunOptions, config: ImageConfig) -> bytes:
    """What the store remembers of a container: enough to list it, and to stop it as it wants to be stopped."""
    import json

    words = {
        "image": image,
        "command": command_of(config, options),
        "labels": {**dict(config.labels), **dict(options.labels)},
        "stop_signal": signal_number(options.stop_signal or config.stop_signal or "TERM"),
        "stop_timeout": options.stop_timeout,
        "network": options.network,
        **(_describe_networks(options, config) if options.networks else {}),
        "binds": [(mount.source, mount.target, mount.read_only) for mount in options.mounts if isinstance(mount, Bind)],
    }
    return json.dumps(words).encode(errors="surrogateescape")


def _describe_networks(options: RunOptions, config: ImageConfig) -> dict[str, list[str]]:
    exposed = dict.fromkeys(
        (*options.expose, *exposed_ports(config), *(replace(port, host=0) for port in options.ports))
    )
    words = dict.fromkeys(f"{port.container}/{port.protocol}" for port in exposed)
    return {"networks": [one.network for one in options.networks], "exposed": list(words)}

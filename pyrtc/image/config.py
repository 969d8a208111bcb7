"""What an image says about running it, as plain values that are cheap to read on the way to a container.

The whole document is checked once, when the image comes in (`pyrtc.image.model`); the store keeps this extract beside
the layers, so that a start reads one row and needs no validator.
"""

import json

from pyrtc.values import dataclass

__all__ = ["Healthcheck", "ImageConfig"]


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """A command that tells whether the container is well. Times are seconds; 0 means the default."""

    test: tuple[str, ...]
    interval: float = 0
    timeout: float = 0
    start_period: float = 0
    retries: int = 0
    start_interval: float = 0


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The image's word on how to run it: data to merge, never an order; whatever a caller says goes first.

    env: (name, value) pairs in order. entrypoint, cmd, shell: None where the image is silent. ports: ``80/tcp``.
    """

    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    user: str = ""
    workdir: str = ""
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[str, ...] = ()
    stop_signal: str | None = None
    shell: tuple[str, ...] | None = None
    healthcheck: Healthcheck | None = None

    def dumps(self) -> str:
        """Write the form that the store keeps: only what differs from the default."""
        fields: dict[str, object] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            if value != getattr(_DEFAULT, name):
                fields[name] = (
                    [getattr(value, slot) for slot in Healthcheck.__slots__]
                    if isinstance(value, Healthcheck)
                    else value
                )
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> "ImageConfig":
        """Read what `dumps` wrote."""
        fields = json.loads(text)
        for name in ("entrypoint", "cmd", "shell", "volumes", "ports"):
            if name in fields:
                fields[name] = tuple(fields[name])
        for name in ("env", "labels"):
            if name in fields:
                fields[name] = tuple((key, value) for key, value in fields[name])
        if "healthcheck" in fields:
            test, *numbers = fields["healthcheck"]
            fields["healthcheck"] = Healthcheck(tuple(test), *numbers)
        return cls(**fields)


_FIELDS = tuple(ImageConfig.__slots__)
_DEFAULT = ImageConfig()

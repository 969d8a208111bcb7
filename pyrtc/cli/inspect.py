"""`pyrtc inspect`, and `inspect` of containers, images, networks and volumes: everything about them as JSON."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyrtc.cli.each import try_each
from pyrtc.cli.image_command import HELP, image_command, open_images, parse_options
from pyrtc.cli.opened import opened_engine
from pyrtc.cli.option_table import Group, Option, nearest
from pyrtc.errors import ContainerNotFound, ImageError, ImageNotFound, NetworkNotFound, StoreError, UsageError

if TYPE_CHECKING:
    from pyrtc.engine import Engine
    from pyrtc.image.images import Images
    from pyrtc.store import Image, Volume

__all__ = ["container_inspect", "image_inspect", "inspect", "network_inspect", "volume_inspect"]

Document = dict[str, Any]
WHEN_ASKED_FOR = ("SizeRw", "SizeRootFs")  # fields of a container with --size

FORMAT = Option("-f, --format", "FORMAT", "json, or a template: {{.State.Status}}, {{json .Mounts}}")
SIZE = Option("-s, --size", "", "with what containers have written (SizeRw, SizeRootFs); takes a walk over it")
TYPE = Option("--type", "TYPE", "look among these only: container, image, network or volume")
OPTIONS = (Group("Options", (FORMAT, SIZE, TYPE, HELP)),)
CONTAINER_OPTIONS = (Group("Options", (FORMAT, SIZE, HELP)),)
IMAGE_OPTIONS = (
    Group(
        "Options",
        (Option("-f, --format", "FORMAT", "json, or a template: {{.Id}}, {{.Config.Cmd}}, {{json .RootFS}}"), HELP),
    ),
)
NETWORK_OPTIONS = (
    Group("Options", (Option("-f, --format", "FORMAT", "json, or a template: {{.Driver}}, {{json .IPAM}}"), HELP)),
)
VOLUME_OPTIONS = (Group("Options", (Option("-f, --format", "FORMAT", "json, or a template: {{.Mountpoint}}"), HELP)),)


@image_command
def inspect(argv: list[str]) -> int:
    """Run `pyrtc inspect`."""
    usage = "pyrtc inspect [OPTIONS] NAME..."
    summary = "Print everything about containers, images, networks and volumes as JSON."
    parsed = parse_options(argv, OPTIONS, usage, summary)
    if parsed is None:
        return 0
    names = _names(parsed.arguments, "name", usage)
    kind, sized = parsed.word("--type"), parsed.flag("--size")
    if kind is not None and kind not in KINDS:
        raise UsageError(f"unknown type {kind}{nearest(kind, KINDS)}: say {', '.join(KINDS)}")
    with opened_engine() as engine:

        def describe(name: str) -> Document:
            for look in KINDS.values() if kind is None else (KINDS[kind],):
                found = look(engine, name, sized)
                if found is not None:
                    return found
            raise StoreError(f"No such {kind or 'object'}: {name}")

        return _print_all(names, parsed.word("--format"), describe)


@image_command
def container_inspect(argv: list[str]) -> int:
    """Run `pyrtc container inspect`."""
    usage = "pyrtc container inspect [OPTIONS] CONTAINER..."
    parsed = parse_options(argv, CONTAINER_OPTIONS, usage, "Print everything about containers as JSON.")
    if parsed is None:
        return 0
    names, sized = _names(parsed.arguments, "container", usage), parsed.flag("--size")
    with opened_engine() as engine:
        return _print_all(names, parsed.word("--format"), lambda name: _container(engine, name, sized))


@image_command
def image_inspect(argv: list[str]) -> int:
    """Run `pyrtc image inspect`."""
    usage = "pyrtc image inspect [OPTIONS] IMAGE..."
    parsed = parse_options(argv, IMAGE_OPTIONS, usage, "Print everything about images as JSON.")
    if parsed is None:
        return 0
    names = _names(parsed.arguments, "image", usage)
    with open_images() as images:
        return _print_all(names, parsed.word("--format"), lambda name: _image_document(images, images.get(name)))


@image_command
def network_inspect(argv: list[str]) -> int:
    """Run `pyrtc network inspect`."""
    usage = "pyrtc network inspect [OPTIONS] NETWORK..."
    parsed = parse_options(argv, NETWORK_OPTIONS, usage, "Print everything about networks as JSON.")
    if parsed is None:
        return 0
    names = _names(parsed.arguments, "network", usage)
    with opened_engine() as engine:
        return _print_all(names, parsed.word("--format"), lambda name: _network(engine, name))


@image_command
def volume_inspect(argv: list[str]) -> int:
    """Run `pyrtc volume inspect`."""
    usage = "pyrtc volume inspect [OPTIONS] VOLUME..."
    parsed = parse_options(argv, VOLUME_OPTIONS, usage, "Print everything about volumes as JSON.")
    if parsed is None:
        return 0
    names = _names(parsed.arguments, "volume", usage)
    with opened_engine() as engine:
        return _print_all(names, parsed.word("--format"), lambda name: _volume_document(engine.store.volumes.get(name)))


def _names(words: list[str], what: str, usage: str) -> list[str]:
    if not words:
        raise UsageError(f"the {what} is missing: {usage}")
    return words


def _print_all(names: list[str], form: str | None, describe: "Callable[[str], Document]") -> int:
    """Print what is found; what is not is told, and does not keep the others from being printed."""
    import json

    from pyrtc.cli.tables import printable

    found: list[Document] = []
    code = try_each(names, lambda name: found.append(describe(name)))
    if form is None:
        print(json.dumps(found, indent=4))
    elif form == "json":
        print(json.dumps(found, separators=(",", ":")))
    else:
        from pyrtc.cli.templates import render

        for document in found:
            print(printable(render(form, document, (*document, *WHEN_ASKED_FOR))))
    return code


# ---- the kinds of things, in the order in which a name is looked for ------------------------------------------------


def _container(engine: "Engine", name: str, sized: bool) -> Document:
    from pyrtc.cli.container_document import container_document

    engine.containers.reap()
    container = engine.containers.get(name)
    return container_document(container.inspect(), container.size() if sized else None)


def _find_container(engine: "Engine", name: str, sized: bool) -> Document | None:
    try:
        return _container(engine, name, sized)
    except ContainerNotFound:
        return None


def _find_image(engine: "Engine", name: str, _sized: bool) -> Document | None:
    try:
        return _image_document(engine.images, engine.images.get(name))
    except ImageNotFound:
        return None
    except ImageError:  # no name that an image can have
        return None


def _network(engine: "Engine", name: str) -> Document:
    from pyrtc.cli.network_document import network_document

    return network_document(engine.networks.inspect(name))


def _find_network(engine: "Engine", name: str, _sized: bool) -> Document | None:
    try:
        return _network(engine, name)
    except NetworkNotFound:
        return None


def _find_volume(engine: "Engine", name: str, _sized: bool) -> Document | None:
    for volume in engine.store.volumes.list():
        if volume.name == name:
            return _volume_document(volume)
    return None


KINDS: dict[str, "Callable[[Engine, str, bool], Document | None]"] = {
    "container": _find_container,
    "image": _find_image,
    "network": _find_network,
    "volume": _find_volume,
}


def _image_document(images: "Images", item: "Image") -> Document:
    """Return what Docker's `image inspect` says, from the image's own documents."""
    import json

    from pyrtc.image.reference import Reference

    document = json.loads(images.documents(item)[0])
    repositories = dict.fromkeys(Reference.parse(name).familiar_repository for name in item.names)
    history = document.get("history") or [{}]
    lower = ":".join(item.layers[1:])
    return {
        "Id": item.id,
        "RepoTags": list(item.names),
        "RepoDigests": [f"{name}@{item.manifest}" for name in repositories] if item.manifest else [],
        "Comment": history[-1].get("comment") or "",
        "Created": item.created,
        "Author": document.get("author") or "",
        "Config": document.get("config"),
        "Architecture": item.architecture,
        **({"Variant": item.variant} if item.variant else {}),
        "Os": item.os,
        "Size": item.size,
        "GraphDriver": {
            "Name": "overlay",
            "Data": {
                **({"LowerDir": lower} if lower else {}),
                **({"UpperDir": item.layers[0]} if item.layers else {}),
            },
        },
        "RootFS": {"Type": "layers", "Layers": list(document["rootfs"].get("diff_ids") or ())},
        "Metadata": {"LoadedTime": _moment(item.loaded)},
    }


def _volume_document(item: "Volume") -> Document:
    return {
        "CreatedAt": _moment(item.created, "seconds"),
        "Driver": "local",
        "Labels": dict(item.labels) or None,
        "Mountpoint": item.path,
        "Name": item.name,
        "Options": None,
        "Scope": "local",
        "Anonymous": item.anonymous,
    }


def _moment(seconds: float, precision: str = "auto") -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision).replace("+00:00", "Z")

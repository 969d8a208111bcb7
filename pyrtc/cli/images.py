"""`pyrtc images`, `load`, `import`, `rmi` and `image`, printing what Docker prints."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from pyrtc.cli.each import try_each
from pyrtc.cli.image_command import HELP, image_command, open_images, parse_options
from pyrtc.cli.nouns import run_noun
from pyrtc.cli.option_table import TRUTH, Group, Option, nearest, pair
from pyrtc.cli.tables import agreed, print_rows, size_text
from pyrtc.errors import UsageError

if TYPE_CHECKING:
    from pyrtc.image.images import Removed
    from pyrtc.image.install import LayerEvent
    from pyrtc.store import Image

__all__ = ["image", "images", "import_", "load", "prune", "rmi", "since"]

IMAGES_OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --all", "", "accepted for habit's sake: there are no hidden images"),
            Option("-q, --quiet", "", "print ids only"),
            Option("--no-trunc", "", "print whole ids"),
            Option("--digests", "", "print the digests of the manifests too"),
            Option(
                "-f, --filter",
                "KEY=VALUE",
                "list some: reference=PATTERN (with * and ?), dangling=true, label=NAME[=VALUE], before=IMAGE, "
                "since=IMAGE, until=24h",
                repeat=True,
            ),
            Option(
                "--format",
                "FORMAT",
                "table, json, or a template of .ID .Repository .Tag .Digest .CreatedSince .CreatedAt .Size, "
                "with 'table ' before it for aligned columns",
            ),
            HELP,
        ),
    ),
)
LOAD_OPTIONS = (
    Group(
        "Options",
        (
            Option("-i, --input", "FILE", "read FILE instead of standard input"),
            Option("-q, --quiet", "", "do not tell about the layers"),
            Option("--platform", "OS/ARCH", "which image to take where there are several, for example linux/arm64"),
            HELP,
        ),
    ),
)
IMPORT_OPTIONS = (
    Group(
        "Options",
        (
            Option(
                "-c, --change",
                "LINE",
                "set CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR as a Dockerfile does",
                repeat=True,
            ),
            Option("-m, --message", "TEXT", "a comment for the image's history"),
            Option("--platform", "OS/ARCH", "what the files are built for; this machine's platform without it"),
            HELP,
        ),
    ),
)
RMI_OPTIONS = (
    Group(
        "Options",
        (
            Option("-f, --force", "", "remove all names of an id, and names that a container which has ended uses"),
            HELP,
        ),
    ),
)
PRUNE_OPTIONS = (
    Group(
        "Options",
        (
            Option("-a, --all", "", "remove every image that no container uses, not only those without a name"),
            Option(
                "--filter",
                "KEY=VALUE",
                "only some: until=24h (or a time), label=NAME[=VALUE], label!=NAME[=VALUE]",
                repeat=True,
            ),
            Option("-f, --force", "", "do not ask"),
            HELP,
        ),
    ),
)
HEADINGS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
}
FILTERS = ("before", "dangling", "label", "reference", "since", "until")
NOTHING = "<none>"
SHORT_ID = 12


# ---- load and import ------------------------------------------------------------------------------------------------


@image_command
def load(argv: list[str]) -> int:
    """Run `pyrtc load`."""
    usage = "pyrtc load [OPTIONS] [FILE | oci:DIR[:NAME]]"
    ending = (
        "Takes a docker-archive (docker save), an OCI archive, either of them compressed with gzip, zstd, xz or\n"
        "bzip2, or a directory with an OCI layout. Everything is verified before the image has a name."
    )
    parsed = parse_options(argv, LOAD_OPTIONS, usage, "Take images from an archive.", ending)
    if parsed is None:
        return 0
    sources = [*parsed.words("--input"), *parsed.arguments]
    if len(sources) > 1:
        raise UsageError(f"one archive at a time: {' '.join(sources)}")
    from pyrtc.image.install import ImageEvent

    show_layers = sys.stderr.isatty() and not parsed.flag("--quiet")

    def on_event(event: "LayerEvent | ImageEvent") -> None:
        if isinstance(event, ImageEvent):
            for name in event.names:
                print(f"Loaded image: {name}", flush=True)
            if not event.names:
                print(f"Loaded image ID: {event.image_id}", flush=True)
        elif show_layers:
            _print_layer(event)

    with open_images(sweep=True) as store:
        store.load(_source(sources), platform=parsed.word("--platform"), on_event=on_event)
    return 0


def _source(words: list[str]) -> "str | BinaryIO":
    if words and words[0] != "-":
        return words[0]
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("the archive is missing: name a file, or send it to standard input")
    return sys.stdin.buffer


def _print_layer(event: "LayerEvent") -> None:
    size = f" {size_text(event.size)}" if event.state == "done" else ""
    text = {"exists": "Already exists", "unpacking": "Unpacking", "done": "Unpacked"}[event.state]
    # One call: several layers tell at once.
    sys.stderr.write(f"{_short(event.diff_id)}: {text}{size}\n")


@image_command
def import_(argv: list[str]) -> int:
    """Run `pyrtc import`."""
    usage = "pyrtc import [OPTIONS] FILE|- [NAME[:TAG]]"
    parsed = parse_options(
        argv, IMPORT_OPTIONS, usage, "Make an image of a root file system in a tar, plain or compressed."
    )
    if parsed is None:
        return 0
    if not 1 <= len(parsed.arguments) <= 2:
        raise UsageError(f"a file and a name are needed: {usage}")
    name = parsed.arguments[1] if len(parsed.arguments) == 2 else None
    with open_images(sweep=True) as store:
        made = store.import_(
            _source(parsed.arguments[:1]),
            name,
            changes=parsed.words("--change"),
            message=parsed.word("--message") or "",
            platform=parsed.word("--platform"),
        )
    print(made.id)
    return 0


# ---- listing --------------------------------------------------------------------------------------------------------


@image_command
def images(argv: list[str]) -> int:
    """Run `pyrtc images`."""
    parsed = parse_options(
        argv, IMAGES_OPTIONS, "pyrtc images [OPTIONS] [NAME[:TAG]]", "List images, the newest first."
    )
    if parsed is None:
        return 0
    if len(parsed.arguments) > 1:
        raise UsageError(f"one name at a time: {' '.join(parsed.arguments)}")
    filters = _filters(parsed.words("--filter"))
    from pyrtc.store.catalog import list_images

    found = list_images()
    if filters:
        filters = _moments(filters, found)
    whole = parsed.flag("--no-trunc")
    rows = []
    for item in found:
        if _passes(item, filters):
            rows += [row for row in _rows(item, whole=whole) if _matches(row, parsed.arguments)]
    if parsed.flag("--quiet"):
        for image_id in dict.fromkeys(row["ID"] for row in rows):
            print(image_id)
        return 0
    columns = ["Repository", "Tag", *(["Digest"] if parsed.flag("--digests") else []), "ID", "CreatedSince", "Size"]
    print_rows(rows, parsed.word("--format") or "table", columns, HEADINGS)
    return 0


def _rows(item: "Image", *, whole: bool) -> list[dict[str, str]]:
    """Return one row a name, one for an image without any."""
    rest = {
        "Digest": item.manifest or NOTHING,
        "ID": item.id if whole else _short(item.id),
        "CreatedSince": since(item.created),
        "CreatedAt": item.created or "N/A",
        "Size": size_text(item.size),
    }
    names = [_parts(name) for name in item.names] or [(NOTHING, NOTHING)]
    return [{"Repository": repository, "Tag": tag, **rest} for repository, tag in names]


def _parts(name: str) -> tuple[str, str]:
    """Return repository and tag of a familiar name, which has a tag or a digest."""
    repository, _, tag = name.partition("@")[0].rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (name.partition("@")[0], NOTHING)


def _matches(row: dict[str, str], names: list[str]) -> bool:
    from pyrtc.image.reference import Reference

    if not names:
        return True
    wanted = Reference.parse(names[0])
    return row["Repository"] == wanted.familiar_repository and wanted.tag in (None, row["Tag"])


def _filters(words: tuple[str, ...]) -> list[tuple[str, str]]:
    filters = []
    for text in words:
        key, value = pair(text)
        if key not in FILTERS:
            raise UsageError(f"invalid filter {text}{nearest(key, FILTERS)}")
        if key == "dangling" and value not in TRUTH:
            raise UsageError(f"invalid filter {text}: say true or false")
        filters.append((key, value))
    return filters


def _moments(filters: list[tuple[str, str]], found: "Sequence[Image]") -> list[tuple[str, str]]:
    """Put times in the place of the images that before= and since= name, and of what until= says."""
    from pyrtc.moments import created_at, until

    told = []
    for key, value in filters:
        if key == "until":
            try:
                value = str(until(value))
            except ValueError:
                raise UsageError(f"invalid filter until={value}: write a length of time like 24h, or a time") from None
        elif key in ("before", "since"):
            wanted = _named(value, found)
            value = str(created_at(wanted.created, wanted.loaded))
        told.append((key, value))
    return told


def _named(text: str, found: "Sequence[Image]") -> "Image":
    from pyrtc.errors import ImageNotFound
    from pyrtc.image.reference import Reference

    for item in found:
        if item.id.startswith((text, f"sha256:{text}")) and len(text) >= 4:
            return item
        if Reference.parse(text).with_default_tag().familiar in item.names:
            return item
    raise ImageNotFound(f"No such image: {text}")


def _passes(item: "Image", filters: list[tuple[str, str]]) -> bool:
    from fnmatch import fnmatchcase

    from pyrtc.moments import created_at

    for key, value in filters:
        if key == "reference":
            passes = any(fnmatchcase(name, value) or fnmatchcase(name.rpartition(":")[0], value) for name in item.names)
        elif key == "dangling":
            passes = TRUTH[value] != bool(item.names)
        elif key in ("before", "until"):
            passes = created_at(item.created, item.loaded) < float(value)
        elif key == "since":
            passes = created_at(item.created, item.loaded) > float(value)
        else:
            name, equals, wanted = value.partition("=")
            labels = dict(item.config.labels)
            passes = name in labels and (not equals or labels[name] == wanted)
        if not passes:
            return False
    return True


def _short(digest: str) -> str:
    return digest.partition(":")[2][:SHORT_ID]


def since(created: str) -> str:
    """Write how long ago an image was made."""
    import time
    from datetime import datetime

    from pyrtc.cli.tables import age

    if not created:
        return "N/A"
    try:
        # Python before 3.13 reads at most six digits of a fraction; nobody will miss the rest here.
        moment = datetime.fromisoformat(created[:19] + ("+00:00" if created[-1] in "Zz" else created[-6:]))
        return f"{age(max(0.0, time.time() - moment.timestamp()))} ago"
    except (ValueError, OverflowError):
        return "N/A"


# ---- removal --------------------------------------------------------------------------------------------------------


@image_command
def rmi(argv: list[str]) -> int:
    """Run `pyrtc rmi`: each image is tried, whatever happens to the others."""
    parsed = parse_options(
        argv, RMI_OPTIONS, "pyrtc rmi [OPTIONS] IMAGE...", "Remove images, by name or id, and layers nobody needs."
    )
    if parsed is None:
        return 0
    if not parsed.arguments:
        raise UsageError("the image is missing: pyrtc rmi [OPTIONS] IMAGE...")
    with open_images(sweep=True) as store:

        def remove(name: str) -> None:
            _print_removed(store.remove(name, force=parsed.flag("--force")), "Untagged: ", "Deleted: ")

        return try_each(parsed.arguments, remove)


def _print_removed(removed: "Removed", untagged: str, deleted: str) -> None:
    for name in removed.untagged:
        print(f"{untagged}{name}")
    for digest in removed.deleted:
        print(f"{deleted}{digest}")


@image_command
def prune(argv: list[str]) -> int:
    """Run `pyrtc image prune`."""
    parsed = parse_options(argv, PRUNE_OPTIONS, "pyrtc image prune [OPTIONS]", "Remove images that nothing uses.")
    if parsed is None:
        return 0
    if parsed.arguments:
        raise UsageError(f"unexpected argument: {parsed.arguments[0]}")
    from pyrtc.cli.system import read_filter

    only = read_filter(parsed.words("--filter"))
    all_unused = parsed.flag("--all")
    which = "all images without at least one container that uses them" if all_unused else "all dangling images"
    if not parsed.flag("--force") and not agreed(which):
        return 0
    with open_images(sweep=True) as store:
        removed = store.prune(all_unused=all_unused, passes=only.passes)
    if removed.deleted:
        print("Deleted Images:")
        _print_removed(removed, "untagged: ", "deleted: ")
        print()
    print(f"Total reclaimed space: {size_text(removed.reclaimed)}")
    return 0


# ---- pyrtc image ----------------------------------------------------------------------------------------------------


IMAGE = {
    "history": ("pyrtc.cli.history", "history", "Show the steps an image was made in"),
    "import": ("pyrtc.cli.images", "import_", "Make an image of a plain root file system in a tar"),
    "inspect": ("pyrtc.cli.inspect", "image_inspect", "Print everything about images as JSON"),
    "load": ("pyrtc.cli.images", "load", "Take images from a docker-archive, an OCI archive or an OCI layout"),
    "ls": ("pyrtc.cli.images", "images", "List images"),
    "prune": ("pyrtc.cli.images", "prune", "Remove images that nothing uses"),
    "rm": ("pyrtc.cli.images", "rmi", "Remove images"),
    "save": ("pyrtc.cli.save", "save", "Write images into an archive"),
    "tag": ("pyrtc.cli.save", "tag", "Give an image another name"),
}


@image_command
def image(argv: list[str]) -> int:
    """Run `pyrtc image SUBCOMMAND`."""
    return run_noun("image", "More about images.", IMAGE, argv)

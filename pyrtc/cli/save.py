"""`pyrtc save` and `pyrtc tag`."""

import sys

from pyrtc.cli.image_command import HELP, image_command, open_images, parse_options
from pyrtc.cli.option_table import Group, Option
from pyrtc.errors import UsageError

__all__ = ["save", "tag"]

SAVE_OPTIONS = (
    Group(
        "Options",
        (
            Option("-o, --output", "FILE", "write FILE instead of standard output"),
            Option("--format", "FORMAT", "docker-archive (the default) or oci-archive"),
            Option("-q, --quiet", "", "do not tell about ids and digests that are others in the archive"),
            HELP,
        ),
    ),
)
TAG_OPTIONS = (Group("Options", (HELP,)),)
FORMATS = ("docker-archive", "oci-archive")


@image_command
def save(argv: list[str]) -> int:
    """Run `pyrtc save`."""
    usage = "pyrtc save [OPTIONS] IMAGE..."
    ending = (
        "docker, podman, skopeo and pyrtc read what is written. An oci-archive holds manifests and layers exactly as\n"
        "they came, where the store has kept them (the setting blobs); a docker-archive holds uncompressed layers."
    )
    parsed = parse_options(argv, SAVE_OPTIONS, usage, "Write images into an archive.", ending)
    if parsed is None:
        return 0
    if not parsed.arguments:
        raise UsageError(f"the image is missing: {usage}")
    form = parsed.word("--format") or FORMATS[0]
    if form not in FORMATS:
        raise UsageError(f"unknown format {form!r}: say {' or '.join(FORMATS)}")
    output = parsed.word("--output")
    if output in (None, "-") and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("refusing to write an archive to a terminal: name a file with -o, or redirect the output")
    with open_images() as images:
        target = 1 if output in (None, "-") else str(output)
        saved = images.save(parsed.arguments, target, format=form)  # type: ignore[arg-type]
    if not parsed.flag("--quiet"):
        for item in saved:
            what = item.names[0] if item.names else item.image.id
            if item.changed == "config":
                print(
                    f"pyrtc: {what} has the id {item.image_id} in the archive: its layers were not kept in the form "
                    "they came in, so they were made again from their files",
                    file=sys.stderr,
                )
            elif item.changed == "manifest" and item.image.manifest is not None:
                print(
                    f"pyrtc: {what} has the digest {item.digest} in the archive, and the same id: its layers are "
                    "packed in another way than they came in",
                    file=sys.stderr,
                )
    return 0


@image_command
def tag(argv: list[str]) -> int:
    """Run `pyrtc tag`."""
    usage = "pyrtc tag SOURCE[:TAG] TARGET[:TAG]"
    parsed = parse_options(argv, TAG_OPTIONS, usage, "Give an image another name.")
    if parsed is None:
        return 0
    if len(parsed.arguments) != 2:
        raise UsageError(f"two names are needed: {usage}")
    with open_images() as images:
        images.tag(*parsed.arguments)
    return 0

"""`pyrtc history`: the steps an image was made in, the newest first, with what each added."""

import json
from typing import Any

from pyrtc.cli.image_command import HELP, image_command, open_images, parse_options
from pyrtc.cli.option_table import TRUTH, Group, Option, OptionError
from pyrtc.cli.tables import print_rows, size_text
from pyrtc.errors import UsageError

__all__ = ["history"]

OPTIONS = (
    Group(
        "Options",
        (
            Option("-q, --quiet", "", "print ids only"),
            Option("--no-trunc", "", "print whole commands and ids"),
            Option(
                "-H, --human", "BOOL", "sizes with units and ages in words (the default); false for bytes and times"
            ),
            Option(
                "--format",
                "FORMAT",
                "table, json, or a template of .ID .CreatedSince .CreatedAt .CreatedBy .Size .Comment",
            ),
            HELP,
        ),
    ),
)
HEADINGS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
MISSING = "<missing>"
WIDTH = 45  # of a command, as Docker cuts it


@image_command
def history(argv: list[str]) -> int:
    """Run `pyrtc history`."""
    usage = "pyrtc history [OPTIONS] IMAGE"
    parsed = parse_options(argv, OPTIONS, usage, "Show the steps an image was made in, the newest first.")
    if parsed is None:
        return 0
    if len(parsed.arguments) != 1:
        raise UsageError(f"one image is needed: {usage}")
    human = parsed.word("--human") or "true"
    if human not in TRUTH:
        raise OptionError(f"--human is {human!r}: say true or false")
    with open_images() as images:
        image = images.get(parsed.arguments[0])
        document = json.loads(images.documents(image)[0])
        sizes = images.layer_sizes(image)
    rows = _rows(document, sizes, image.id, whole=parsed.flag("--no-trunc"), human=TRUTH[human])
    if parsed.flag("--quiet"):
        print("\n".join(str(row["ID"]) for row in rows))
        return 0
    columns = ["ID", "CreatedSince" if TRUTH[human] else "CreatedAt", "CreatedBy", "Size", "Comment"]
    print_rows(rows, parsed.word("--format") or "table", columns, HEADINGS)
    return 0


def _rows(document: dict[str, Any], sizes: tuple[int, ...], image_id: str, *, whole: bool, human: bool) -> list[Any]:
    from pyrtc.cli.images import since

    steps = document.get("history") or []
    left = list(sizes)
    rows = []
    for step in steps:
        size = 0 if step.get("empty_layer") or not left else left.pop(0)
        rows.append((step, size))
    # Layers of which the history does not tell, because a tool did not write it.
    rows += [({}, size) for size in left]
    made = []
    for number, (step, size) in enumerate(reversed(rows)):
        command = " ".join(str(step.get("created_by") or "").split())
        shown = image_id if number == 0 else MISSING
        made.append(
            {
                "ID": shown if whole or number else shown.partition(":")[2][:12],
                "CreatedSince": since(step.get("created") or ""),
                "CreatedAt": step.get("created") or "N/A",
                "CreatedBy": command if whole or len(command) <= WIDTH else f"{command[: WIDTH - 1]}…",
                "Size": size_text(size) if human else str(size),
                "Comment": step.get("comment") or "",
            }
        )
    return made

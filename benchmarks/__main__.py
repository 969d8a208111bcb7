"""`python -m benchmarks all`, which compares full copies with layers, and the benchmarks that have goals."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import enclosure, life, network, pull, start, unpack
from benchmarks.comparison import machine
from benchmarks.comparison.documenting import document
from benchmarks.comparison.experiments import Results
from benchmarks.comparison.regressions import compare
from benchmarks.comparison.run import PARTS, QUICK_DISK, WHOLE_DISK, compare_all, write_report
from benchmarks.disk import journaled_ext4
from benchmarks.measure import Settings
from benchmarks.peers import versions
from benchmarks.report import Report

EPILOG = """\
`all` needs nothing but this tree; with matplotlib (pyrtc-engine[bench]) it writes a report with pictures, too.
LAYOUT is any OCI image layout with the image in it; for example
  skopeo copy docker://debian:12 oci:LAYOUT:debian
The file system that is measured on is a new journaled ext4 in a file below --directory, removed at the end. Peers that
this machine has are measured too: bwrap, crun, runc, podman, umoci, skopeo, and docker if its daemon answers."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(
        dest="what", required=True, metavar="all|compare|document|start|life|network|unpack|pull"
    )
    _comparison_arguments(commands)
    for name, summary, image, rounds, pause in (
        ("start", "what a container's start costs", "debian", 100, 0.05),
        ("life", "what containers cost that live", "debian", 30, 0.05),
        ("network", "what networks cost, in a network namespace of its own", "debian", 100, 0.05),
        ("unpack", "what it costs to bring in an image, and to copy one", "pyapp", 5, 1.0),
        ("pull", "what it costs to bring an image from a registry on this machine", "pyapp", 5, 1.0),
    ):
        command = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        command.add_argument("--images", type=Path, required=True, metavar="LAYOUT", help="an OCI image layout")
        command.add_argument("--image", default=image, help="a name in it (%(default)s)")
        command.add_argument("--rounds", type=int, default=rounds, help="turns of each contender (%(default)s)")
        command.add_argument("--pause", type=float, default=pause, help="seconds before each turn (%(default)s)")
        command.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where the file goes")
        command.add_argument("--json", type=Path, metavar="FILE", help="write all values there")
    return parser.parse_args()


def _comparison_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "full copies and layers side by side: results.json, report.html and pictures"
    everything = commands.add_parser("all", help=summary, description=summary.capitalize() + ".")
    everything.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="directory (%(default)s)")
    everything.add_argument("--quick", action="store_true", help="small sizes and few rounds: 2 minutes instead of 20")
    everything.add_argument("--only", action="append", metavar="PART", help="a part: " + ", ".join(PARTS))
    everything.add_argument("--install-peers", action="store_true", help="fetch the other engines from Debian")
    everything.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where the file goes")  # noqa: S108
    summary = "what became slower from one results.json to another; 1 when something did"
    comparing = commands.add_parser("compare", help=summary, description=summary.capitalize() + ".")
    comparing.add_argument("old", type=Path, metavar="OLD")
    comparing.add_argument("new", type=Path, metavar="NEW")
    summary = "put a results.json of `all` into docs/benchmarks.md and docs/pictures"
    documenting = commands.add_parser("document", help=summary, description=summary.capitalize() + ".")
    documenting.add_argument("results", type=Path, metavar="RESULTS")


def _compare_all(arguments: argparse.Namespace) -> int:
    """Measure what is missing in results.json, and write the report."""
    parts = tuple(arguments.only or PARTS)
    unknown = set(parts) - set(PARTS)
    if unknown:
        print(f"no part is called {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    out, directory = arguments.out.resolve(), arguments.directory.resolve()
    if arguments.install_peers and not enclosure.inside():
        machine.install()
    enclosure.enter(processes=True)
    out.mkdir(parents=True, exist_ok=True)
    mode = "quick" if arguments.quick else "whole"
    results = Results(out / "results.json", machine.describe(directory), machine.peers(), mode)
    with journaled_ext4(directory, QUICK_DISK if arguments.quick else WHOLE_DISK) as disk:
        compare_all(results, disk, parts, quick=arguments.quick)
    try:
        print(f"report: {write_report(results, out)}")
    except ModuleNotFoundError as error:
        print(f"no report: {error.name} is missing (pip install 'pyrtc-engine[bench]'); {out}/results.json has it all")
        return 1
    return 0


def main() -> int:
    """Run one benchmark; 0 when every goal was met, 1 when not."""
    arguments = _arguments()
    if arguments.what == "compare":
        return compare(arguments.old, arguments.new)
    if arguments.what == "document":
        return document(arguments.results, Path(__file__).parents[1] / "docs")
    if os.geteuid() != 0:
        print("benchmarks need root: they mount a file system, and crun and runc run as root", file=sys.stderr)
        return 2
    if arguments.what == "all":
        return _compare_all(arguments)
    layout = arguments.images.resolve()
    if not (layout / "index.json").is_file():
        print(f"{layout} is no OCI image layout: it has no index.json", file=sys.stderr)
        return 2
    target = arguments.json.resolve() if arguments.json else None
    enclosure.enter(network=arguments.what == "network")
    regime = f"{arguments.rounds} rounds, contenders take turns, {arguments.pause * 1000:g} ms pause before each turn"
    report = Report(f"python -m benchmarks {arguments.what}", regime)
    print(f"{report.title}: {regime}")
    report.note(versions())
    with journaled_ext4(arguments.directory.resolve()) as disk:
        settings = Settings(disk, layout, arguments.image, arguments.rounds, arguments.pause)
        parts = {
            "start": start.measure,
            "life": life.measure,
            "network": network.measure,
            "unpack": unpack.measure,
            "pull": pull.measure,
        }
        parts[arguments.what](settings, report)
    return 0 if report.finish(target) else 1


if __name__ == "__main__":
    sys.exit(main())

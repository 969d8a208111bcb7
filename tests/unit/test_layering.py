"""Dependencies point one way, as docs/architecture.md says; read from the sources, nothing is imported."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pyrtc"

# From the top down: what is in a room (a package with all below it, unless a longer name fits), and what it uses.
VALUES = {"errors", "values"}
WORDS = VALUES | {"addresses", "caller's words", "events", "ids", "image words", "limits", "records"}
ROOMS = {
    "cli": ({"pyrtc.cli", "pyrtc.__main__"}, WORDS | {"face", "engine", "image", "network", "store"}),
    "engine": (
        {
            "pyrtc.aio",
            "pyrtc.api",
            "pyrtc.attaching",
            "pyrtc.attachments",
            "pyrtc.capture",
            "pyrtc.checking",
            "pyrtc.container",
            "pyrtc.containers",
            "pyrtc.description",
            "pyrtc.ended",
            "pyrtc.ending",
            "pyrtc.engine",
            "pyrtc.event_stream",
            "pyrtc.file_copies",
            "pyrtc.file_stat",
            "pyrtc.files",
            "pyrtc.foreground",
            "pyrtc.exec",
            "pyrtc.exec_events",
            "pyrtc.exec_process",
            "pyrtc.exec_reaper",
            "pyrtc.handle",
            "pyrtc.written",
            "pyrtc.health",
            "pyrtc.health_event",
            "pyrtc.inspection",
            "pyrtc.keywords",
            "pyrtc.listing",
            "pyrtc.live",
            "pyrtc.log_files",
            "pyrtc.log_follow",
            "pyrtc.logs",
            "pyrtc.network_keywords",
            "pyrtc.networks",
            "pyrtc.readiness",
            "pyrtc.preparation",
            "pyrtc.restarting",
            "pyrtc.processes",
            "pyrtc.start_image",
            "pyrtc.states",
            "pyrtc.stats",
            "pyrtc.updating",
            "pyrtc.watched",
            "pyrtc.system",
            "pyrtc.volumes",
            "pyrtc.snapshots",
            "pyrtc.rw_layer",
        },
        WORDS | {"face", "image", "network", "store", "runtime", "core"},
    ),
    "network": ({"pyrtc.network"}, WORDS | {"addresses", "face", "runtime", "store", "core", "_core"}),
    "image": ({"pyrtc.image"}, VALUES | {"events", "image words", "face", "store", "core"}),
    "runtime": ({"pyrtc.runtime"}, WORDS | {"store", "core", "_core"}),
    "store": ({"pyrtc.store"}, VALUES | {"addresses", "events", "image words", "ids", "limits", "core"}),
    "records": ({"pyrtc.store.records"}, VALUES | {"caller's words", "limits"}),
    "caller's words": (
        {"pyrtc.egress_words", "pyrtc.network_words", "pyrtc.options", "pyrtc.port_words", "pyrtc.quantities"},
        VALUES | {"addresses", "limits"},
    ),
    "limits": ({"pyrtc.runtime.cgroups"}, VALUES | {"core"}),
    "image words": ({"pyrtc.image.config", "pyrtc.image.platform", "pyrtc.image.reference"}, VALUES),
    "ids": ({"pyrtc.ids"}, VALUES),
    "core": ({"pyrtc.core", "pyrtc.watch"}, VALUES | {"_core"}),
    "face": ({"pyrtc"}, set()),  # imports what it shows when it is asked for
    "errors": ({"pyrtc.errors"}, VALUES),
    "addresses": ({"pyrtc.ip"}, VALUES),
    "events": ({"pyrtc.events"}, VALUES),
    "values": ({"pyrtc.moments", "pyrtc.values"}, set()),
    "_core": ({"pyrtc._core"}, set()),
}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")} | {"pyrtc._core": None}


def room_of(module):
    """Return the room with the longest fitting name."""
    places = {name: room for room, (names, _) in ROOMS.items() for name in names}
    while module not in places:
        module = module.rpartition(".")[0]
        assert module != "pyrtc", "a new module at the top has no room yet"
    return places[module]


def imported(tree):
    """Return every module of the package that is imported, in functions too, but not for type checkers only."""
    found = set()
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inner}
        else:
            waiting += ast.iter_child_nodes(node)
    return {name for name in found if name in MODULES}


IMPORTS = {name: imported(ast.parse(path.read_text())) if path else set() for name, path in MODULES.items()}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module):
    room = room_of(module)
    upwards = {name for name in IMPORTS[module] if room_of(name) not in ROOMS[room][1] | {room}}
    assert not upwards, f"{module} ({room}) imports {', '.join(sorted(upwards))}"


def test_rooms_have_an_order():
    assert not cycle({room: used - {room} for room, (_, used) in ROOMS.items()})


def test_no_import_cycles():
    assert not cycle(IMPORTS)


def test_a_cycle_is_found():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) and not cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def cycle(graph):
    """Return the modules of one cycle, or an empty list."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        path.append(name)
        found = next((found for other in sorted(graph[name]) if (found := visit(other))), [])
        path.pop()
        done.add(name)
        return found

    return next((found for name in sorted(graph) if (found := visit(name))), [])

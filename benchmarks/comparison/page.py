"""The report: one page without anything from elsewhere, readable on a telephone, dark and light."""

import html
from collections.abc import Iterator
from typing import Any

from benchmarks.comparison import plots
from benchmarks.comparison.isolation import FEATURES
from benchmarks.comparison.statistics import quartiles, ratio

__all__ = ["claims", "page", "pictures"]

PARTS = {
    "start": ("1", "The start of one instance"),
    "many": ("2", "The hundredth instance"),
    "shipping": ("3", "Shipping an update"),
    "costs": ("4", "What layers cost"),
    "anatomy": ("5", "Start anatomy"),
}
LAYERED = "pyrtc, layers, R/W layer on disk"

_STYLE = """
:root { --ink: #1b1f24; --faint: #c3c9d1; --page: #ffffff; --card: #f5f6f8; --link: #0f7b8a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --faint: #4a5260; --page: #14171b; --card: #1e2329; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--ink);
       font: 16px/1.55 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--faint); }
figure { margin: 1rem 0; background: var(--card); border-radius: .5rem; padding: .5rem; overflow-x: auto; }
svg { width: 100%; min-width: 22rem; height: auto; display: block; }
.how { color: var(--ink); opacity: .8; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid var(--faint); text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
.claims li { margin: .4rem 0; } .no { opacity: .55; } nav a { color: var(--link); margin-right: 1rem; }
"""


def page(document: dict[str, Any]) -> str:
    """Return the whole page of a results.json."""
    parts = [part for part in PARTS if any(key.startswith(f"{part}/") for key in document["experiments"])]
    links = "".join(f'<a href="#{part}">{PARTS[part][0]}. {PARTS[part][1]}</a> ' for part in parts)
    body = [
        "<h1>Full copies and layers</h1>",
        f"<p>{_machine(document)}</p>",
        f'<nav>{links}<a href="#isolation">6. Isolation</a> <a href="#how">How it was measured</a></nav>',
        '<h2 id="claims">In short</h2>',
        f'<ul class="claims">{"".join(f"<li>{html.escape(claim)}</li>" for claim in claims(document))}</ul>',
    ]
    for part in parts:
        body.append(f'<h2 id="{part}">{PARTS[part][0]}. {PARTS[part][1]}</h2>')
        for key, experiment in document["experiments"].items():
            if key.startswith(f"{part}/"):
                body += _experiment(key, experiment)
    body += _isolation(document)
    body += _how(document)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Full copies and layers</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _machine(document: dict[str, Any]) -> str:
    about = document["machine"]
    text = (
        f"{about['processors']} processors ({about['processor']}{', virtual' if about['virtual'] else ''}), "
        f"{about['memory_mib'] / 1024:.0f} GiB, kernel {about['kernel']}, {about['system']}, control groups of "
        "version "
        f"{about['cgroups']}; measured {document['made']}, {document['mode']}."
    )
    return html.escape(text)


def pictures(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every picture: its name and its SVG."""
    for key, experiment in document["experiments"].items():
        for measure in experiment["measures"]:
            if any(series["values"].get(measure) for series in experiment["series"]):
                yield f"{key.replace('/', '-')}-{measure}", _picture(key, experiment, measure)


def _picture(key: str, experiment: dict[str, Any], measure: str) -> str:
    if key == "many/instances":
        return plots.curves(key, experiment, measure)
    if key == "anatomy/trace":
        return plots.steps(key, experiment, measure)
    return (plots.lines if experiment["x"] else plots.bars)(key, experiment, measure)


def _experiment(key: str, experiment: dict[str, Any]) -> Iterator[str]:
    yield f"<h3>{html.escape(experiment['title'])}</h3>"
    counts = [len(next(iter(series["values"].values()))) for series in experiment["series"]]
    loads = [load for series in experiment["series"] for load in series["load"]]
    many = f"{min(counts)} to {max(counts)} samples each" if counts and min(counts) != max(counts) else ""
    many = many or (f"{counts[0]} samples each" if counts else "nothing here")
    load = f", load {min(loads):g} to {max(loads):g}" if loads else ""
    yield f'<p class="how">{html.escape(experiment["how"])} {many}{load}.</p>'
    for measure in experiment["measures"]:
        if any(series["values"].get(measure) for series in experiment["series"]):
            yield f"<figure>{_picture(key, experiment, measure)}</figure>"
    if key != "many/instances":
        for measure in experiment["measures"]:
            yield _table(experiment, measure)


def _table(experiment: dict[str, Any], measure: str) -> str:
    about = experiment["measures"][measure]
    series = [one for one in experiment["series"] if one["values"].get(measure)]
    if not series:
        return ""
    sizes = sorted({one["x"] for one in series if one["x"] is not None})
    names = list(dict.fromkeys(one["name"] for one in series))
    head = f"{about['label']} ({about['unit']}): median, quartiles"
    columns = [f"{size:g}" for size in sizes] or [about["unit"]]
    rows = []
    for name in names:
        cells = []
        for size in sizes or [None]:
            one = next((one for one in series if one["name"] == name and one["x"] == size), None)
            cells.append("" if one is None else _cell(one["values"][measure]))
        rows.append(f"<tr><td>{html.escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = "".join(f"<th>{column}</th>" for column in columns)
    return (
        f'<details><summary>{html.escape(head)}</summary><div class="wide"><table>'
        f"<tr><th>{html.escape(experiment['x'] or '')}</th>{heads}</tr>{''.join(rows)}</table></div></details>"
    )


def _cell(values: list[float]) -> str:
    low, middle, high = quartiles(values)
    if low == high:
        return f"{middle:.4g}"
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


# ---- in words -------------------------------------------------------------------------------------------------------


def claims(document: dict[str, Any]) -> Iterator[str]:
    """Yield what was found, a sentence each, with ratios and their intervals."""
    experiments = document["experiments"]
    yield from _claims_of_starts(experiments.get("start/time"))
    yield from _claims_of_many(experiments.get("many/instances"), document.get("facts", {}).get("many/image_mb"))
    yield from _claims_of_shipping(experiments.get("shipping/update"))
    yield from _claims_of_costs(experiments.get("costs/write"))
    yield from _claims_of_peers(experiments.get("anatomy/peers"))


def _values(experiment: dict[str, Any], name: str, measure: str, x: float | None = None) -> list[float] | None:
    for series in experiment["series"]:
        if series["name"] == name and series["x"] == x and series["values"].get(measure):
            found: list[float] = series["values"][measure]
            return found
    return None


def _claims_of_starts(experiment: dict[str, Any] | None) -> Iterator[str]:
    if experiment is None:
        return
    sizes = sorted({series["x"] for series in experiment["series"]})
    small, large = sizes[0], sizes[-1]
    base = _values(experiment, LAYERED, "time", large)
    first = _values(experiment, LAYERED, "time", small)
    if base is None or first is None:
        return
    yield (
        f"Layers do not care for the size: an instance of {large:g} MB starts in {quartiles(base)[1]:.1f} ms, "
        f"{ratio(base, first)} times as long as one of {small:g} MB."
    )
    for name in dict.fromkeys(one["name"] for one in experiment["series"] if one["kind"] in ("copy", "machine")):
        values = _values(experiment, name, "time", large)
        if values is not None:
            yield (
                f"{name}: {quartiles(values)[1]:.0f} ms at {large:g} MB, {ratio(values, base)} times as long as with "
                "layers."
            )


def _claims_of_many(experiment: dict[str, Any] | None, megabytes: float | None) -> Iterator[str]:
    for series in experiment["series"] if experiment else ():
        count = len(series["values"]["total"])
        seconds, disk = series["values"]["total"][-1], series["values"]["disk"][-1]
        each = disk / count
        room = f"10 GB of disk are enough for {10_000 / each:,.0f}" if each > 1 else "10 GB of disk are no limit"
        yield (
            f"{series['name']}: {count} instances of {megabytes:g} MB in {seconds:.1f} s and {disk:,.0f} MB; at "
            "that rate "
            f"{count / seconds * 60:,.0f} a minute; {room}."
        )


def _claims_of_shipping(experiment: dict[str, Any] | None) -> Iterator[str]:
    if experiment is None:
        return
    base = _values(experiment, "pyrtc pull: the missing layer", "bytes")
    for name in ("pyrtc pull: every layer", "disk image over HTTP, gzip"):
        values = _values(experiment, name, "bytes")
        if base and values:
            yield (
                f"A new version ships {quartiles(base)[1]:.1f} MB; {name}: {quartiles(values)[1]:.1f} MB, "
                f"{ratio(values, base)} times as much."
            )


def _claims_of_costs(experiment: dict[str, Any] | None) -> Iterator[str]:
    if experiment is None:
        return
    sizes = sorted({series["x"] for series in experiment["series"]})
    for size in (sizes[0], sizes[-1]):
        values = _values(experiment, "write one byte, layers", "time", size)
        copied = _values(experiment, "write one byte, full copy", "time", size)
        if values:
            beside = f"; in a full copy {quartiles(copied)[1]:.2g} ms: there full copies win" if copied else ""
            yield f"The first write to a file of {size:.3g} MB costs {quartiles(values)[1]:.3g} ms with layers{beside}."


def _claims_of_peers(experiment: dict[str, Any] | None) -> Iterator[str]:
    base = _values(experiment, "pyrtc.run", "time") if experiment else None
    for series in experiment["series"] if experiment and base else ():
        if series["kind"] == "peer":
            assert base is not None
            yield f"{series['name']} takes {ratio(series['values']['time'], base)} times as long as pyrtc.run."


# ---- the rest -------------------------------------------------------------------------------------------------------


def _isolation(document: dict[str, Any]) -> Iterator[str]:
    table = document.get("facts", {}).get("isolation")
    if not table:
        return
    yield '<h2 id="isolation">6. What each isolates</h2>'
    yield (
        '<p class="how">Read by the workload itself in each engine, as it is used in part 5. A ratio between engines '
        "with different rows compares unequal work.</p>"
    )
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in table)
    rows = []
    for feature in FEATURES:
        cells = "".join(
            f'<td class="{"no" if found[feature] == "no" else "yes"}">{html.escape(found[feature])}</td>'
            for found in table.values()
        )
        rows.append(f"<tr><td>{html.escape(feature)}</td>{cells}</tr>")
    yield f'<div class="wide"><table><tr><th></th>{heads}</tr>{"".join(rows)}</table></div>'


def _how(document: dict[str, Any]) -> Iterator[str]:
    peers = document["peers"]
    here = ", ".join(f"{name} {version}" for name, version in peers.items() if version)
    missing = ", ".join(name for name, version in peers.items() if not version)
    yield '<h2 id="how">How it was measured</h2><ul>'
    yield (
        "<li>Contenders take turns in one run, after a warm-up that does not count. No sample is left out; every "
        "one is in "
        "results.json, with the machine's load at its time.</li>"
        "<li>Points and bars are medians; whiskers go from the first to the third quartile. Ratios are of "
        "medians; in "
        "parentheses the interval that 95 of 100 draws of the bootstrap fall in.</li>"
        "<li>Everything lies on a new ext4 with a journal, in a file that is mounted for this run.</li>"
        f"<li>{html.escape(document['machine']['below'])} lies below it; load at the beginning "
        f"{document['machine']['load'][0]:.2f}.</li>"
    )
    yield f"<li>Other engines and tools here: {html.escape(here or 'none')}.</li>"
    yield f"<li>Not here: {html.escape(missing or 'none')}.</li>"
    yield "".join(f"<li>{html.escape(note)}</li>" for note in document["notes"])
    yield "</ul>"

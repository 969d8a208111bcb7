"""The report: one page without anything from elsewhere, readable on a telephone, dark and light."""

import html
from collections.abc import Iterator
from typing import Any

from benchmarks.comparison import plots
from benchmarks.comparison.claims import claims
from benchmarks.comparison.isolation import FEATURES, lacks
from benchmarks.comparison.statistics import FEW, spread

__all__ = ["about_machine", "alone", "page", "pictures"]

PARTS = {
    "start": ("1", "The start of one instance"),
    "many": ("2", "The hundredth instance"),
    "shipping": ("3", "Shipping an update"),
    "costs": ("4", "What layers cost"),
    "anatomy": ("5", "Start anatomy"),
}

_STYLE = """
:root { --ink: #1b1f24; --faint: #c3c9d1; --page: #ffffff; --card: #f5f6f8; --link: #0f7b8a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --faint: #4a5260; --page: #14171b; --card: #1e2329; --link: #6cc9d4; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--ink);
       font: 16px/1.55 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--faint); }
figure { margin: 1rem -.5rem; background: var(--card); border-radius: .5rem; padding: .5rem; overflow-x: auto; }
svg { width: 100%; max-width: 44rem; min-width: 20rem; height: auto; display: block; margin: 0 auto; }
.how { color: var(--ink); opacity: .8; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid var(--faint); text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
.claims li { margin: .4rem 0; } .no { opacity: .55; }
nav a { color: var(--link); margin-right: 1rem; display: inline-block; }
"""


def page(document: dict[str, Any]) -> str:
    """Return the whole page of a results.json."""
    parts = [part for part in PARTS if any(key.startswith(f"{part}/") for key in document["experiments"])]
    links = "".join(f'<a href="#{part}">{PARTS[part][0]}. {PARTS[part][1]}</a> ' for part in parts)
    body = [
        "<h1>Full copies and layers</h1>",
        f"<p>{html.escape(about_machine(document))}</p>",
        f'<nav>{links}<a href="#isolation">6. Isolation</a> <a href="#how">How it was measured</a></nav>',
        '<h2 id="claims">In short</h2>',
        f'<ul class="claims">{"".join(f"<li>{html.escape(claim)}</li>" for claim in claims(document))}</ul>',
    ]
    for part in parts:
        body.append(f'<h2 id="{part}">{PARTS[part][0]}. {PARTS[part][1]}</h2>')
        for key, experiment in document["experiments"].items():
            if key.startswith(f"{part}/"):
                body += _experiment(key, experiment, _table_of_isolation(document))
    body += _isolation(document)
    body += _how(document)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Full copies and layers</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def about_machine(document: dict[str, Any]) -> str:
    """Return in a sentence what was measured on, and when."""
    about = document["machine"]
    return (
        f"{about['processors']} processors ({about['processor']}{', virtual' if about['virtual'] else ''}), "
        f"{about['memory_mib'] / 1024:.0f} GiB, kernel {about['kernel']}, {about['system']}, control groups of "
        "version "
        f"{about['cgroups']}; measured {document['made']}, {document['mode']}."
    )


def pictures(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every picture: its name and its SVG."""
    table = _table_of_isolation(document)
    for key, experiment in document["experiments"].items():
        for measure in experiment["measures"]:
            if any(series["values"].get(measure) for series in experiment["series"]):
                yield f"{key.replace('/', '-')}-{measure}", _picture(key, experiment, measure, table)


def _table_of_isolation(document: dict[str, Any]) -> dict[str, Any] | None:
    table: dict[str, Any] | None = document.get("facts", {}).get("isolation")
    return table


def _picture(key: str, experiment: dict[str, Any], measure: str, isolation: dict[str, Any] | None) -> str:
    """Draw a measure; a star goes to those of which is known that they isolate less than pyrtc.run."""
    if key == "many/instances":
        return plots.curves(key, experiment, measure)
    if key == "anatomy/trace":
        return plots.steps(key, experiment, measure)
    if experiment["x"]:
        return plots.lines(key, experiment, measure)
    table = isolation or {}
    marked = [{**one, "name": one["name"] + " *" * bool(lacks(table, one["name"]))} for one in experiment["series"]]
    return plots.bars(key, {**experiment, "series": marked}, measure)


def _experiment(key: str, experiment: dict[str, Any], isolation: dict[str, Any] | None) -> Iterator[str]:
    yield f"<h3>{html.escape(experiment['title'])}</h3>"
    counts = [len(next(iter(series["values"].values()))) for series in experiment["series"]]
    loads = [load for series in experiment["series"] for load in series["load"]]
    many = f"{min(counts)} to {max(counts)} samples each" if counts and min(counts) != max(counts) else ""
    many = many or (f"{counts[0]} sample{'s' * (counts[0] > 1)} each" if counts else "nothing here")
    load = f", load {min(loads):g} to {max(loads):g}" if loads else ""
    rest = " Not all of it was measured: the time was up, or the run was stopped." * bool(experiment.get("unfinished"))
    yield f'<p class="how">{html.escape(experiment["how"])} {many}{load}.{rest}</p>'
    for measure in experiment["measures"]:
        if any(series["values"].get(measure) for series in experiment["series"]):
            yield f"<figure>{_picture(key, experiment, measure, isolation)}</figure>"
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
    head = f"{about['label']} ({about['unit']}): medians and quartiles, below {FEW} samples smallest and largest"
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
    low, middle, high = spread(values)
    shown = f"{middle:.4g}" if low == high else f"{middle:.4g} ({low:.4g} to {high:.4g})"
    return f"{shown}, n = {len(values)}"


def _isolation(document: dict[str, Any]) -> Iterator[str]:
    table = _table_of_isolation(document)
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
        f"<li>Points and bars are medians; error bars go from the first to the third quartile, and of fewer than {FEW} "
        "samples from the smallest to the largest. Ratios are of medians; in parentheses the interval that 95 of 100 "
        f"draws of the bootstrap fall in, or, of fewer than {FEW} samples, how many and their range.</li>"
        "<li>Turns end by count or by the clock, whichever comes first: what takes long has fewer samples.</li>"
        "<li>Everything lies on a new ext4 with a journal, in a file that is mounted for this run.</li>"
        f"<li>{html.escape(document['machine']['below'])} lies below it; load at the beginning "
        f"{document['machine']['load'][0]:.2f}.</li>"
    )
    yield f"<li>Other engines and tools here: {html.escape(here or 'none')}.</li>"
    yield f"<li>Not here: {html.escape(missing or 'none')}.</li>"
    yield "".join(f"<li>{html.escape(note)}</li>" for note in document["notes"])
    yield "</ul>"


def alone(svg: str) -> str:
    """Return a picture that stands by itself: with its own colours."""
    style = (
        "<style>:root{--ink:#1b1f24;--faint:#c3c9d1}"
        "@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--faint:#4a5260}}</style>"
    )
    begin = svg.index(">") + 1
    opening = svg[:begin].replace(
        "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    )
    return opening + style + svg[begin:]

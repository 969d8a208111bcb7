"""Pictures of experiments: SVG that takes its colours from the page, so that it is readable on dark and on light."""

import html
import io
import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from benchmarks.comparison.statistics import FEW, quartiles, spread

__all__ = ["bars", "curves", "lines", "steps"]

# Colours stand for properties of the page (page.py), and are put in their place when the SVG is written.
_INK, _FAINT = "#010203", "#040506"
_PLACES = {_INK: "var(--ink)", _FAINT: "var(--faint)"}
_PALETTES = {
    "layers": ("#0f7b8a", "#35a7b5", "#74c7cf", "#0a5560", "#56949c"),
    "copy": ("#c2571a", "#e08a3c", "#e9ab6b", "#8f3c0e", "#b97b4b"),
    "machine": ("#8e44ad",),
    "peer": ("#6b7280", "#8b95a5", "#4b5563", "#a3acba"),
    "bare": ("#3f8f4f",),
    "caller": ("#3f8f4f",),
    "container": ("#0f7b8a",),
}
_MARKERS = {"layers": "o", "copy": "s", "machine": "D", "peer": "^", "bare": "v"}
# Inches, which the page stretches: narrow, so that letters are large enough on a telephone.
WIDTH, HEIGHT, LINE = 5.4, 3.2, 0.19


def _figure(height: float = HEIGHT) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": _INK,
            "axes.labelcolor": _INK,
            "axes.edgecolor": _FAINT,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": _FAINT,
            "grid.linewidth": 0.5,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "legend.fontsize": 8.5,
        }
    )
    figure, axes = pyplot.subplots(figsize=(WIDTH, height), layout="constrained")
    return figure, axes


def _svg(figure: Any, name: str, text: str) -> str:  # noqa: ANN401  (of matplotlib)
    """Return a figure as an element of a page. name: unlike every other's; text: for who cannot see it."""
    import matplotlib as mpl
    from matplotlib import pyplot

    output = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(output, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    svg = output.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None
    svg = f'<svg viewBox="{box[1]}" role="img" aria-label="{html.escape(text)}">{svg[svg.index(">") + 1 :]}'
    # Every name in a page is there once.
    short = re.sub(r"\W", "-", name)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{short}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{short}-", svg)
    for colour, place in _PLACES.items():
        svg = svg.replace(colour, place)
    return svg.replace("font: 10px 'sans-serif'", "font: 10px sans-serif")


class _Colours:
    """Gives every series of a figure a colour of its kind."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._used: dict[str, int] = {}

    def of(self, name: str, kind: str) -> str:
        if name not in self._known:
            number = self._used.get(kind, 0)
            self._used[kind] = number + 1
            self._known[name] = _PALETTES[kind][number % len(_PALETTES[kind])]
        return self._known[name]


def _number(value: float, _place: object = None) -> str:
    if value == 0:
        return "0"
    return f"{value:.3g}" if 0.001 <= value < 1000 else f"{value:,.0f}" if value >= 1000 else f"{value:.0e}"


def lines(key: str, experiment: dict[str, Any], measure: str) -> str:
    """Draw medians over a size, with bars between the quartiles; axes are logarithmic where what is on them spreads."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    names = {series["name"] for series in experiment["series"] if series["values"].get(measure)}
    figure, axes = _figure(HEIGHT + LINE * len(names))
    colours = _Colours()
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for series in experiment["series"]:
        if series["values"].get(measure):
            grouped.setdefault((series["name"], series["kind"]), []).append(series)
    for (name, kind), group in grouped.items():
        group.sort(key=lambda one: one["x"])
        found = [spread(one["values"][measure]) for one in group]
        # What is nothing has no place on such an axis.
        points = [(one["x"], *three) for one, three in zip(group, found, strict=True) if three[1] > 0]
        if not points:
            continue
        x = [point[0] for point in points]
        middle = [point[2] for point in points]
        error = [[point[2] - point[1] for point in points], [point[3] - point[2] for point in points]]
        axes.errorbar(
            x,
            middle,
            yerr=error,
            label=name,
            color=colours.of(name, kind),
            marker=_MARKERS[kind],
            markersize=5,
            capsize=3,
        )
    if any(one["x"] for one in experiment["series"]) and min(one["x"] for one in experiment["series"]) > 0:
        axes.set_xscale("log")
    medians = [quartiles(one["values"][measure])[1] for one in experiment["series"] if one["values"].get(measure)]
    if min(medians) > 0 and max(medians) < 20 * min(medians):
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
    sizes = sorted({one["x"] for one in experiment["series"]})
    axes.set_xticks(sizes, [_number(size) for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(experiment["x"])
    _label(axes, experiment, measure)
    figure.legend(loc="outside lower center", ncols=1)
    _tell(axes, experiment["series"], measure)
    return _svg(figure, f"{key}-{measure}", experiment["title"])


def _tell(axes: Any, series: Sequence[dict[str, Any]], measure: str) -> None:  # noqa: ANN401
    """Say above a picture how often was measured, and what its error bars are."""
    counts = [len(one["values"][measure]) for one in series if one["values"].get(measure)]
    often = f"n = {min(counts)}" + (f" to {max(counts)}" if max(counts) > min(counts) else "")
    bars = "quartiles" if min(counts) >= FEW else "smallest to largest" if max(counts) < FEW else ""
    bars = bars or f"quartiles, or smallest to largest where n < {FEW}"
    text = f"medians, {often}; error bars: {bars}" if max(counts) > 1 else "single measurements, no error bars"
    axes.set_title(text, fontsize=8, loc="left")


def _label(axes: Any, experiment: dict[str, Any], measure: str) -> None:  # noqa: ANN401
    about = experiment["measures"][measure]
    axes.set_ylabel(textwrap.fill(f"{about['label']} ({about['unit']})", 32))


def bars(key: str, experiment: dict[str, Any], measure: str) -> str:
    """Draw medians of contenders without a size, with bars between the quartiles."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    present = [series for series in experiment["series"] if series["values"].get(measure)]
    figure, axes = _figure(0.9 + 0.42 * len(present))
    colours = _Colours()
    found = [spread(series["values"][measure]) for series in present]
    places = range(len(present), 0, -1)
    for place, series, (low, middle, high) in zip(places, present, found, strict=True):
        axes.barh(place, middle, color=colours.of(series["name"], series["kind"]), height=0.6)
        axes.errorbar(middle, place, xerr=[[middle - low], [high - middle]], color=_INK, capsize=3, linewidth=1)
        axes.annotate(f" {_short(middle)}", (high, place), va="center", xytext=(3, 0), textcoords="offset points")
    axes.set_yticks(list(places), [textwrap.fill(series["name"], 24) for series in present])
    axes.grid(axis="y", visible=False)
    middles = [three[1] for three in found if three[1] > 0]
    if middles and max(middles) / min(middles) > 30:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_number))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15)
    axes.set_ylim(0.3, len(present) + 0.7)
    about = experiment["measures"][measure]
    axes.set_xlabel(f"{about['label']} ({about['unit']})")
    _tell(axes, present, measure)
    return _svg(figure, f"{key}-{measure}", experiment["title"])


def _short(value: float) -> str:
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def curves(key: str, experiment: dict[str, Any], measure: str) -> str:
    """Draw every sample over its number: the first instance, the second, ..."""
    from matplotlib.ticker import FuncFormatter

    figure, axes = _figure(HEIGHT + LINE * len(experiment["series"]))
    colours = _Colours()
    for series in experiment["series"]:
        values = series["values"][measure]
        numbers = range(1, len(values) + 1)
        axes.plot(numbers, values, label=series["name"], color=colours.of(series["name"], series["kind"]), linewidth=2)
        axes.plot(
            len(values), values[-1], color=colours.of(series["name"], series["kind"]), marker=_MARKERS[series["kind"]]
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    axes.set_xlabel(experiment["x"])
    axes.set_title("every instance once, no error bars", fontsize=8, loc="left")
    _label(axes, experiment, measure)
    figure.legend(loc="outside lower center", ncols=1)
    return _svg(figure, f"{key}-{measure}", experiment["title"])


def steps(key: str, experiment: dict[str, Any], measure: str, most: int = 30) -> str:
    """Draw the longest steps of a start, in their order."""
    present: Sequence[dict[str, Any]] = experiment["series"]
    middles = {id(series): quartiles(series["values"][measure])[1] for series in present}
    usual = max(len(series["values"][measure]) for series in present)
    # What happens in a few starts only, such as making what is made ahead otherwise, is in the table.
    often = [series for series in present if len(series["values"][measure]) * 2 > usual]
    shown = sorted(often, key=lambda series: -middles[id(series)])[:most]
    kept = {**experiment, "series": [series for series in present if series in shown]}
    return bars(key, kept, measure)

"""What a run found, in sentences and in ratios; the ratios are what a second run is to repeat."""

from collections.abc import Iterator
from typing import Any

from benchmarks.comparison.isolation import lacks
from benchmarks.comparison.statistics import Ratio, quartiles, ratio

__all__ = ["claims", "ratios"]

LAYERED = "pyrtc, layers, R/W layer on disk"
SHIPPED = "pyrtc pull: the missing layer"
# What the others of an experiment are divided by, at each size.
_BASES = {
    "start/time": LAYERED,
    "start/cost": LAYERED,
    "shipping/update": SHIPPED,
    "costs/write": "copy the file",
    "anatomy/peers": "pyrtc.run",
}
_NOTHING = 0.01  # a base below this, in its unit, has no ratio worth telling


def claims(document: dict[str, Any]) -> Iterator[str]:
    """Yield what was found, a sentence each, with ratios and how sure they are."""
    experiments = {key: one for key, one in document["experiments"].items() if one["series"]}
    facts = document.get("facts", {})
    yield from _of_starts(experiments.get("start/time"))
    yield from _of_many(experiments.get("many/instances"), facts.get("many/image_mb"))
    yield from _of_shipping(experiments.get("shipping/update"))
    yield from _of_costs(experiments.get("costs/write"))
    yield from _of_layers(experiments.get("costs/layers"))
    yield from _of_peers(experiments.get("anatomy/peers"), facts.get("isolation", {}))


def _values(experiment: dict[str, Any], name: str, measure: str, x: float | None = None) -> list[float] | None:
    for series in experiment["series"]:
        if series["name"] == name and series["x"] == x and series["values"].get(measure):
            found: list[float] = series["values"][measure]
            return found
    return None


def _of_starts(experiment: dict[str, Any] | None) -> Iterator[str]:
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


def _of_many(experiment: dict[str, Any] | None, megabytes: float | None) -> Iterator[str]:
    for series in experiment["series"] if experiment else ():
        count = len(series["values"]["total"])
        seconds, disk = series["values"]["total"][-1], series["values"]["disk"][-1]
        each = disk / count
        room = f"10 GB of disk are enough for {10_000 / each:,.0f}" if each else "they take no disk that can be seen"
        yield (
            f"{series['name']}: {count} instances of {megabytes:g} MB in {seconds:.1f} s and {disk:,.0f} MB; at that "
            f"rate {count / seconds * 60:,.0f} a minute; {room}."
        )


def _of_shipping(experiment: dict[str, Any] | None) -> Iterator[str]:
    if experiment is None:
        return
    base = _values(experiment, SHIPPED, "bytes")
    seconds = _values(experiment, SHIPPED, "seconds")
    for name in ("pyrtc pull: every layer", "disk image over HTTP, gzip", "tree over HTTP, tar -xz"):
        values, taken = _values(experiment, name, "bytes"), _values(experiment, name, "seconds")
        if base and values and seconds and taken:
            yield (
                f"A new version ships {quartiles(base)[1]:.1f} MB in {quartiles(seconds)[1]:.2f} s over loopback; "
                f"{name}: {quartiles(values)[1]:.1f} MB, {ratio(values, base)} times as much, in "
                f"{ratio(taken, seconds)} times the time."
            )


def _of_costs(experiment: dict[str, Any] | None) -> Iterator[str]:
    if experiment is None:
        return
    sizes = sorted({series["x"] for series in experiment["series"]})
    copied_sizes = [size for size in sizes if _values(experiment, "write one byte, full copy", "time", size)]
    for size in dict.fromkeys((sizes[0], *copied_sizes[-1:], sizes[-1])):
        values = _values(experiment, "write one byte, layers", "time", size)
        copied = _values(experiment, "write one byte, full copy", "time", size)
        if values:
            beside = "."
            if copied:
                beside = f"; in a full copy {quartiles(copied)[1]:.2g} ms: there full copies win."
            yield f"The first write to a file of {_size(size)} costs {quartiles(values)[1]:.3g} ms with layers{beside}"


def _size(megabytes: float) -> str:
    if megabytes < 1:
        return f"{megabytes * 1000:.0f} KB"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:g} GB"


def _of_layers(experiment: dict[str, Any] | None) -> Iterator[str]:
    """What reading through layers costs beside a full copy."""
    if experiment is None:
        return
    most = max(series["x"] for series in experiment["series"])
    for what in ("read every file", "look at every name"):
        told = []
        for count in (1, most):
            values = _values(experiment, f"{what}, layers", "time", count)
            base = _values(experiment, f"{what}, full copy", "time", count)
            if values and base:
                told.append(f"{ratio(values, base)} with {count:g} layer{'s' * (count > 1)}")
        if told:
            yield f"To {what}, layers take as many times as long as a full copy: {', '.join(told)}."


def _of_peers(experiment: dict[str, Any] | None, isolation: dict[str, Any]) -> Iterator[str]:
    base = _values(experiment, "pyrtc.run", "time") if experiment else None
    for series in experiment["series"] if experiment and base else ():
        if series["kind"] == "peer":
            assert base is not None
            less = lacks(isolation, series["name"])
            # No ratio compares unequal work without a word.
            mark = f"; it isolates less: {', '.join(less)}" if less else ""
            if series["name"] not in isolation:
                mark = "; what it isolates was not read"
            found = ratio(series["values"]["time"], base)
            yield f"{series['name']} takes {found} times as long as pyrtc.run{mark}."


def ratios(document: dict[str, Any]) -> Iterator[tuple[str, Ratio]]:
    """Yield every ratio that the report has, or that can be read from its pictures, with its name."""
    for key, experiment in document["experiments"].items():
        if key == "many/instances":
            yield from _ratios_of_many(key, experiment)
            continue
        for measure in experiment["measures"]:
            for series in experiment["series"]:
                values, size = series["values"].get(measure), series["x"]
                base = _base(key, experiment, series, measure)
                if values and base and quartiles(base)[1] > _NOTHING and base is not values:
                    at = "" if size is None else f" at {size:g}"
                    yield f"{key}: {series['name']}{at}, {measure}", ratio(values, base)


def _base(key: str, experiment: dict[str, Any], series: dict[str, Any], measure: str) -> list[float] | None:
    if key in _BASES:
        return _values(experiment, _BASES[key], measure, series["x"])
    if key == "costs/layers" and series["name"].endswith(", layers"):
        return _values(experiment, series["name"].removesuffix("layers") + "full copy", measure, series["x"])
    sizes = [one["x"] for one in experiment["series"] if one["name"] == series["name"] and one["x"] is not None]
    return _values(experiment, series["name"], measure, min(sizes)) if sizes and series["kind"] == "layers" else None


def _ratios_of_many(key: str, experiment: dict[str, Any]) -> Iterator[tuple[str, Ratio]]:
    base = next((one for one in experiment["series"] if one["name"] == LAYERED), None)
    for series in experiment["series"] if base else ():
        assert base is not None
        for measure in ("total", "disk"):
            values, beside = series["values"][measure], base["values"][measure]
            last = min(len(values), len(beside)) - 1
            if series is not base and beside[last] > _NOTHING:
                yield f"{key}: {series['name']}, {measure} of {last + 1}", ratio([values[last]], [beside[last]])

"""Numbers from samples: quartiles, and how sure a ratio of medians is."""

import random
import statistics
from collections.abc import Sequence

from pyrtc.values import dataclass

__all__ = ["FEW", "Ratio", "quartiles", "ratio", "spread"]

FEW = 6  # samples; with fewer, neither quartiles nor draws say more than the samples themselves
RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two medians, and how sure it is.

    low, high: the interval that 95 of 100 draws of the bootstrap fall in. count: of the smaller sample; below FEW, low
    and high are the range instead: the ratios of its smallest and its largest value.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        """Return it as the report shows it."""
        if self.count == 1:
            return f"{_short(self.value)} (one sample)"
        few = f"{self.count} samples: " if self.count < FEW else ""
        return f"{_short(self.value)} ({few}{_short(self.low)} to {_short(self.high)})"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the values that a quarter, a half and three quarters of the samples do not exceed."""
    ordered = sorted(values)
    if len(ordered) == 1:
        return ordered[0], ordered[0], ordered[0]
    first, middle, third = statistics.quantiles(ordered, n=4, method="inclusive")
    return first, middle, third


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return what error bars show: quartiles and the median between them; of few samples the range."""
    if len(values) < FEW:
        return min(values), statistics.median(values), max(values)
    return quartiles(values)


def ratio(values: Sequence[float], base: Sequence[float]) -> Ratio:
    """Return the ratio of the medians, with its interval by the bootstrap: both samples are drawn from again and again.

    Where there are few samples of one, its smallest and largest value are told instead. The draws are the same for
    the same numbers of samples, so that a report can be made again.
    """
    middle = statistics.median(base)
    count = min(len(values), len(base))
    if count < FEW:
        if len(values) <= len(base):
            low, high = min(values) / middle, max(values) / middle
        else:
            low, high = statistics.median(values) / max(base), statistics.median(values) / min(base)
        return Ratio(statistics.median(values) / middle, low, high, count)
    draws = random.Random(len(values) * 1000 + len(base))  # noqa: S311  (no secrets)
    found = sorted(
        statistics.median(draws.choices(values, k=len(values))) / statistics.median(draws.choices(base, k=len(base)))
        for _ in range(RESAMPLES)
    )
    cut = int(RESAMPLES * (1 - COVERAGE) / 2)
    return Ratio(statistics.median(values) / middle, found[cut], found[-1 - cut], count)


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"

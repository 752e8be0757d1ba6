"""Timed commands and how they are shown: medians, and ratios of A to B."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Report", "Series"]


@dataclass
class Series:
    """Samples of one measurement, in ``unit``."""

    name: str
    unit: str = "s"
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @contextmanager
    def timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.samples.append(time.perf_counter() - started)

    def repeat(self, times: int, action: Callable[[], object]) -> None:
        for _ in range(times):
            with self.timed():
                action()


class Report:
    """Series by subject ("mooring", "dockerd") and name."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}

    def series(self, subject: str, name: str, unit: str = "s") -> Series:
        return self._series.setdefault((subject, name), Series(name, unit))

    def record(self, subject: str, name: str, value: float, unit: str) -> None:
        self.series(subject, name, unit).samples.append(value)

    def text(self, ours: str, theirs: str) -> str:
        """One line per name: our median, their median, the ratio, the number of runs."""
        lines = [f"{'':<44}{ours:>12}{theirs:>12}{'ratio':>8}{'runs':>6}"]
        for name in dict.fromkeys(name for _, name in self._series):
            a, b = self._series.get((ours, name)), self._series.get((theirs, name))
            shown = a or b
            assert shown is not None
            ratio = f"{a.median / b.median:.2f}" if a and b and b.median else ""
            columns = [f"{s.median:.3g} {s.unit}" if s and s.samples else "-" for s in (a, b)]
            lines.append(f"{name:<44}{columns[0]:>12}{columns[1]:>12}{ratio:>8}{len(shown.samples):>6}")
        return "\n".join(lines)

    def document(self) -> list[dict[str, object]]:
        return [
            {"subject": subject, "name": name, "unit": s.unit, "median": s.median, "samples": s.samples}
            for (subject, name), s in self._series.items()
            if s.samples
        ]

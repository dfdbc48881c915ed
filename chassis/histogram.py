"""A histogram for processes that observe on one thread, the event loop's.

prometheus_client's takes a lock for each of its numbers and walks along its buckets, which costs a request as much as
its validation; names, labels and the text that is shown are still that library's.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

import prometheus_client
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString


class Histogram(prometheus_client.Histogram):
    """Counts values in buckets. Other threads may read, and see an observation that is counted and not yet summed."""

    def _metric_init(self) -> None:
        self._counts = [0] * len(self._upper_bounds)
        self._total = 0.0

    def observe(self, amount: float, times: int = 1) -> None:  # type: ignore[override]  # in the place of exemplars
        """Count a value, `times` over where as many share it."""
        self._counts[bisect_left(self._upper_bounds, amount)] += times
        self._total += amount * times

    def _child_samples(self) -> Iterable[Sample]:
        up_to = list(accumulate(self._counts))
        bounds = map(floatToGoString, self._upper_bounds)
        return (
            *(
                Sample("_bucket", {"le": bound}, float(count), None, None)
                for bound, count in zip(bounds, up_to, strict=True)
            ),
            Sample("_count", {}, float(up_to[-1]), None, None),
            Sample("_sum", {}, self._total, None, None),
        )

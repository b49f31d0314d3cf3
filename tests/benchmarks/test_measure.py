"""The numbers of the table: medians, and what counts as the worst."""

from .measure import of_rates, of_times


def test_times_give_their_median_and_their_99th_percentile():
    measured = of_times("call", "µs", [float(i) for i in range(200, 0, -1)])
    assert (measured.median, measured.worst, measured.runs) == (100.5, 198.0, 200)


def test_rates_give_their_median_and_the_slowest():
    measured = of_rates("rows", "rows/s", [30.0, 10.0, 50.0])
    assert (measured.median, measured.worst, measured.runs) == (30.0, 10.0, 3)

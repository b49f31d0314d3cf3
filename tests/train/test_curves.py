"""The picture of a run's curves."""

import math

from matplotlib import image

from simtune.train import curves

HISTORY = [
    (0, {"eval_return": 0.1, "eval_return_low": 0.0, "eval_return_high": 0.2}),
    (1, {"return": 0.2, "entropy": 1.5, "explained_variance": math.nan}),
    (2, {"return": 0.4, "eval_return": 0.5, "eval_return_low": 0.4, "eval_return_high": 0.6}),
]


def test_points_are_those_that_a_metric_has_and_that_are_finite():
    assert curves.points(HISTORY, "return") == ([1, 2], [0.2, 0.4])
    assert curves.points(HISTORY, "explained_variance") == ([], [])


def test_a_picture_has_a_panel_for_each_group_of_metrics(tmp_path):
    assert curves.draw(HISTORY, tmp_path / "c.png", title="run", best_round=2)
    height, width, channels = image.imread(tmp_path / "c.png").shape
    # Return and entropy: one row of three columns, 12 by 2.6 inches at 110 dots.
    assert (height, width, channels) == (286, 1320, 4)


def test_without_points_there_is_no_picture(tmp_path):
    assert not curves.draw([], tmp_path / "c.png", title="run")
    assert list(tmp_path.iterdir()) == []

"""Student's t: the tables of any textbook."""

import math

import pytest

from engine.evaluation.student import quantile, two_sided


@pytest.mark.parametrize(
    ("df", "value"), [(1, 12.7062), (2, 4.30265), (4, 2.77645), (10, 2.22814), (100, 1.98397), (10**5, 1.95999)]
)
def test_quantiles_are_those_of_the_tables(df, value):
    assert quantile(0.975, df) == pytest.approx(value, abs=2e-5)
    assert two_sided(value, df) == pytest.approx(0.05, abs=1e-5) == two_sided(-value, df)


def test_one_degree_of_freedom_is_cauchys_distribution():
    for t in (0.001, 0.5, 1, 3, 1e4):
        assert two_sided(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-12)


def test_the_ends():
    assert two_sided(0, 3) == 1 and two_sided(math.inf, 3) == 0 and two_sided(1e9, 5) < 1e-40
    assert quantile(0.5, 4) == pytest.approx(0, abs=1e-9)

"""Student's t distribution, of any number of degrees of freedom: how likely a value is, and the value of a probability."""

import math
from collections.abc import Callable

STEPS = 500
EXACT = 1e-15


def two_sided(t: float, df: float) -> float:
    """The probability of a value as far from 0 as ``t``, or farther: I_x(df / 2, 1 / 2) at x = df / (df + t²)."""
    return _incomplete_beta(df / 2, 0.5, df / (df + t * t)) if math.isfinite(t) else 0.0


def quantile(p: float, df: float) -> float:
    """The value that lies above a share ``p`` ≥ 0.5 of the distribution."""
    return crossing(lambda t: two_sided(t, df), 2 * (1 - p))


def crossing(falling: Callable[[float], float], level: float) -> float:
    """Where a function that falls from 1 at 0 towards 0 comes down to ``level``, found by bisection."""
    low, high = 0.0, 1.0
    while falling(high) > level:
        high *= 2
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b): DLMF 8.17.22, from the side where the fraction converges fast."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction 1 + d₁ / (1 + d₂ / (1 + …)) of DLMF 8.17.22, by Lentz's method as far as a float tells."""
    value = above = 1.0
    below = 0.0
    for n in range(1, STEPS + 1):
        m = n // 2
        if n % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        below = 1 / (1 + d * below)
        above = 1 + d / above
        value *= above * below
        if abs(above * below - 1) < EXACT:
            break
    return value

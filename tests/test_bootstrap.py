"""Bootstrap intervals of means: against scipy, by hand, and for dependent queries."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from common.metrics.bootstrap import bootstrap_interval, bootstrap_means


def test_bootstrap_against_scipy():
    values = np.random.default_rng(0).random(300) < 0.4
    low, high = bootstrap_interval(values, samples=4000)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert abs(low - expected.low) < 0.01 and abs(high - expected.high) < 0.01


def test_bootstrap_draws_clusters_together():
    values = np.random.default_rng(0).random(80)
    alone = bootstrap_interval(values)
    assert bootstrap_interval(np.tile(values, 5), np.tile(np.arange(80), 5)) == pytest.approx(alone)
    independent = bootstrap_interval(np.tile(values, 5))
    assert independent[1] - independent[0] < 0.6 * (alone[1] - alone[0])  # wrong by the square root of five
    means = bootstrap_means([(values, None), (1 - values, None)], samples=50)
    assert np.allclose(means.sum(1), 1)  # both columns are means of the same draws


def test_bootstrap_by_hand():
    """Two clusters of different size: a draw is the first twice, the second twice, or both."""
    means = bootstrap_means([([1.0, 2.0, 6.0], [0, 0, 1])], samples=200)
    assert set(means[:, 0].round(6)) == {1.5, 6.0, 3.0}


def test_what_a_clean_sweep_leaves_possible():
    exact = 100 * binomtest(0, 20).proportion_ci(method="exact").high
    assert bootstrap_interval([0.0] * 20, top=100) == pytest.approx((0, exact))
    assert bootstrap_interval([100.0] * 40, np.arange(40) // 2, top=100) == pytest.approx((100 - exact, 100))
    assert bootstrap_interval([0.0] * 20) == (0, 0)
    mixed = np.arange(20) * 5.0
    assert bootstrap_interval(mixed, top=100) == bootstrap_interval(mixed)

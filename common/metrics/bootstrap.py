"""Bootstrap confidence intervals of means over queries.

values (Q,), the cluster of each (Q,) -> means of resampled clusters -> 95 % interval
"""

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK_DRAWS = 2**22  # held at once
Numbers = Sequence[float] | np.ndarray


def bootstrap_interval(
    values: Numbers, clusters: Numbers | None = None, top: float | None = None, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean of one value per query; `clusters` as in bootstrap_means, `top` as in interval_of."""
    means = bootstrap_means([(values, clusters)], samples, seed)[:, 0]
    return interval_of(means, len(values) if clusters is None else len(np.unique(clusters)), top)


def interval_of(means: np.ndarray, count: int, top: float | None = None) -> tuple[float, float]:
    """Resampled means of `count` clusters -> the 95 % percentile interval.

    top: the best value of a score whose worst is 0. If every cluster has one of the two, all resampled means are equal;
    the interval is then that of Clopper and Pearson (1934), because no exception among `count` does not mean never.
    """
    low, high = np.percentile(means, [2.5, 97.5]).tolist()
    if top is not None:
        room = top * (1 - 0.025 ** (1 / count))
        low, high = (top - room if low == top else low), (room if high == 0 else high)
    return low, high


def bootstrap_means(
    columns: Sequence[tuple[Numbers, Numbers | None]], samples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Means over resampled clusters -> (samples, columns); all columns share the draws, so they can be added.

    A column is (values (Q,), clusters (Q,)): values of one cluster, such as the texts of one image, are drawn together,
    since they are not independent (Efron and Tibshirani 1993, chapter 8). None: every value is its own cluster.
    """
    pairs = [(np.asarray(v, float), np.arange(len(v)) if c is None else np.asarray(c)) for v, c in columns]
    count = max(int(clusters.max()) + 1 for _, clusters in pairs)
    sums = np.stack([np.bincount(clusters, values, minlength=count) for values, clusters in pairs], 1)
    sizes = np.stack([np.bincount(clusters, minlength=count) for _, clusters in pairs], 1)
    means = [(times @ sums) / (times @ sizes) for times in bootstrap_weights(count, samples, seed)]
    return np.concatenate(means)


def bootstrap_weights(count: int, samples: int = 1000, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each of `count` clusters is in a resample -> blocks (rows, count), `samples` rows in all."""
    random, block = np.random.default_rng(seed), max(1, BLOCK_DRAWS // count)
    for start in range(0, samples, block):
        rows = min(block, samples - start)
        drawn = random.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(float)

"""Truncated SVD and spherical k-means by scikit-learn, deterministic: the numbers behind topics.

scikit-learn is imported only to fit a model, because its import takes a CPU second; the topic of a
document needs numpy only. Call the functions that fit within `threadpool_limits(1)`, entered after
the import, so that sums are equal on any number of cores.

Shape letters: D vectors (documents), V terms, E dimensions, K clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.text import seeded_random
from data_pipeline.text.ngrams import I64

F64 = NDArray[np.float64]
Sparse = Any  # scipy.sparse.csr_array, which has no types

NO_CLUSTER = -1  # the cluster of a zero vector
DIGITS = 9  # decimal digits to which cosines are rounded before they are compared


def unit_vectors(vectors_DE: F64) -> F64:
    """Returns each row divided by its length; a zero row stays zero."""
    length_D1 = np.linalg.norm(vectors_DE, axis=1, keepdims=True)
    return np.divide(
        vectors_DE, length_D1, out=np.zeros_like(vectors_DE), where=length_D1 > 10.0**-DIGITS
    )


def leading_axes(matrix_DV: Sparse, axes: int, seed: int) -> F64:
    """Returns the right singular vectors of the largest singular values.

    They are computed by random projection and power iterations (Halko et al., arXiv 0909.4061). The
    sign of a singular vector is arbitrary: here its entry of the largest absolute value is
    positive.

    Args:
      matrix_DV: sparse matrix.
      axes: number of vectors E, at most the smaller side of the matrix.
      seed: of the random projection.

    Returns:
      float64 [V, E].
    """
    if not axes:
        return np.empty((matrix_DV.shape[1], 0))
    from sklearn.utils.extmath import randomized_svd

    rows_EV = randomized_svd(
        matrix_DV, axes, n_oversamples=10, n_iter=4, random_state=_seed(seed, "svd")
    )[2]
    largest_E = np.abs(np.round(rows_EV, DIGITS)).argmax(axis=1)
    return (rows_EV * np.sign(rows_EV[np.arange(axes), largest_E])[:, None]).T


def spherical_k_means(vectors_DE: F64, clusters: int, *, restarts: int, seed: int) -> F64:
    """Returns the unit centroids of the best of some runs of k-means on the sphere.

    Lloyd's algorithm on unit vectors, whose squared distance is 2 - 2 cos, with initial centroids
    by greedy k-means++. The best run has the smallest sum of squared distances.

    Args:
      vectors_DE: unit vectors.
      clusters: number of centroids K, at most D.
      restarts: number of runs, each with other initial centroids.
      seed: of the initial centroids.

    Returns:
      float64 [K, E].
    """
    if clusters == 0:
        return np.empty((0, vectors_DE.shape[1]))
    from sklearn.cluster import KMeans

    means = KMeans(clusters, n_init=restarts, tol=0, random_state=_seed(seed, "k-means"))
    return unit_vectors(means.fit(vectors_DE).cluster_centers_)


def nearest(vectors_DE: F64, centroids_KE: F64) -> tuple[I64, F64]:
    """Returns the cluster of each vector and its cosine with the centroid, [D] each.

    A zero vector gets NO_CLUSTER and 0. Of equal cosines the first cluster is taken.
    """
    if not len(centroids_KE):
        return np.full(len(vectors_DE), NO_CLUSTER), np.zeros(len(vectors_DE))
    # Rounded: the last bits of a product differ between processors and must not decide.
    cosine_DK = np.round(vectors_DE @ centroids_KE.T, DIGITS)
    cluster_D = cosine_DK.argmax(axis=1)
    score_D = cosine_DK[np.arange(len(cluster_D)), cluster_D]
    is_zero_D = ~vectors_DE.any(axis=1)
    return np.where(is_zero_D, NO_CLUSTER, cluster_D), np.where(is_zero_D, 0.0, score_D)


def _seed(seed: int, name: str) -> int:
    """Returns a seed for numpy's legacy generator, which scikit-learn uses."""
    return seeded_random.hash64(seed, name) % 2**32

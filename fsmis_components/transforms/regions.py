"""Regions of similar intensity, the pseudo-labels: in 3D, or slice by slice as in SSL-ALPNet."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from skimage import segmentation


def supervoxel_labels(
    volume: np.ndarray, mask: np.ndarray, min_size: int = 5000, sigma: float = 0.8
) -> np.ndarray:
    """Regions of similar intensity inside the mask, int32 (D, H, W).

    The small-region pass of Felzenszwalb & Huttenlocher (IJCV 2004) in 3D: neighbouring voxels are
    joined from the smallest intensity difference to the largest, as long as one of the two regions
    has fewer than `min_size` voxels. The paper's first pass, ruled by `scale`, is left out: at the
    scale of SSL-ALPNet it decides nothing. Neighbours are compared whatever their distance.

    Args:
        volume: (D, H, W) intensities of any scale.
        mask: (D, H, W) bool; regions stay inside.
        min_size: voxels; every region has at least as many, unless its connected part of the mask
            is smaller.
        sigma: Gaussian smoothing within slices before, in pixels; slices are not mixed. Slices
            enlarged by a factor f before want about 0.4 f, else regions follow the old pixels.

    Returns:
        0 outside the mask, regions 1, 2, ... without gaps, in order of their first voxel.
    """
    if not mask.any():
        return np.zeros(volume.shape, dtype=np.int32)
    smooth = ndimage.gaussian_filter(volume.astype(np.float32), (0.0, sigma, sigma))
    num_nodes = int(mask.sum())
    node = np.full(mask.shape, -1, dtype=np.int32)
    node[mask] = np.arange(num_nodes, dtype=np.int32)
    starts, ends, weights = [], [], []
    for axis in range(3):
        before = (slice(None),) * axis
        low, high = (*before, slice(None, -1)), (*before, slice(1, None))
        both = mask[low] & mask[high]
        starts.append(node[low][both])
        ends.append(node[high][both])
        weights.append(np.abs(smooth[low][both].astype(np.float64) - smooth[high][both]))
    first, second, weight = (np.concatenate(parts) for parts in (starts, ends, weights))
    # A sparse matrix takes a zero for "no edge": equal neighbours need a weight above it. Adding
    # the same number to all keeps the order.
    weight += 1e-6 * (weight.max(initial=0.0) + 1.0)
    graph = sparse.csr_array((weight, (first, second)), shape=(num_nodes, num_nodes))
    # Edges outside the minimum spanning tree never merge: such an edge comes after the tree's path
    # between its ends; if a tree edge on that path was refused, both regions beside it were large
    # enough and have only grown since, so both ends of the edge lie in regions of full size.
    tree = sparse.csgraph.minimum_spanning_tree(graph).tocoo()
    order = np.argsort(tree.data, kind="stable")
    roots = _merge_small(num_nodes, tree.row[order], tree.col[order], min_size)
    labels = np.zeros(mask.shape, dtype=np.int64)
    labels[mask] = roots + 1
    return renumber(labels)


def superpixel_labels(
    volume: np.ndarray, mask: np.ndarray, min_size: int = 400, sigma: float = 1.0
) -> np.ndarray:
    """Felzenszwalb superpixels of every slice, int32 (D, H, W); otherwise as `supervoxel_labels`.

    Intensities are first brought to 0..255, so that the scale of 1 means what it means in
    SSL-ALPNet, where the result is set by `min_size`. The paper cuts regions at the mask
    afterwards, which leaves slivers below the minimum size; here the outside of the mask is set
    apart before. The same number in two slices means nothing.
    """
    low, high = float(volume.min()), float(volume.max())
    grey = (volume.astype(np.float64) - low) * (255.0 / max(high - low, 1e-12))
    smooth = ndimage.gaussian_filter(grey, (0.0, sigma, sigma))
    labels = np.zeros(volume.shape, dtype=np.int32)
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        plane = np.where(mask[index], smooth[index], -1000.0)  # farther than any two grey levels
        # sigma 0: smoothing after this would blur the edge of the mask
        regions = segmentation.felzenszwalb(plane, scale=1.0, sigma=0, min_size=min_size)
        labels[index] = renumber(np.where(mask[index], regions + 1, 0))
    return labels


def renumber(labels: np.ndarray) -> np.ndarray:
    """Labels 1, 2, ... in order of first appearance; 0 stays 0. int32, same shape."""
    values, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    first = np.where(values == 0, -1, first)
    rank = np.empty(len(values), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(len(values), dtype=np.int32)
    if not (values == 0).any():
        rank += 1
    return rank[inverse].reshape(labels.shape).astype(np.int32)


def _merge_small(
    num_nodes: int, first: np.ndarray, second: np.ndarray, min_size: int
) -> np.ndarray:
    """Root of each node after joining along the edges, in order, where a side is too small."""
    parent = list(range(num_nodes))  # lists: ten times faster than arrays, element by element
    size = [1] * num_nodes
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if size[a] < min_size or size[b] < min_size:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
    roots = np.asarray(parent)
    while (roots[roots] != roots).any():
        roots = roots[roots]
    return roots

"""Small geometry tools: subdivision, normals, rotations and a value-noise field.

Units are metres, the z axis points up and a face looks along -y, as in the body model.
"""

import numpy as np
import scipy.sparse as sp
from scipy.ndimage import gaussian_filter, map_coordinates


def smoothstep(low, high, x):
    """Cubic step from 0 at `low` to 1 at `high` (elementwise; `low` may exceed `high`)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def normalise(v):
    """Scale vectors (..., 3) to unit length."""
    length = np.sqrt(np.einsum("...i,...i->...", v, v))
    return v / (length[..., None] + 1e-12)


def rotation(axis, degrees):
    """Rotation matrix (3, 3) about the axis 'x', 'y' or 'z'."""
    a = np.radians(degrees)
    c, s = np.cos(a), np.sin(a)
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def triangles(quads):
    """Split quads (Q, 4) into triangles (2Q, 3)."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def vertex_normals(vertices, tris):
    """Area-weighted unit normals (V, 3) of a triangle mesh."""
    a, b, c = (vertices[tris[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    out = np.zeros_like(vertices)
    for corner in range(3):
        for axis in range(3):
            out[:, axis] += np.bincount(tris[:, corner], face[:, axis], minlength=len(vertices))
    return normalise(out).astype(np.float32)


def catmull_clark(quads, n_vertices):
    """One step of Catmull-Clark subdivision.

    Returns the new quads (4Q, 4) and a sparse matrix (new vertices, old vertices): the same
    matrix then refines any set of vertex positions or per-vertex values of this topology.
    """
    n_faces = len(quads)
    pairs = np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2), 1)
    edges, inverse, count = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    n_edges = len(edges)
    boundary = count != 2
    face_of = np.repeat(np.arange(n_faces), 4)

    def matrix(values, rows, cols, shape):
        return sp.csr_matrix((values, (rows, cols)), shape=shape)

    face_points = matrix(np.full(4 * n_faces, 0.25), face_of, quads.ravel(), (n_faces, n_vertices))
    rows = np.repeat(np.arange(n_edges), 2)
    middle = matrix(np.full(2 * n_edges, 0.5), rows, edges.ravel(), (n_edges, n_vertices))
    edge_faces = matrix(np.full(4 * n_faces, 0.5), inverse, face_of, (n_edges, n_faces))
    inner = sp.diags((~boundary).astype(float))
    outer = sp.diags(boundary.astype(float))
    edge_points = inner @ (0.5 * middle + 0.5 * (edge_faces @ face_points)) + outer @ middle

    used = np.zeros(n_vertices, bool)
    used[quads.ravel()] = True
    on_boundary = np.zeros(n_vertices, bool)
    on_boundary[edges[boundary].ravel()] = True
    valence = np.maximum(np.bincount(quads.ravel(), minlength=n_vertices), 1)
    to_faces = matrix(np.ones(4 * n_faces), quads.ravel(), face_of, (n_vertices, n_faces))
    to_edges = matrix(np.ones(2 * n_edges), edges.ravel(), rows, (n_vertices, n_edges))
    n_to_edges = np.maximum(np.asarray(to_edges.sum(1)).ravel(), 1)
    mean_face = sp.diags(1 / valence) @ (to_faces @ face_points)
    mean_edge = sp.diags(1 / n_to_edges) @ (to_edges @ middle)
    identity = sp.identity(n_vertices, format="csr")
    inside = sp.diags(1 / valence) @ (mean_face + 2 * mean_edge)
    inside = inside + sp.diags((valence - 3) / valence) @ identity
    edge_rows = np.repeat(np.flatnonzero(boundary), 2)
    to_rim = matrix(
        np.ones(len(edge_rows)), edges[boundary].ravel(), edge_rows, (n_vertices, n_edges)
    )
    n_rim = np.maximum(np.asarray(to_rim.sum(1)).ravel(), 1)
    rim = 0.5 * identity + 0.5 * (sp.diags(1 / n_rim) @ (to_rim @ middle))

    def pick(mask):
        return sp.diags(mask.astype(float))

    old_points = pick(used & ~on_boundary) @ inside + pick(used & on_boundary) @ rim
    old_points = old_points + pick(~used) @ identity
    subdivide = sp.vstack([old_points, edge_points, face_points]).tocsr()

    edge_id = n_vertices + inverse.reshape(n_faces, 4)
    centre = n_vertices + n_edges + np.arange(n_faces)
    corners = [
        np.stack([quads[:, i], edge_id[:, i], centre, edge_id[:, i - 1]], -1) for i in range(4)
    ]
    return np.stack(corners, 1).reshape(-1, 4), subdivide


class Noise:
    """Tri-linear value noise on a wrapped random lattice, about zero mean and unit variance."""

    def __init__(self, size=64, seed=1):
        lattice = np.random.default_rng(seed).standard_normal((size, size, size))
        lattice = gaussian_filter(lattice, 0.6, mode="wrap")
        self.lattice = (lattice / lattice.std()).astype(np.float32)

    def __call__(self, points, frequency, octaves=1, seed=0):
        """Noise (N,) at `points` (N, 3); `frequency` in cycles a metre, a number or one an axis."""
        points = np.asarray(points) * np.asarray(frequency, np.float32)
        out = np.zeros(len(points), np.float32)
        for k in range(octaves):
            where = (points * 2**k + seed * 7.31 + k * 13.7).T
            out += 0.5**k * map_coordinates(self.lattice, where, order=1, mode="grid-wrap")
        return out

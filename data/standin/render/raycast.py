"""Ray casting on triangle meshes with Embree, on the CPU."""

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from .geometry import normalise


@dataclass
class Camera:
    """Pinhole camera: `eye` (3,) and the axes `right`, `up`, `forward` (3,), focal in pixels."""

    eye: np.ndarray
    right: np.ndarray
    up: np.ndarray
    forward: np.ndarray
    focal: float
    width: int
    height: int

    @classmethod
    def looking_at(cls, target, distance, azimuth, elevation, span, width, height):
        """Camera at `distance` metres that sees `span` metres from top to bottom at `target`."""
        az, el = np.radians(azimuth), np.radians(elevation)
        away = np.array([np.sin(az) * np.cos(el), -np.cos(az) * np.cos(el), np.sin(el)])
        forward = -away
        right = normalise(np.cross(forward, [0, 0, 1.0]))
        up = np.cross(right, forward)
        focal = height / span * distance
        return cls(target + distance * away, right, up, forward, focal, width, height)

    def rays(self):
        """Unit directions (height * width, 3) through the pixel centres, row by row."""
        x = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal
        y = (np.arange(self.height) + 0.5 - self.height / 2) / self.focal
        xx, yy = np.meshgrid(x, y)
        d = self.forward + xx[..., None] * self.right - yy[..., None] * self.up
        return normalise(d).reshape(-1, 3).astype(np.float32)


class Mesh:
    """A triangle mesh (vertices (V, 3), triangles (T, 3)) that rays can be cast against."""

    def __init__(self, vertices, tris):
        self.scene = EmbreeScene()
        self._mesh = TriangleMesh(self.scene, vertices.astype(np.float32), tris.astype(np.int32))

    def first_hit(self, origins, directions):
        """Triangle hit by each ray (N,), -1 for none, barycentric weights (N, 3), distance (N,)."""
        hit = self.scene.run(origins, directions, output=True)
        u, v = hit["u"], hit["v"]
        return hit["primID"], np.stack([1 - u - v, u, v], -1), hit["tfar"]

    def blocked(self, origins, directions, reach):
        """Whether anything lies within `reach` metres along each ray: boolean (N,)."""
        limit = np.full(len(origins), reach, np.float32)
        return self.scene.run(origins, directions, dists=limit, query="OCCLUDED") >= 0


def unit_sphere(rng, n):
    """`n` random unit vectors (n, 3)."""
    return normalise(rng.standard_normal((n, 3), dtype=np.float32))


def visibility(meshes, points, normals, light, radius, draw, shadow_rays=4, sky_rays=6, reach=0.14):
    """Share of an area light and of the nearby hemisphere that each point sees.

    `points` and `normals` are (N, 3), `light` is the unit direction of the light and `radius`
    its size; `draw()` gives N random unit vectors. Returns two arrays (N,): soft shadow and ambient
    occlusion, 1 where open.
    """
    n = len(points)
    start = (points + normals * 0.0010).astype(np.float32)
    light = light.astype(np.float32)

    def open_share(rays, main, spread, distance):
        total = np.zeros(n, np.float32)
        for _ in range(rays):
            d = normalise(main + spread * draw())
            blocked = np.zeros(n, bool)
            for mesh in meshes:
                blocked |= mesh.blocked(start, d, distance)
            total += ~blocked
        return total / rays

    return open_share(shadow_rays, light, np.float32(radius), 2.0), open_share(
        sky_rays, normals, np.float32(0.98), reach
    )

"""Hair and headscarves as thin shells around the head, with a coverage that fades at the edge.

Two shells: a cap that grows out of the scalp, and a curtain that hangs from it. Both are a layer
of their own: where the coverage is below 1 the head behind shows through, so that hairlines and
ends are soft and never ragged. Positions called canonical are on the neutral average head.
"""

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from .geometry import normalise, smoothstep, triangles
from .raycast import Mesh

AXIS_Y = -0.03  # the vertical axis that the curtain hangs around, behind the middle of the face
CROWN = np.array([0.0, 0.02, 0.84])


def _scarf_opening(z):
    """Azimuth (degrees) up to which a headscarf leaves the face free at canonical height z."""
    return np.interp(z, [0.49, 0.612, 0.625, 0.645, 0.68, 0.72, 0.82], [-9, -9, 22, 44, 58, 62, 50])


class HairKit:
    """Precomputed tables of one `Body` for building hair on any of its identities."""

    def __init__(self, body):
        self.body = body
        c = body.canonical
        skin = np.unique(body.quads["skin"])
        skin = skin[(c[skin, 2] > 0.45) & (np.abs(c[skin, 0]) < 0.22) & ~self._inner(body)[skin]]
        self.anchors = skin[::3]
        self.tree = cKDTree(c[self.anchors])
        self.angles = np.linspace(-180, 180, 121)
        self.heights = np.linspace(0.50, 0.86, 46)
        self.radius = self._radii()

    @staticmethod
    def _inner(body):
        return body.masks["inside-mouth"] > 0.2

    def _radii(self):
        """Distance (heights, angles) from the axis to the skin of the canonical body."""
        mesh = Mesh(self.body.canonical, triangles(self.body.quads["skin"]))
        phi = np.radians(self.angles)
        out = np.stack([np.sin(phi), -np.cos(phi), 0 * phi], -1)
        z = np.repeat(self.heights, len(phi))
        far = np.tile(out, (len(self.heights), 1))
        origin = far + np.array([0, AXIS_Y, 0]) + z[:, None] * np.array([0, 0, 1.0])
        distance = mesh.first_hit(origin.astype(np.float32), -far.astype(np.float32))[2]
        radius = np.where(distance < 1.0, 1.0 - distance, 0.0).reshape(len(self.heights), -1)
        return gaussian_filter(radius, (1.0, 1.5), mode=("nearest", "wrap"))

    def carry(self, points, posed):
        """Move canonical points (N, 3) along with the skin nearest to them."""
        distance, index = self.tree.query(points, k=16)
        weight = 1 / (distance + 0.004) ** 2
        weight /= weight.sum(1, keepdims=True)
        vertex = self.anchors[index]
        shift = points[:, None] - self.body.canonical[vertex]
        moved = posed[vertex] + shift @ self._turn(posed).T
        return (moved * weight[..., None]).sum(1).astype(np.float32)

    def _turn(self, posed):
        """Linear part (3, 3) of the best affine map from the canonical to the posed skull.

        Of what lies above the brows: no expression moves it.
        """
        skull = self.body.head_vertices
        some = skull[self.body.canonical[skull, 2] > 0.80][::10]
        x = self.body.canonical[some]
        y = posed[some]
        return np.linalg.lstsq(x - x.mean(0), y - y.mean(0), rcond=None)[0].T

    def field(self, hair):
        """Signed height (V,) of each vertex above the hairline, positive where hair grows."""
        body = self.body
        if hair.style == "scarf":
            opening = _scarf_opening(body.canonical[:, 2])
            beside = np.radians(body.azimuth - opening) * 0.075
            under_chin = 0.6190 - body.canonical[:, 2]
            top = body.hair_field + hair.drop_front
            return np.maximum(np.maximum(beside, top), under_chin)
        front = np.exp(-((body.azimuth / 50) ** 2))
        temple = np.exp(-(((body.azimuth - 48) / 16) ** 2))
        field = (
            body.hair_field + 0.009 * front - hair.raise_front * front - hair.raise_temple * temple
        )
        field = field + hair.drop_front * smoothstep(62, 40, body.azimuth)
        if hair.style in ("long", "bob"):
            field = field + 0.012 * np.exp(-(((body.azimuth - 52) / 18) ** 2))
        if hair.style == "fringe_of_hair":  # bald on top
            field = np.minimum(field, 0.800 - body.canonical[:, 2] + 0.02 * (body.azimuth > 140))
        if hair.style == "bald":
            field = field - 1.0
        return field

    def cap(self, hair, field, posed, normals, noise, seed):
        """Vertices (V, 3) of the shell over the scalp and its quads."""
        body = self.body
        c = body.canonical
        quads = body.quads["skin"]
        quads = quads[(field[quads] > -0.004).any(1)]
        top = smoothstep(0.775, 0.835, c[:, 2])
        thick = hair.side + (hair.crown - hair.side) * top
        if hair.flow == "part":
            thick = thick * (1 - 0.55 * np.exp(-(((c[:, 0] - hair.part) / 0.007) ** 2)) * top)
        grow = smoothstep(-0.003, 0.022 if hair.style == "afro" else 0.014, field)
        lumps = {"afro": 0.20, "short": 0.22, "long": 0.10, "bob": 0.12}.get(hair.style, 0.06)
        used = np.unique(quads)
        bump = np.zeros(len(c), np.float32)
        bump[used] = noise(c[used], 45.0, 2, seed + 3)
        height = thick * grow * (1 + lumps * bump) - 0.0008
        return posed + normals * height[:, None].astype(np.float32), quads

    def curtain(self, hair, noise, seed):
        """Canonical vertices (N, 3), quads and distance (N,) to the curtain's edge in metres."""
        start = 0.815
        z = np.linspace(start, max(hair.end, 0.49), 44)
        scarf = hair.style == "scarf"
        opening = np.full_like(z, hair.edge)
        if scarf:
            opening = np.maximum(_scarf_opening(z), 0)
        share = np.linspace(0, 1, 61) ** 0.8
        right = opening[:, None] + (180 - opening[:, None]) * share
        phi = np.concatenate([-right[:, ::-1], right], 1)  # from the back round both sides
        zz = np.repeat(z[:, None], phi.shape[1], 1)
        radius = self._hanging_radius(phi, zz, hair, scarf)
        wave = noise(np.stack([phi / 22, zz * 16, 0 * zz], -1).reshape(-1, 3), 1.0, 2, seed + 5)
        wave = wave.reshape(zz.shape) * (0.0012 + 0.0035 * hair.wave) * smoothstep(0.8, 0.7, zz)
        radius = radius + wave
        rad = np.radians(phi)
        points = np.stack([radius * np.sin(rad), AXIS_Y - radius * np.cos(rad), zz], -1)
        from_opening = np.radians(np.abs(phi) - opening[:, None]) * radius
        edge = np.minimum(from_opening, 0.5 * (zz - hair.end))
        if scarf:
            edge = np.where(zz < 0.622, 0.02, from_opening)
        rows, cols = phi.shape
        grid = np.arange(rows * cols).reshape(rows, cols)
        quads = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], -1)
        if not scarf:  # the face stays open
            quads = np.delete(quads, cols // 2 - 1, axis=1)
        return points.reshape(-1, 3), quads.reshape(-1, 4), edge.reshape(-1).astype(np.float32)

    def _hanging_radius(self, phi, z, hair, scarf):
        """Distance (rows, cols) from the axis to the curtain at azimuth `phi` and height `z`."""
        col = (phi + 180) / 360 * (len(self.angles) - 1)
        row = (z - self.heights[0]) / (self.heights[1] - self.heights[0])

        def look(at_row):
            r0 = np.clip(np.floor(at_row).astype(int), 0, len(self.heights) - 2)
            c0 = np.clip(np.floor(col).astype(int), 0, len(self.angles) - 2)
            fr, fc = np.clip(at_row - r0, 0, 1), col - c0
            t = self.radius
            upper = t[r0, c0] * (1 - fc) + t[r0, c0 + 1] * fc
            lower = t[r0 + 1, c0] * (1 - fc) + t[r0 + 1, c0 + 1] * fc
            return upper * (1 - fr) + lower * fr

        skin = look(row)
        at_ear = look(
            np.full_like(row, (0.735 - self.heights[0]) / (self.heights[1] - self.heights[0]))
        )
        thick = hair.side + 0.004
        hang = at_ear + thick + (0.10 if not scarf else 0.05) * np.clip(0.72 - z, 0, 0.12)
        if scarf:
            # Under the chin the cloth runs from the jaw down to the chest.
            low = smoothstep(0.64, 0.60, z)
            hang = np.where(np.abs(phi) < 60, skin + thick * (1 + 0.6 * low), hang)
            hang = np.maximum(hang, 0.082 + 0.10 * np.clip(0.62 - z, 0, 0.2))
            hang = np.where(z > 0.72, 0.0, hang)
            full = np.maximum(np.minimum(skin + thick, 0.21), hang)
            tuck = smoothstep(0, 30, np.abs(phi) - _scarf_opening(z))
            return np.where(z > 0.635, skin + 0.006 + tuck * (full - skin - 0.006), full)
        above = skin + thick
        below = np.clip(skin + 0.006, hang, hang + 0.02)
        full = np.where(z > 0.735, np.maximum(above, hang - 0.02), below)
        tuck = smoothstep(0, 22, np.abs(phi) - hair.edge)  # the edge by the face lies on the skin
        return np.where(z > 0.64, skin + 0.005 + tuck * (full - skin - 0.005), full)

    def ball(self, radius):
        """Canonical vertices and quads of a bun on top of the head."""
        n, m = 18, 28
        t = np.linspace(0.02, np.pi - 0.02, n)
        p = np.linspace(0, 2 * np.pi, m)
        tt, pp = np.meshgrid(t, p, indexing="ij")
        unit = np.stack([np.sin(tt) * np.cos(pp), np.sin(tt) * np.sin(pp), np.cos(tt)], -1)
        centre = np.array([0.0, 0.050, 0.848 + 0.6 * radius])
        points = centre + radius * unit.reshape(-1, 3) * np.array([1.1, 1.0, 0.85])
        grid = np.arange(n * m).reshape(n, m)
        quads = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], -1)
        return points, quads.reshape(-1, 4)


def strands(points, hair, noise, seed):
    """Streak noise (N,), about -1 to 1, that runs along the hair at canonical points (N, 3)."""
    d = points - CROWN
    if hair.flow == "curl":
        return 0.8 * noise(points, 330.0, 2, seed)
    if hair.flow == "back":
        across = np.arctan2(d[:, 0], np.maximum(points[:, 2] - 0.65, 0.01))
        along = points[:, 1]
    elif hair.flow == "part":
        lift = smoothstep(0.78, 0.80, points[:, 2])
        sweep = np.arctan2(points[:, 2] - 0.74, -(points[:, 1] - 0.03))
        round_head = np.arctan2(points[:, 0], -(points[:, 1] - AXIS_Y))
        across = lift * 1.3 * sweep + (1 - lift) * round_head
        along = points[:, 2]
    else:
        across = np.arctan2(d[:, 0], -(points[:, 1] - 0.03))
        across = across + 0.25 * noise(points, 9.0, 1, seed)
        along = points[:, 2]
    bend = 0.10 * hair.wave * np.sin(60 * points[:, 2] + 3 * across)
    coarse = np.stack([(across + bend) * 34, along * 26, 0 * along], -1)
    fine = np.stack([(across + bend) * 120, along * 40, 0 * along], -1)
    return 0.7 * noise(coarse, 1.0, 3, seed) + 0.4 * noise(fine, 1.0, 1, seed)


def strand_direction(points, normals, hair):
    """Unit vectors (N, 3) along the hair, in the surface."""
    down = np.array([0.0, 0.1, -1.0])
    back = np.array([0.0, 1.0, -0.15])
    if hair.flow == "back":
        along = np.broadcast_to(back, points.shape)
    elif hair.flow == "part":
        side = np.sign(points[:, :1] - hair.part) * np.array([1.0, 0, 0])
        top = smoothstep(0.79, 0.84, points[:, 2:3])
        along = top * (side + 0.5 * down) + (1 - top) * down
    else:
        along = np.broadcast_to(down, points.shape)
    return normalise(along - normals * (along * normals).sum(1, keepdims=True))

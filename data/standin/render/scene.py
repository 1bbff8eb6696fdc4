"""One photograph: assemble the meshes, cast the rays, light the points, make the picture."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from .body import Body
from .geometry import Noise, normalise, smoothstep, triangles, vertex_normals
from .hair import HairKit
from .raycast import Camera, Mesh, unit_sphere, visibility
from .surface import PARTS, Fragments, Surfaces

WIDTH, HEIGHT = 328, 368
MASK_NAMES = ("lips", "ears", "inside-mouth", "lash", "hair", "neckline", "edge")
SKIN_WRAP = np.array([0.32, 0.16, 0.10])  # light that bleeds round into the shade, red most


class Layer:
    """Meshes of several parts joined into one, with what the surfaces need at each vertex."""

    def __init__(self):
        self.pieces = []
        self.count = 0

    def add(self, part, vertices, quads, canonical, masks):
        """Add the `quads` of a part; the other arrays are per vertex of the same numbering."""
        used, inverse = np.unique(quads, return_inverse=True)
        tris = triangles(inverse.reshape(-1, 4))
        columns = np.zeros((len(used), len(MASK_NAMES)), np.float32)
        for i, name in enumerate(MASK_NAMES):
            if name in masks:
                columns[:, i] = masks[name][used]
        index = np.full(len(tris), PARTS.index(part))
        self.pieces.append((tris + self.count, vertices[used], canonical[used], columns, index))
        self.count += len(used)

    def close(self):
        """Join the pieces and build the ray-casting structure."""
        joined = [np.concatenate(x) for x in zip(*self.pieces, strict=True)]
        self.tris, vertices, canonical, masks, self.part = joined
        self.vertices = vertices.astype(np.float32)
        self.data = np.concatenate([canonical, masks], 1).astype(np.float32)
        self.normals = vertex_normals(self.vertices, self.tris)
        self.mesh = Mesh(self.vertices, self.tris)
        return self

    def opaque(self, triangle, weights, depth=0.014):
        """Whether hits on this layer (N,) lie at least `depth` metres inside its edge."""
        corner = self.tris[np.maximum(triangle, 0)]
        edge = (self.data[:, 3 + MASK_NAMES.index("edge")][corner] * weights).sum(1)
        return (triangle >= 0) & (edge > depth)


class Renderer:
    """Renders halves; builds the body, the maps and the noise once."""

    def __init__(self, scale=1.3):
        """`scale` is the number of rays a pixel along each axis."""
        self.scale = scale
        self.noise = Noise()
        self.body = Body()
        self.hair = HairKit(self.body)
        self.surfaces = Surfaces(self.noise)
        ears = self.body.masks["ears"] * (self.body.canonical[:, 0] > 0)
        lobe = np.flatnonzero(ears > 0.6)
        self.lobe = lobe[np.argsort(self.body.canonical[lobe, 2])[:10]]
        mirrored = self.body.canonical[self.lobe] * [-1, 1, 1]
        self.lobe_right = np.array(
            [np.argmin(((self.body.canonical - p) ** 2).sum(1)) for p in mirrored]
        )

    def render(self, identity, actions, shot, setting, relief=None):
        """A picture (HEIGHT, WIDTH, 3) of 8-bit RGB.

        `relief`: the actions that the wrinkles are those of, where not the `actions` that move the
        face: no photograph can part the two.
        """
        posed, head = self.body.posed(identity, actions, shot)
        base, shirt, hair = self._layers(identity, posed)
        rows, cols = round(HEIGHT * self.scale), round(WIDTH * self.scale)
        target = head[:3, 3] + np.array([shot.shift[0], -0.06, shot.shift[1]])
        camera = Camera.looking_at(
            target, shot.distance, shot.azimuth, shot.elevation, shot.span, cols, rows
        )
        key = normalise(
            camera.right * shot.key[0] + camera.up * shot.key[1] - camera.forward * shot.key[2]
        )
        rng = np.random.default_rng(shot.seed)
        colour = self._wall(setting, shot, rows, cols).reshape(-1, 3)

        rays = camera.rays()
        origin = np.broadcast_to(camera.eye.astype(np.float32), rays.shape)
        layers = [x for x in (base, shirt, hair) if x is not None]
        hits, reached = [], []
        nearest = np.full(len(rays), np.inf, np.float32)
        for layer in layers:
            hits.append(layer.mesh.first_hit(origin, rays))
            triangle, _, distance = hits[-1]
            reached.append((triangle >= 0) & (distance < nearest))
            nearest[reached[-1]] = distance[reached[-1]]
        for index, layer in enumerate(layers):
            triangle, weights, _ = hits[index]
            for later in range(index + 1, len(layers)):  # no need to shade what is covered anyway
                reached[index] &= ~(reached[later] & layers[later].opaque(*hits[later][:2]))
            seen = np.flatnonzero(reached[index])
            with np.errstate(invalid="ignore"):
                behind = np.where(hits[0][0] >= 0, hits[0][2], np.inf) - hits[index][2]
            f = self._fragments(layer, triangle[seen], weights[seen], rays[seen], shot)
            material = self.surfaces.shade(f, identity, actions if relief is None else relief)
            solids = [x.mesh for x in (base, hair) if x is not None]
            shadow, sky = self._visibility(solids, seen, f, key, setting, rng, rows, cols)
            lit = light(f, material, camera, key, shadow, sky, setting, identity)
            if layer is not base:  # behind a thin edge there is often more of the same
                self._fill_behind(layer, rays[seen], f.position, behind[seen], material)
            share = material.coverage[:, None]
            colour[seen] = colour[seen] * (1 - share) + lit * share
        return self._develop(colour.reshape(rows, cols, 3), shot, rng)

    @staticmethod
    def _fill_behind(layer, rays, position, room, material):
        """Make thin edges of hair or cloth opaque where a solid part of it follows behind.

        `room` (N,) is how far the body lies behind the edge: nothing counts beyond it.
        """
        thin = np.flatnonzero(material.coverage < 0.97)
        if not len(thin):
            return
        start = (position[thin] + 0.0015 * rays[thin]).astype(np.float32)
        triangle, weights, far = layer.mesh.first_hit(start, rays[thin])
        solid = layer.opaque(triangle, weights, 0.004) & (far < np.minimum(room[thin], 0.22))
        material.coverage[thin[solid]] = 1.0

    def _layers(self, identity, posed):
        body, hair = self.body, identity.hair
        c, quads = body.canonical, body.quads
        field = self.hair.field(hair).astype(np.float32)
        masks = body.masks | {"hair": field}
        shirt = identity.shirt
        line = 0.555 + 0.5 * (c[:, 1] + 0.07) + shirt["neck"]
        line = line + shirt["vee"] * (np.abs(c[:, 0]) - 0.05) * (np.abs(c[:, 0]) < 0.05)
        above = c[:, 2] - line  # height above the neckline
        base = Layer()
        skin = quads["skin"]
        base.add("skin", posed, skin[~(above[skin] < -0.03).all(1)], c, masks)
        for part in ("eyes", "teeth", "tongue"):
            base.add(part, posed, quads[part], c, {})
        cloth = skin[(above[skin] < 0.010).any(1)]
        normals = vertex_normals(posed, triangles(skin))
        thick = 0.0025 + 0.006 * smoothstep(0.0, 0.02, -above)
        used = np.unique(cloth)
        folds = np.zeros(len(c))
        folds[used] = 0.0022 * self.noise(c[used], (18, 18, 9), 2, identity.seed)
        thick = thick + folds * smoothstep(0.01, 0.06, -above)
        shell = posed + normals * thick[:, None].astype(np.float32)
        shirt_layer = Layer()
        shirt_layer.add("shirt", shell, cloth, c, {"neckline": above, "edge": 0.012 - above})
        if identity.earrings and hair.style != "scarf":
            ball, ball_quads = self.hair.ball(identity.earrings)
            ball = ball - ball.mean(0) - [0, 0, identity.earrings]
            for lobe in (self.lobe, self.lobe_right):
                base.add("jewel", posed[lobe].mean(0) + ball, ball_quads, ball, {})
        hair_layer = self._hair_layer(identity, posed, normals, field)
        return base.close(), shirt_layer.close(), hair_layer

    def _hair_layer(self, identity, posed, normals, field):
        hair, c = identity.hair, self.body.canonical
        if hair.style == "bald":
            return None
        cover = Layer()
        vertices, quads = self.hair.cap(hair, field, posed, normals, self.noise, identity.seed)
        ears = 0.02 * smoothstep(0.2, 0.5, self.body.masks["ears"])
        cover.add("hair", vertices, quads, c, {"edge": field - ears})
        if hair.end:
            points, quads, edge = self.hair.curtain(hair, self.noise, identity.seed)
            cover.add("hair", self.hair.carry(points, posed), quads, points, {"edge": edge})
        if hair.bun:
            points, quads = self.hair.ball(hair.bun)
            edge = np.full(len(points), 0.05)
            cover.add("hair", self.hair.carry(points, posed), quads, points, {"edge": edge})
        return cover.close()

    def _fragments(self, layer, triangle, weights, rays, shot):
        corner = layer.tris[triangle]

        def blend(values):
            return sum(values[corner[:, i]] * weights[:, i : i + 1] for i in range(3))

        data, position = blend(layer.data), blend(layer.vertices)
        normal = normalise(blend(layer.normals))
        away = (normal * rays).sum(1)
        normal = np.where(away[:, None] > 0.15, normalise(normal - rays * away[:, None]), normal)
        masks = {name: data[:, 3 + i] for i, name in enumerate(MASK_NAMES)}
        return Fragments(
            layer.part[triangle],
            data[:, :3],
            normal.astype(np.float32),
            position.astype(np.float32),
            masks,
            shot.head_axes(),
            self.body.eye_centre,
        )

    def _visibility(self, solids, seen, f, key, setting, rng, rows, cols):
        """Soft shadow and ambient occlusion (N,), sampled on every other ray and smoothed."""
        y, x = np.divmod(seen, cols)
        some = np.flatnonzero((x % 2 == 0) & (y % 2 == 0))
        half = (rows // 2 + 1, cols // 2 + 1)
        place = np.ravel_multi_index((y // 2, x // 2), half)

        def draw():  # for the whole grid: what moves in one place changes the noise nowhere else
            return unit_sphere(rng, half[0] * half[1])[place[some]]

        maps = visibility(solids, f.position[some], f.normal[some], key, setting.key_size, draw)
        weight = np.zeros(half, np.float32)
        weight.flat[place[some]] = 1
        out = []
        for values, sigma in zip(maps, (0.6, 1.1), strict=True):
            image = np.zeros(half, np.float32)
            image.flat[place[some]] = values
            spread = gaussian_filter(weight, sigma * self.scale)
            smooth = gaussian_filter(image, sigma * self.scale) / np.maximum(spread, 1e-6)
            out.append(np.clip(smooth.flat[place], 0, 1))
        return out

    def _wall(self, setting, shot, rows, cols):
        """Blurred background (rows, cols, 3)."""
        rng = np.random.default_rng(setting.wall_seed)
        noise = gaussian_filter(rng.standard_normal((48, 48)), 3)
        noise = Image.fromarray((noise / noise.std()).astype(np.float32))
        noise = np.asarray(noise.resize((cols, rows), Image.BICUBIC))
        y, x = np.mgrid[0:rows, 0:cols]
        x, y = x / cols, y / rows
        place, step, blur = setting.panel
        shade = 1 + setting.wall_slope[0] * (x - 0.5) + setting.wall_slope[1] * (y - 0.5)
        shade = shade - 0.35 * ((x - 0.5) ** 2 + (y - 0.4) ** 2)
        shade = shade + step * smoothstep(place - blur, place + blur, x + 3 * shot.shift[0])
        return setting.wall * (shade + setting.mottle * noise)[..., None]

    def _develop(self, colour, shot, rng):
        """Tone curve, gamma, down to the final size, sensor grain."""
        colour = colour * shot.exposure
        colour = np.clip(1.1 * colour / (1 + 0.12 * colour), 0, 1) ** (1 / 2.2)
        image = Image.fromarray((255 * colour + 0.5).astype(np.uint8))
        image = np.asarray(image.resize((WIDTH, HEIGHT), Image.LANCZOS), np.float32)
        grain = shot.grain * rng.standard_normal(image.shape[:2])[..., None]
        return np.clip(image + grain, 0, 255).astype(np.uint8)


def light(f, m, camera, key, shadow, sky, setting, identity):
    """Colour (N, 3) of lit fragments: key light, fill light, sky, shine, hair highlights."""
    tint = setting.tint
    key_colour = setting.key_power * np.array([1.15 * (1 + tint), 1.12, 1.08 * (1 - tint)])
    fill_colour = setting.fill_power * np.array([0.26, 0.27, 0.29])
    sky_colour = np.array([0.33 * (1 - tint), 0.33, 0.35 * (1 + tint)])
    part = f.part
    flesh = np.isin(part, (PARTS.index("skin"), PARTS.index("tongue")))[:, None]
    # Deep in the mouth the rays see nothing, yet teeth catch light: they get a floor.
    mouth = part == PARTS.index("teeth")
    sky = np.where(mouth, 0.65 + 0.35 * sky, sky)
    sky = np.where(part == PARTS.index("hair"), 0.3 + 0.7 * sky, sky)
    shadow = np.where(mouth, 0.65 + 0.35 * shadow, shadow)
    view = normalise(camera.eye - f.position)
    fill = normalise(
        -0.9 * camera.right * np.sign((key * camera.right).sum())
        + 0.25 * camera.up
        - 0.8 * camera.forward
    )

    towards = m.normal @ key
    wrap = np.where(flesh, SKIN_WRAP, 0.05)
    diffuse = np.clip((towards[:, None] + wrap) / (1 + wrap), 0, 1) ** 1.15
    soft = np.stack([shadow**0.75, shadow, shadow**1.1], -1)
    soft = np.where(flesh, soft, shadow[:, None])
    open_sky = sky[:, None] ** np.where(flesh, np.array([0.75, 1.0, 1.1]), 1.0)
    from_fill = np.clip((m.normal @ fill + 0.3) / 1.3, 0, 1)[:, None]
    upward = 0.5 + 0.5 * m.normal[:, 2:3]
    out = m.albedo * (
        key_colour * diffuse * soft
        + fill_colour * from_fill * open_sky**0.7
        + sky_colour * (0.65 + 0.35 * upward) * open_sky
    )

    half = normalise(view + key)
    fresnel = 0.35 + 5.2 * (1 - np.clip((view * half).sum(1), 0, 1)) ** 5
    lobe = np.clip((m.normal * half).sum(1), 0, 1) ** m.gloss * (m.gloss + 8) / 25
    shine = 2 * m.shine * lobe * np.clip(4 * towards, 0, 1) * shadow * fresnel
    half_fill = normalise(view + fill)
    lobe = np.clip((m.normal * half_fill).sum(1), 0, 1) ** m.gloss * (m.gloss + 8) / 25
    out = out + key_colour * shine[:, None] + fill_colour * (0.25 * m.shine * lobe * sky)[:, None]
    facing = np.clip((m.normal * view).sum(1), 0, 1)
    out = out + flesh * (0.035 * (1 - facing) ** 4 * sky)[:, None] * sky_colour

    fibre = np.flatnonzero(np.abs(m.direction).sum(1) > 0)
    if len(fibre):
        across = (m.direction[fibre] * half[fibre]).sum(1)
        band = np.sqrt(np.clip(1 - across**2, 0, 1)) ** 60 * identity.hair.shine * shadow[fibre]
        band = band * np.clip(2 * towards[fibre] + 0.3, 0, 1) * (0.6 + 0.4 * m.streak[fibre])
        band = band * smoothstep(0.15, 0.6, facing[fibre])
        out[fibre] += 0.22 * key_colour * band[:, None]
    return out

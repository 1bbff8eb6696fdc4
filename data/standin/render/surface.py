"""Colour, relief and shine of every surface, at the points that the camera sees."""

from dataclasses import dataclass

import numpy as np

from . import maps as face_maps
from .expressions import top, units_of
from .geometry import normalise, smoothstep
from .hair import strand_direction, strands

# How strongly each family of lines shows: (share from age, share from the action).
LINES = {
    "forehead": (0.80, 1.0),
    "glabella": (0.50, 1.3),
    "crow": (0.75, 0.95),
    "under": (0.75, 0.7),
    "nasolabial": (0.70, 0.85),
    "bunny": (0.10, 1.3),
    "marionette": (0.65, 0.5),
    "perioral": (0.55, 0.2),
    "cheek": (0.55, 0.2),
    "smile": (0.15, 0.7),
    "neck": (0.70, 0.0),
    "chin": (0.2, 0.8),
}
RELIEF = 2.0
PARTS = ("skin", "eyes", "teeth", "tongue", "shirt", "jewel", "hair")


@dataclass
class Fragments:
    """Surface points seen by the camera: arrays of length N (vectors (N, 3))."""

    part: np.ndarray  # index into PARTS
    canonical: np.ndarray
    normal: np.ndarray
    position: np.ndarray
    masks: dict
    axes: np.ndarray  # rotation of the head
    eye_centre: np.ndarray  # canonical centre of the left eye


@dataclass
class Material:
    """What the light needs to know: colour (N, 3), normal (N, 3), shine and its sharpness (N,)."""

    albedo: np.ndarray
    normal: np.ndarray
    shine: np.ndarray
    gloss: np.ndarray
    coverage: np.ndarray
    direction: np.ndarray  # along the hair, zero elsewhere
    streak: np.ndarray


def line_drive(actions):
    """How much the current facial actions deepen each family of lines, 0 to 1."""

    au = {unit: value / top(unit) for unit, value in units_of(actions).items()}
    squint = max(au["AU6"], au["AU7"])
    return {
        "forehead": max(au["AU1"], au["AU2"]),
        "glabella": au["AU4"],
        "crow": squint,
        "under": squint,
        "nasolabial": max(au["AU10"], au["AU9"], au["AU12"], 0.5 * squint),
        "bunny": au["AU9"],
        "marionette": au["AU15"],
        "perioral": max(au["AU24"], au["AU18"]),
        "smile": au["AU12"],
        "cheek": au["AU12"],
        "chin": au["AU17"],
    }


class Surfaces:
    """Shades fragments of an identity; holds the maps and the noise field."""

    def __init__(self, noise):
        self.noise = noise
        self.maps = face_maps.build_maps()

    def shade(self, f, identity, actions):
        """`Material` of the fragments `f`."""
        n = len(f.part)
        m = Material(
            albedo=np.zeros((n, 3), np.float32),
            normal=f.normal.copy(),
            shine=np.zeros(n, np.float32),
            gloss=np.full(n, 20.0, np.float32),
            coverage=np.ones(n, np.float32),
            direction=np.zeros((n, 3), np.float32),
            streak=np.zeros(n, np.float32),
        )
        painters = (
            self._skin,
            self._eyes,
            self._teeth,
            self._tongue,
            self._shirt,
            self._jewel,
            self._hair,
        )
        for index, paint in enumerate(painters):
            k = np.flatnonzero(f.part == index)
            if len(k):
                paint(f, m, k, identity, actions)
        return m

    def _relief(self, identity, actions):
        """Depth of the lines as a map, and its slopes in x and z."""
        drive = line_drive(actions)
        total = 0
        for name, (from_age, from_action) in LINES.items():
            moved = from_action * drive.get(name, 0.0) * (0.7 + 0.3 * identity.age_lines)
            weight = identity.line_strength[name] * (from_age * identity.age_lines + moved)
            if name == "nasolabial":
                weight += 0.12
            if weight > 0.02:
                total = total + weight * self.maps[name]
        across = np.zeros_like(total)
        upward = np.zeros_like(total)
        across[:, 1:-1] = 0.5 * (total[:, 2:] - total[:, :-2])
        upward[1:-1] = -0.5 * (total[2:] - total[:-2])
        return total, across, upward

    def _skin(self, f, m, k, identity, actions):
        c, seed, noise = f.canonical[k], identity.seed, self.noise
        mask = {name: f.masks[name][k] for name in f.masks}
        age = identity.age_lines
        front = smoothstep(0.02, -0.03, c[:, 1])
        x = c[:, 0] + 0.0009 * noise(c, 22.0, 1, seed + 20)
        z = c[:, 2] + 0.0009 * noise(c, 22.0, 1, seed + 21)

        def at(image):
            return face_maps.sample(image, x, z) * front

        depth, across, upward = (at(a) for a in self._relief(identity, actions))
        ex, ez = f.axes[:, 0], f.axes[:, 2]
        pores = 0.03 * (1 + 0.8 * age)
        tilt_x = RELIEF * across + pores * noise(c, 900.0, 1, seed)
        tilt_z = RELIEF * upward + pores * noise(c, 900.0, 1, seed + 1)
        if age > 0.3:
            tilt_z = tilt_z + 0.06 * age * noise(c, (260, 120, 420), 2, seed + 5)
        m.normal[k] = normalise(f.normal[k] + tilt_x[:, None] * ex + tilt_z[:, None] * ez)

        blotch = 0.035 * noise(c, 14.0, 2, seed + 7)
        grain = 0.022 * (1 + 0.7 * age) * noise(c, 160.0, 2, seed + 8)
        a = identity.skin * (1 + blotch + grain)[:, None]
        red = 0.55 * at(self.maps["cheek_colour"]) * (1 + identity.blush)
        red = (red + 0.5 * at(self.maps["nose_colour"]) + 0.5 * mask["ears"]) * identity.flush
        a = a * (1 + red[:, None] * np.array([0.10, -0.07, -0.06]))
        shade = at(self.maps["eye_shade"]) * (0.10 + 0.12 * age) * identity.eye_shade
        a = a * (1 - shade[:, None] * np.array([0.8, 1, 0.9]))
        a = a * (1 - 0.36 * np.clip(depth, 0, 1.2)[:, None] * np.array([0.75, 1, 1.05]))
        if identity.spots:
            spot = smoothstep(1.5, 2.1, noise(c, 130.0, 2, seed + 11)) * 0.28 * identity.spots
            a = a * (1 - spot[:, None] * np.array([0.6, 0.9, 1.1]))
        if identity.beard > 0:
            a = self._beard(a, c, at, mask, identity)

        lip = 0.9 * smoothstep(0.25, 0.75, mask["lips"])
        crease = 1 + 0.10 * noise(c, (900, 200, 120), 1, seed + 13)
        a = _mix(a, identity.lips * crease[:, None], lip)
        inside = smoothstep(0.4, 0.8, mask["inside-mouth"]) * smoothstep(0.3, 0.1, mask["ears"])
        a = _mix(a, np.array([0.16, 0.04, 0.035]), inside)
        if identity.shadow:
            lid = np.maximum(at(self.maps["lid"]), 0) * identity.shadow
            a = _mix(a, identity.shadow_colour, np.clip(lid, 0, 0.7))
        a = self._brows(a, x, z, c, front, identity)
        lash = np.clip(1.15 * identity.lashes * mask["lash"], 0, 0.95)
        a = _mix(a, np.minimum(identity.skin * 0.12, 0.02), lash)
        a = self._scalp(a, c, mask, identity)
        m.albedo[k] = a
        m.shine[k] = (0.05 + 0.10 * lip + 0.02 * at(self.maps["nose_colour"])) * identity.oil
        m.gloss[k] = 14 + 30 * lip

    def _beard(self, a, c, at, mask, identity):
        area = identity.beard * at(self.maps["beard"])
        area = area + 0.95 * identity.moustache * at(self.maps["moustache"])
        area = np.clip(area, 0, 1) * (1 - smoothstep(0.2, 0.6, mask["lips"]))
        fibre = self.noise(c, (700, 300, 260), 2, identity.seed + 12)
        # A light beard is an even shadow, a full one a mass with streaks: never loose specks.
        cover = smoothstep(0.10, 0.75, area) * np.clip(0.55 + 0.45 * area + 0.10 * fibre, 0, 0.93)
        colour = identity.beard_colour * (1 + 0.18 * np.clip(fibre, -1.5, 1.5))[:, None]
        return _mix(a, colour, cover * (0.55 + 0.45 * identity.beard))

    def _brows(self, a, x, z, c, front, identity):
        brow = identity.brow
        drop = brow["lift"] + (np.abs(x) - 0.033) * brow["tilt"]
        area = face_maps.sample(self.maps[brow["map"]], x, z - drop) * front
        slant = np.stack([np.abs(c[:, 0]) + 1.2 * c[:, 2], 0.5 * c[:, 2], 0 * c[:, 0]], -1)
        fibre = self.noise(slant, (750, 300, 1), 2, identity.seed + 14)
        cover = smoothstep(0.10, 0.80, area * brow["width"] * (1 + 0.22 * fibre))
        return _mix(a, brow["colour"], np.clip(cover * brow["strength"], 0, 0.95))

    def _scalp(self, a, c, mask, identity):
        hair = identity.hair
        if hair.style in ("scarf", "bald"):
            return a
        edge = smoothstep(-0.003, 0.012, mask["hair"] + 0.003 * self.noise(c, 300.0, 1, 40))
        cover = 0.88 * edge * (1 - smoothstep(0.3, 0.6, mask["ears"]))
        return _mix(a, hair.colour * 0.9, cover)

    def _eyes(self, f, m, k, identity, actions):
        c = f.canonical[k]
        side = np.where(c[:, :1] < 0, -1.0, 1.0)
        local = c * np.concatenate([side, np.ones_like(side), np.ones_like(side)], 1)
        local = local - f.eye_centre
        r = np.hypot(local[:, 0], local[:, 2])
        angle = np.arctan2(local[:, 2], local[:, 0])
        spokes = np.stack([6 * np.cos(angle), 6 * np.sin(angle), 300 * r], -1)
        iris = identity.iris * (1 + 0.25 * self.noise(spokes, 1.0, 2, identity.seed))[:, None]
        iris = iris * (1 - 0.65 * smoothstep(0.0045, 0.0060, r))[:, None]
        iris = np.where((r < 0.0022 * identity.pupil)[:, None], 0.010, iris)
        rim = smoothstep(0.007, 0.013, r)[:, None] * np.array([0.3, 1, 1])
        white = np.array([0.74, 0.70, 0.66]) * (1 - 0.14 * rim)
        on = smoothstep(0.0062, 0.0055, r) * (local[:, 1] < 0)
        m.albedo[k] = _mix(white, iris, on)
        m.shine[k], m.gloss[k] = 0.55, 350

    def _teeth(self, f, m, k, identity, actions):
        x = np.abs(f.canonical[k][:, 0])
        # Dark gaps between the teeth, wider apart in the middle.
        gap = np.abs((x / 0.0078) - np.round(x / 0.0078)) * 0.0078
        m.albedo[k] = identity.teeth * (1 - 0.35 * np.exp(-((gap / 0.0006) ** 2)))[:, None]
        m.shine[k], m.gloss[k] = 0.12, 60

    def _tongue(self, f, m, k, identity, actions):
        m.albedo[k] = (0.30, 0.09, 0.085)
        m.shine[k], m.gloss[k] = 0.1, 40

    def _shirt(self, f, m, k, identity, actions):
        c, shirt = f.canonical[k], identity.shirt
        weave = 0.05 * self.noise(c, 1500.0, 1, 2)
        height = f.masks["neckline"][k]
        band = 0.15 * smoothstep(-0.020, -0.018, height)
        m.coverage[k] = smoothstep(0.0012, -0.0012, height)
        stripe = shirt["stripes"] * (np.sin(c[:, 2] * 320) > 0.2)
        m.albedo[k] = shirt["colour"] * (1 + weave - band)[:, None] * (1 - stripe)[:, None]
        fold = 0.07 * self.noise(c, (40, 40, 16), 2, identity.seed + 31)
        m.normal[k] = normalise(f.normal[k] + fold[:, None] * f.axes[:, 0])

    def _jewel(self, f, m, k, identity, actions):
        m.albedo[k] = (0.55, 0.40, 0.15)
        m.shine[k], m.gloss[k] = 1.2, 60

    def _hair(self, f, m, k, identity, actions):
        c, hair, n = f.canonical[k], identity.hair, f.normal[k]
        edge = f.masks["edge"][k]
        if hair.style == "scarf":
            weave = 0.05 * self.noise(c, 1300.0, 1, 3)
            m.albedo[k] = hair.colour * (1 + weave)[:, None]
            fold = 0.16 * self.noise(c, (25, 25, 60), 2, identity.seed + 33)
            m.normal[k] = normalise(n + fold[:, None] * f.axes[:, 2])
            m.coverage[k] = smoothstep(0.0, 0.0012, edge)
            return
        streak = strands(c, hair, self.noise, identity.seed)
        contrast = 0.30 if identity.age == "Young" else 0.20
        m.albedo[k] = hair.colour * np.clip(1 + contrast * streak, 0.3, 2)[:, None]
        along = strand_direction(c, n, hair)
        m.normal[k] = normalise(n + np.cross(n, along) * (0.22 * streak)[:, None])
        m.direction[k] = along if hair.flow != "curl" else 0
        m.streak[k] = np.clip(streak, -1, 1)
        ragged = 0.0012 if hair.flow == "curl" else 0.0025
        m.coverage[k] = smoothstep(-0.001, 0.009, edge + ragged * streak)


def _mix(a, b, share):
    """Blend colours a and b (N, 3) by `share` (N,) of b."""
    share = np.asarray(share)[:, None]
    return a * (1 - share) + b * share

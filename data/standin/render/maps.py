"""Maps painted on the front of the canonical face: wrinkles, brows, beard, colour zones.

A map is an image over x in [X_MIN, X_MAX] and z in [Z_MIN, Z_MAX] (metres on the neutral average
face), PIXELS_PER_METRE pixels a metre, first row at the top. Because it is addressed by the
canonical position of a vertex, a line drawn here follows the skin of every identity and
expression.
"""

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates

X_MIN, X_MAX, Z_MIN, Z_MAX = -0.10, 0.10, 0.56, 0.87
PIXELS_PER_METRE = 4000
WIDTH = round((X_MAX - X_MIN) * PIXELS_PER_METRE)
HEIGHT = round((Z_MAX - Z_MIN) * PIXELS_PER_METRE)

# Wrinkles as lines: x in centimetres from the midline, z in metres; (lines, width mm, mirrored).
_FOREHEAD = [
    [(-4.8, 0.768), (-2.5, 0.7715), (0, 0.770), (2.5, 0.7715), (4.8, 0.768)],
    [(-4.6, 0.777), (-2.2, 0.780), (0, 0.7785), (2.2, 0.780), (4.6, 0.777)],
    [(-4.2, 0.786), (-2, 0.7885), (0, 0.787), (2, 0.7885), (4.2, 0.786)],
    [(-3.6, 0.795), (0, 0.796), (3.6, 0.795)],
]
_CROW = [
    [(4.95, 0.7375), (5.6, 0.741), (6.4, 0.746)],
    [(5.0, 0.7355), (5.7, 0.736), (6.5, 0.737)],
    [(4.95, 0.7335), (5.6, 0.731), (6.3, 0.7275)],
    [(4.8, 0.731), (5.3, 0.726), (5.9, 0.720)],
]
_UNDER = [
    [(1.7, 0.7315), (2.4, 0.7255), (3.4, 0.7235), (4.5, 0.728)],
    [(1.75, 0.7285), (2.5, 0.7205), (3.6, 0.7175), (4.9, 0.7225)],
]
_BUNNY = [
    [(-0.8, 0.7435), (0, 0.742), (0.8, 0.7435)],
    [(-0.85, 0.738), (0, 0.7365), (0.85, 0.738)],
    [(0.75, 0.733), (1.15, 0.728), (1.6, 0.7215)],
    [(0.85, 0.728), (1.2, 0.7225), (1.55, 0.716)],
]
_NASOLABIAL = [
    [(1.75, 0.7045), (2.35, 0.697), (2.95, 0.684), (3.35, 0.668), (3.3, 0.657)],
]
_CHEEK = [[(3.9, 0.700), (4.4, 0.688), (4.5, 0.672)], [(4.6, 0.705), (5.0, 0.692), (5.05, 0.676)]]
_NECK = [[(-4.5, 0.603), (0, 0.596), (4.5, 0.603)], [(-4.2, 0.588), (0, 0.580), (4.2, 0.588)]]
_LIPS = [[(x, 0.6835), (0.93 * x, 0.674)] for x in np.linspace(-1.9, 1.9, 11)]
_SMILE = [[(3.75, 0.690), (4.15, 0.680), (4.1, 0.668)]]
WRINKLES = {
    "forehead": (_FOREHEAD, 1.6, False),
    "glabella": (
        [[(0.62, 0.7475), (0.75, 0.757), (0.95, 0.768)], [(0.25, 0.752), (0.28, 0.762)]],
        1.5,
        True,
    ),
    "crow": (_CROW, 1.1, True),
    "under": (_UNDER, 1.5, True),
    "nasolabial": (_NASOLABIAL, 2.4, True),
    "bunny": (_BUNNY, 1.2, True),
    "marionette": ([[(2.65, 0.661), (2.9, 0.652), (2.95, 0.640)]], 1.9, True),
    "perioral": (_LIPS, 0.8, False),
    "cheek": (_CHEEK, 1.6, True),
    "smile": (_SMILE, 1.8, True),
    "neck": (_NECK, 2.2, False),
    "chin": ([[(-1.3, 0.650), (0, 0.6535), (1.3, 0.650)]], 2.0, False),
}
# Upper and lower edge of a brow; the two differ between women and men.
_BROWS = {
    "brow_man": (
        [(0.9, 0.7575), (2.2, 0.7595), (3.6, 0.7605), (4.6, 0.7580), (5.4, 0.7520)],
        [(0.9, 0.7500), (2.2, 0.7518), (3.6, 0.7545), (4.6, 0.7540), (5.4, 0.7505)],
    ),
    "brow_woman": (
        [(1.15, 0.7590), (2.2, 0.7610), (3.6, 0.7622), (4.5, 0.7602), (5.4, 0.7550)],
        [(1.15, 0.7538), (2.2, 0.7562), (3.6, 0.7585), (4.5, 0.7577), (5.4, 0.7543)],
    ),
}


def _pixels(points):
    return [
        ((0.01 * x - X_MIN) * PIXELS_PER_METRE, (Z_MAX - z) * PIXELS_PER_METRE) for x, z in points
    ]


def _curve(points, n=40):
    p = np.array(points, float)
    t = np.r_[0, np.cumsum(np.hypot(np.diff(p[:, 0]), np.diff(p[:, 1] * 100)))]
    at = np.linspace(0, t[-1], n)
    if len(p) == 2:
        return np.stack([np.interp(at, t, p[:, i]) for i in (0, 1)], -1)
    return np.stack([PchipInterpolator(t, p[:, i])(at) for i in (0, 1)], -1)


def _blur(image, pixels):
    return np.asarray(image.filter(ImageFilter.GaussianBlur(pixels)), np.float32) / 255


def line_map(lines, width_mm, mirrored):
    """Tapered, blurred lines with peak 1, as an image (HEIGHT, WIDTH)."""
    total = np.zeros((HEIGHT, WIDTH), np.float32)
    width = width_mm * 1e-3 * PIXELS_PER_METRE
    for line in lines:
        for mirror in (1, -1) if mirrored else (1,):
            image = Image.new("L", (WIDTH, HEIGHT), 0)
            draw = ImageDraw.Draw(image)
            points = _pixels(_curve(line) * [mirror, 1])
            for i, (a, b) in enumerate(pairwise(points)):
                along = np.clip((i + 0.5) / len(points), 0.04, 0.96)
                fill = int(255 * np.sin(np.pi * along) ** 0.5)
                draw.line([a, b], fill=fill, width=max(1, round(0.8 * width)))
            drawn = _blur(image, 0.5 * width)
            total = np.maximum(total, drawn / max(drawn.max(), 1e-6))
    return total


def blob(x_cm, z, radius_x_cm, radius_z_cm, mirrored=True):
    """Gaussian spot(s) of peak 1, as an image (HEIGHT, WIDTH)."""
    rows, cols = np.mgrid[0:HEIGHT, 0:WIDTH]
    x = 100 * (X_MIN + cols / PIXELS_PER_METRE)
    dz = 100 * (Z_MAX - rows / PIXELS_PER_METRE - z)
    out = np.exp(-(((x - x_cm) / radius_x_cm) ** 2) - (dz / radius_z_cm) ** 2)
    if mirrored:
        out = out + np.exp(-(((x + x_cm) / radius_x_cm) ** 2) - (dz / radius_z_cm) ** 2)
    return out.astype(np.float32)


def build_maps():
    """All maps by name, each an image (HEIGHT, WIDTH) of 32-bit floats."""
    maps = {name: line_map(*spec) for name, spec in WRINKLES.items()}
    for name, (upper, lower) in _BROWS.items():
        image = Image.new("L", (WIDTH, HEIGHT), 0)
        draw = ImageDraw.Draw(image)
        outline = np.concatenate([_curve(upper), _curve(lower)[::-1]])
        for mirror in (1, -1):
            draw.polygon(_pixels(outline * [mirror, 1]), fill=255)
        maps[name] = _blur(image, 4)
    maps["cheek_colour"] = blob(4.0, 0.700, 2.0, 1.6)
    maps["nose_colour"] = blob(0, 0.700, 1.4, 1.2, mirrored=False)
    maps["eye_shade"] = blob(3.1, 0.726, 1.7, 0.7)
    maps["lid"] = blob(3.3, 0.7475, 1.75, 0.55)
    maps["moustache"] = blob(0, 0.681, 2.2, 0.75, mirrored=False)
    chin = np.clip(1 - 0.9 * blob(0, 0.662, 2.8, 1.1, mirrored=False), 0, 1)
    beard = 1.3 * blob(0, 0.640, 4.2, 3.2, mirrored=False) + 0.9 * blob(5.5, 0.670, 1.3, 4.0)
    maps["beard"] = np.clip(beard, 0, 1) * chin
    return maps


def sample(image, x, z):
    """Bilinear samples (N,) of a map at canonical x and z (metres, (N,) each)."""
    rows = (Z_MAX - z) * PIXELS_PER_METRE
    cols = (x - X_MIN) * PIXELS_PER_METRE
    return map_coordinates(image, [rows, cols], order=1, mode="nearest")

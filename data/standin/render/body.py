"""The head and shoulders: anny's parametric body, subdivided, cut into parts and masked.

anny (Apache-2.0) carries MakeHuman's CC0 mesh, phenotype and local targets and 52 facial actions
named after ARKit's blend shapes. Only its MakeHuman topology is used here.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

CACHE = Path(os.environ.get("STANDIN_CACHE", Path(__file__).parent / ".cache"))
os.environ.setdefault("WARP_CACHE_PATH", str(CACHE / "warp"))

import anny  # noqa: E402  (the cache folders have to be named first)
import anny.utils.obj_utils as obj_utils  # noqa: E402
import torch  # noqa: E402
from anny.models.model_data import TopologyConfig  # noqa: E402
from anny.paths import get_anny_root_dir, set_anny_cache_path  # noqa: E402

from .geometry import catmull_clark, rotation, smoothstep  # noqa: E402

AVERAGE = dict(gender=0.5, age=2 / 3, african=1 / 3, asian=1 / 3, caucasian=1 / 3)
MASKS = ("lips", "eyelids", "ears", "inside-mouth")


def _hairline(azimuth):
    """Height (metres, canonical) of the hair's lower edge at an azimuth in degrees, 0 in front."""
    return np.interp(
        azimuth,
        [0, 25, 45, 60, 72, 80, 92, 105, 120, 180],
        [0.818, 0.818, 0.806, 0.790, 0.750, 0.722, 0.722, 0.690, 0.672, 0.660],
    )


class Body:
    """Subdivided meshes and masks in the canonical pose, and the posing of an identity."""

    def __init__(self):
        set_anny_cache_path(CACHE / "anny")
        torch.set_num_threads(1)
        topology = TopologyConfig(
            base_mesh="makehuman",
            nudity_edits=False,
            remove_unattached_vertices=False,
            triangulate_faces=False,
        )
        self.model = anny.Anny(
            rig="anny",
            topology=topology,
            local_changes="all",
            facial_actions="all",
            phenotypes="all",
            phenotype_blendshapes="original",
            skinning_method="lbs",
        ).float()
        self.bones = list(self.model.bone_labels)
        with torch.no_grad():
            base = self.model(phenotype_kwargs=AVERAGE)["vertices"][0].numpy()

        groups = self._groups()
        body = groups["body"]
        body = body[base[body][:, :, 2].min(1) > 0.25]  # the head and torso are enough
        eyes = np.concatenate([groups["helper-l-eye"], groups["helper-r-eye"]])
        teeth = np.concatenate([groups["helper-upper-teeth"], groups["helper-lower-teeth"]])
        parts = {"skin": body, "eyes": eyes, "teeth": teeth, "tongue": groups["helper-tongue"]}
        quads = np.concatenate(list(parts.values()))
        owner = np.repeat(np.arange(len(parts)), [4 * len(p) for p in parts.values()])
        fine, self.subdivide = catmull_clark(quads, len(base))
        self.quads = {name: fine[owner == i] for i, name in enumerate(parts)}
        self.canonical = (self.subdivide @ base).astype(np.float32)

        self.masks = {name: self._uv_mask(name) for name in MASKS}
        self.masks["lash"] = self._lash_mask(base, groups)
        c = self.canonical
        self.azimuth = np.degrees(np.arctan2(np.abs(c[:, 0]), -(c[:, 1] + 0.045)))
        ears = 0.06 * smoothstep(0.3, 0.7, self.masks["ears"])
        self.hair_field = c[:, 2] - _hairline(self.azimuth) - ears
        eyes = c[np.unique(self.quads["eyes"])]
        self.eyeballs = np.unique(self.quads["eyes"])
        self.eye_centre = eyes[eyes[:, 0] > 0].mean(0)  # of the left eye; the right one mirrors it
        teeth = np.unique(self.quads["teeth"])
        self.teeth = teeth
        upper = len(groups["helper-upper-teeth"])
        self.upper_teeth = np.unique(self.quads["teeth"][: 4 * upper])
        self.head_vertices = np.unique(
            self.quads["skin"][(c[self.quads["skin"]][..., 2] > 0.64).all(1)]
        )
        skin = np.unique(self.quads["skin"])
        self.chest_vertices = skin[
            (c[skin, 2] < 0.56) & (c[skin, 2] > 0.42) & (np.abs(c[skin, 0]) < 0.16)
        ]

    @staticmethod
    def _groups():
        path = os.path.join(get_anny_root_dir(), "data/mpfb2/3dobjs/base.obj")
        _, _, groups = obj_utils.load_obj_file(path, dtype=torch.float64)
        return {k: np.asarray(g["face_vertex_indices"]) for k, g in groups.items()}

    def _uv_mask(self, name):
        """A MakeHuman texture mask, read at the vertices and subdivided: (V,) in 0..1."""
        faces = self.model.faces.numpy()
        corner_uv = self.model.texture_coordinates.numpy()[
            self.model.face_texture_coordinate_indices.numpy()
        ]
        uv = np.zeros((self.subdivide.shape[1], 2))
        uv[faces.ravel()] = corner_uv.reshape(-1, 2)
        path = os.path.join(get_anny_root_dir(), f"data/mpfb2/textures/mpfb_{name}.jpg")
        image = np.asarray(Image.open(path).convert("L"), np.float32) / 255
        height, width = image.shape
        cols = np.clip(uv[:, 0] * width, 0, width - 1).astype(int)
        rows = np.clip((1 - uv[:, 1]) * height, 0, height - 1).astype(int)
        return (self.subdivide @ image[rows, cols]).astype(np.float32)

    def _lash_mask(self, base, groups):
        """Nearness (V,) to the root line of the lashes, the upper lid counting more."""
        out = np.zeros(len(self.canonical), np.float32)
        for name, weight in (("1", 0.45), ("2", 1.0)):
            for side in "lr":
                strip = base[np.unique(groups[f"helper-{side}-eyelashes-{name}"])]
                near = np.abs(self.canonical - strip.mean(0)).max(1) < 0.03
                d = np.linalg.norm(self.canonical[near][:, None] - strip[None], axis=-1).min(1)
                out[near] = np.maximum(out[near], weight * np.exp(-((d / 0.0022) ** 2)))
        return out

    def _fit_inside(self, vertices, actions, axes):
        """Place teeth and eyeballs (in `vertices`, changed in place) so that nothing pokes out."""
        left, back, up = axes.T
        # Narrow the dental arches, clear of the corners of the lips; show the upper teeth when
        # the lips part.
        teeth = vertices[self.teeth]
        aside = (teeth - teeth.mean(0)) @ left
        vertices[self.teeth] = teeth - 0.32 * aside[:, None] * left + 0.0015 * back
        parted = np.clip(self._parted(actions), 0, 1)
        vertices[self.upper_teeth] -= parted * (0.0035 * up + 0.0015 * back)
        # A closing lid is thin: the eyeball recedes so that it never shows through.
        blink = 0.5 * (actions.get("eyeBlinkLeft", 0) + actions.get("eyeBlinkRight", 0))
        vertices[self.eyeballs] += 0.0035 * blink * back

    @staticmethod
    def _parted(actions):
        """About how far the lips are parted, 0 to 1 or more."""
        parts = {"jawOpen": 2.5, "mouthUpperUpLeft": 0.5, "mouthSmileLeft": 0.4}
        parts |= {"mouthLowerDownLeft": 0.5, "mouthClose": -2.0}
        return sum(weight * actions.get(part, 0) for part, weight in parts.items())

    def posed(self, identity, actions, shot):
        """Vertices (V, 3) of an identity with facial actions in a shot's pose, and the head bone.

        `identity` gives `phenotype` and `local`, `actions` maps facial actions to weights, `shot`
        gives `yaw`, `pitch`, `roll` and `gaze` in degrees. The head bone is a (4, 4) transform.
        """
        pose = {}

        def turn(bone, matrix):
            m = torch.eye(4)[None].clone()
            m[0, :3, :3] = torch.tensor(matrix, dtype=torch.float32)
            pose[bone] = m

        for bone, share in (("neck02", 0.35), ("head", 0.65)):
            turn(
                bone,
                rotation("z", shot.yaw * share)
                @ rotation("x", shot.pitch * share)
                @ rotation("y", shot.roll * share),
            )
        for side, sign in (("L", 1), ("R", -1)):
            turn(f"upperarm01.{side}", rotation("y", 38 * sign))
            turn(f"eye.{side}", rotation("z", shot.gaze[0]) @ rotation("x", shot.gaze[1]))
        with torch.no_grad():
            out = self.model(
                pose_parameters=pose,
                phenotype_kwargs=identity.phenotype,
                local_changes_kwargs=identity.local,
                facial_actions=actions,
            )
        coarse = out["vertices"][0].numpy().astype(np.float32)
        vertices = (self.subdivide @ coarse).astype(np.float32)
        head = out["bone_poses"][0][self.bones.index("head")].numpy()
        self._fit_inside(vertices, actions, shot.head_axes())
        return vertices, head

"""What is inside the networks: layers that are alike, and where on the face they look."""

from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from helpers import inside
from helpers.faces import plain_view
from helpers.files import ROOT, read_csv
from helpers.inside import REGIONS, cka, look, region_masks, region_shares, spread, unit_gram
from helpers.models import build_student, build_teacher, caught, decision_logits, head_logits
from helpers.robustness import read_landmarks
from helpers.runs import Run, kept, load_runs
from helpers.stats import identity_weights

SIZE = 64
POINTS = "44 50 84 50 64 78 50 100 78 100"
RESULTS = ROOT / "results/standin"


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    built = {name: build_teacher(name, "scratch", SIZE)[0] for name in ("resnet50", "swin")}
    built["deit"] = build_student("deit_tiny", "scratch", SIZE)[0]
    for model in built.values():
        for parameter in model.parameters():  # heads start at 0, or nearly
            if parameter.ndim < 3:
                parameter.data += 0.05 * torch.randn_like(parameter)
        model.eval().requires_grad_(False)
    built["resnet50"].fc.weight.abs_()  # else nothing may speak for pain
    return built


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, 3, 70, 70), generator=generator, dtype=torch.uint8)


def features(seed, faces=24, count=40):
    return torch.from_numpy(np.random.default_rng(seed).normal(1, 1, (faces, count))).float()


def likeness(first, second):
    return cka(unit_gram(first), unit_gram(second))


def test_cka_is_the_estimator_written_out():
    """Song et al. 2012, equation 5, with explicit sums off the diagonal."""

    def hsic(k, m):
        n, one = len(k), np.ones(len(k))
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        last = 2 * one @ k @ m @ one / (n - 2)
        sums = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (np.trace(k @ m) + sums - last) / (n * (n - 3))

    first = features(0)
    second = 0.5 * first[:, :30] + features(1, count=30)
    k, m = (np.asarray(x @ x.T, float) for x in (first - first.mean(0), second - second.mean(0)))
    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert likeness(first, second) == pytest.approx(expected, abs=1e-5)


def test_cka_does_not_see_rotation_scale_and_shift_and_knows_when_there_is_nothing():
    x = features(0)
    rotation = torch.linalg.qr(features(2, 40, 40))[0]
    assert likeness(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-5)
    assert likeness(x, x * torch.linspace(0, 9, 40)) < 0.99
    assert np.isnan(likeness(torch.ones(24, 3), x))
    assert np.isnan(likeness(features(0, 3), features(1, 3)))
    values = [likeness(*(features(2 * i + j, 12, 500) for j in (0, 1))) for i in range(60)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(60)


@pytest.mark.parametrize("name", ["resnet50", "swin"])
def test_a_teachers_map_is_that_of_its_linear_head(models, images, name):
    """The head averages the cells, so each cell's part in the logit is its features · weights."""
    model = models[name]
    seen = model.forward_features(plain_view(images, SIZE))
    weights = model.fc.weight if name == "resnet50" else model.head.fc.weight
    seen = seen.permute(0, 2, 3, 1) if name == "resnet50" else seen
    expected = (seen @ weights[0]).relu() / 4
    found = list(look(model, images, SIZE, "class"))
    assert expected.max() > 0
    assert set(found[0][1]) == {"grad_cam"}
    np.testing.assert_allclose(found[0][1]["grad_cam"], expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("heads", ["class", "both"])
def test_grad_cam_of_a_student_is_that_of_its_decision(models, images, heads):
    """A finite difference: moving all 16 patches along one patch's features moves the logit."""
    model, norm = models["deit"], models["deit"].blocks[-1].norm1
    (found,) = look(model, images, SIZE, heads)
    pixels = plain_view(images, SIZE)
    with caught(norm) as outputs:
        head_logits(model, pixels)
    for patch in (0, 5):
        push, moved = outputs[0][:, 2 + patch, None] * (torch.arange(18) > 1)[:, None] * 1e-2, []
        for side in (push, -push):
            hook = norm.register_forward_hook(lambda _, __, output, side=side: output + side)
            moved.append(decision_logits(head_logits(model, pixels), heads))
            hook.remove()
        slope = (moved[0] - moved[1]) / 2e-2 / 16
        cell = found[1]["grad_cam"].reshape(4, 16)[:, patch]
        np.testing.assert_allclose(cell, slope.relu(), atol=1e-4, rtol=0.02)


def test_rollout_follows_the_attention_of_queries_and_keys(models, images):
    model = models["deit"]
    with ExitStack() as stack:
        norms = [stack.enter_context(caught(block.norm1)) for block in model.blocks]
        head_logits(model, plain_view(images, SIZE))
    total = torch.eye(18)
    for block, tokens in zip(model.blocks, norms, strict=True):
        query, key, _ = block.attn.qkv(tokens[0]).reshape(4, 18, 3, 3, 64).permute(2, 0, 3, 1, 4)
        step = (query @ key.transpose(-2, -1) / 8).softmax(dim=-1).mean(dim=1)
        total = (step + torch.eye(18)) / 2 @ total
    for heads, rows in {"class": [0], "both": [0, 1], "distillation": [1]}.items():
        (found,) = look(model, images, SIZE, heads)
        expected = total[:, rows, 2:].mean(dim=1).unflatten(1, (4, 4))
        expected = expected / expected.sum((1, 2), keepdim=True)
        np.testing.assert_allclose(found[1]["rollout"], expected, atol=1e-5)


def test_a_cell_lies_over_the_pixels_that_it_is_made_of(models):
    """A ResNet's where the gradient's energy is, not where stretching the map puts it (112)."""
    assert spread("swin", 2, SIZE)[:, 1].argmax() in (47, 48)
    assert abs(spread("deit", 4, SIZE)[:, 1].argmax() - 24) <= 1
    pixels = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    pixels.requires_grad_()
    with caught(models["resnet50"].layer4) as outputs:
        models["resnet50"](pixels)
    outputs[0][0, :, 2, 3].square().sum().backward()
    energy = pixels.grad[0].square().sum((0, 1))
    centre = (energy * (torch.arange(160) + 0.5)).sum() / energy.sum()
    strongest = spread("resnet", 5, 160)[:, 3].argmax() + 0.5
    assert centre.item() == pytest.approx(strongest, abs=5)


def masks_of(landmarks=POINTS):
    rows = pd.DataFrame({"image_id": ["a"], "landmarks": [landmarks], "width": [128]})
    return region_masks(read_landmarks(rows), SIZE)[0]


def test_regions_lie_where_they_should_follow_the_face_and_never_overlap():
    masks = masks_of()
    # in units of the input: the eyes' distance is 20, their middle (32, 25)
    where = {"brow": (17, 32), "eyes": (25, 22), "nose": (36, 32), "mouth": (50, 32)}
    for region, (y, x) in where.items():
        assert masks[REGIONS.index(region), y, x], region
    assert masks[0].sum() == pytest.approx(1.7 * 20 * 0.45 * 20, rel=0.06)
    turned = masks_of("78 44 78 84 50 64 28 50 28 78")  # a quarter to the right
    assert (np.rot90(masks, -1, axes=(1, 2)) != turned).mean() < 0.01
    for some in (masks, masks_of("56 50 72 50 78 74 60 76 74 76")):  # a turned head
        assert some.sum(axis=0).max() == 1
        assert some.any(axis=(1, 2)).all()


def test_shares_sum_to_one_a_flat_map_is_chance_and_a_blank_one_has_no_place():
    masks, line = masks_of()[None].repeat(3, axis=0), np.eye(SIZE, dtype=np.float32)
    maps = np.ones((3, SIZE, SIZE), np.float32)
    maps[1], maps[2] = masks[1, 3], 0
    table = region_shares(maps, masks, line)
    table = table.assign(face=np.repeat([0, 1, 2], 5)).set_index(["face", "region"])
    assert list(table.loc[0].index) == [*REGIONS, "elsewhere"]
    np.testing.assert_allclose(table.loc[0, "share"], table.loc[0, "chance"], atol=1e-6)
    assert table.loc[(1, "mouth"), ["share", "most"]].tolist() == pytest.approx([1, 1])
    assert table.loc[2, "share"].isna().all()


def made_shares(blank=0):
    """Ten faces, `blank` of them without a map; the mouth gets its area, in seed 1 four times."""
    places = [range(10), (0, 1), ("mouth", "eyes")]
    table = pd.MultiIndex.from_product(places, names=["face", "seed", "region"]).to_frame(False)
    face, seed = table["face"], table["seed"]
    table["share"] = (0.1 * 4.0**seed).where(table["region"] == "mouth", 0.02 * face)
    table["image_id"] = table["identity"] = "p" + face.astype(str)
    table.loc[face < blank, "share"] = np.nan
    return table.assign(arm="swin", method="grad_cam", chance=0.1, most=0.6)


def test_a_ratio_has_the_interval_of_its_logarithm_and_no_end_below_zero():
    found = inside.region_ratios(made_shares(), 300, 7)
    lucky, eyes = (found["grad_cam", "swin", name] for name in ("mouth", "eyes"))
    assert [lucky.value, *lucky.seeds] == pytest.approx([2, 1, 4])
    assert 0 < lucky.low < 1 < lucky.high == pytest.approx(6)  # the most that such maps can have
    counts = identity_weights([f"p{i}" for i in range(10)], 300, 7).astype(int)
    again = [np.repeat(np.arange(10) * 0.02, count).mean() / 0.1 for count in counts]
    assert [eyes.low, eyes.high] == pytest.approx(np.quantile(again, [0.025, 0.975]), rel=1e-2)
    few = inside.region_ratios(made_shares(blank=6), 50, 0)
    assert np.isnan([ratio.low for ratio in few.values()]).all()


def test_the_committed_table_comes_out_again_and_its_intervals_stay_above_zero():
    faces = kept(RESULTS / "runs/kept/attribution_faces.csv.gz", load_runs(RESULTS / "runs"), None)
    found, committed = inside.attribution_table(faces), read_csv(RESULTS / "attribution.csv")
    pd.testing.assert_frame_equal(found, committed, rtol=0, atol=1e-9)
    for ratio in inside.region_ratios(faces, 200, 0).values():
        assert 0 < ratio.low < ratio.value < ratio.high


@pytest.fixture(scope="module")
def runs(models, tmp_path_factory):
    made = []
    for arm in ("resnet50", "swin", "deit_tiny-none", "deit_tiny-swin"):
        folder, stage = tmp_path_factory.mktemp(arm), "student" if "-" in arm else "teacher"
        save_file(models["deit" if "-" in arm else arm].state_dict(), folder / "model.safetensors")
        chosen = {"seed": 0, "image_size": SIZE, "amp": False, stage: arm.partition("-")[0]}
        chosen["distillation"] = "hard" if arm == "deit_tiny-swin" else "none"
        params = {"stage": stage, "name": arm, "parameters": chosen}
        made.append(Run(folder, params, pd.DataFrame(), pd.DataFrame(), {}))
    return made


def test_runs_are_asked_on_detected_pain_faces_and_compared_by_layers(
    models, runs, crops_dir, tmp_path, monkeypatch
):
    table = read_csv(crops_dir / "manifest.csv")
    table["path"] = [str(crops_dir / path) for path in table["path"]]
    table["landmarks"] = " ".join(f"{float(x) * 40 / 128:g}" for x in POINTS.split())
    pain = table.query("split == 'test' and label == 'Pain'")
    table.loc[pain.index[0], "landmarks"] = None  # it was not detected
    table.to_csv(tmp_path / "manifest.csv", index=False)
    monkeypatch.setattr(inside, "MOST_FACES", 4)  # of CKA; every Pain face still has its maps
    likeness, faces = inside.look_inside(runs, tmp_path, "cpu")
    store, _, rows, masks = inside.faces_to_ask(tmp_path, SIZE)
    ((_, alone),) = look(models["deit"], store.images[rows], SIZE, "both")
    alone = region_shares(alone["rollout"], masks, spread("deit", 4, SIZE))["share"]
    shares = faces.query("arm == 'deit_tiny-swin' and method == 'rollout'")["share"]
    assert shares.tolist() == pytest.approx(alone.tolist(), abs=1e-5)
    assert set(faces["image_id"]) == set(pain["image_id"][1:])
    methods = faces.groupby("arm")["method"].unique().map(list)
    assert methods[["swin", "deit_tiny-none"]].tolist() == [["grad_cam"], ["grad_cam", "rollout"]]
    known = faces.dropna()
    assert (known["share"] <= known["most"] + 1e-5).all()
    sums = known.groupby(["image_id", "arm", "method"])["share"].sum()
    assert sums.tolist() == pytest.approx([1] * len(sums), abs=1e-5)
    # A student that decides by both heads is asked by both; its weights are the other's.
    assert known.query("method == 'rollout' and region == 'mouth'")["share"].nunique() > 1
    pairs = set(zip(likeness["first_arm"], likeness["second_arm"], strict=True))
    assert ("deit_tiny-none", "resnet50") in pairs
    assert len(pairs) == 6
    twins = likeness.query("second_arm == 'deit_tiny-swin' and first_layer == second_layer")
    assert twins["cka"].tolist() == pytest.approx([1, 1, 1, 1], abs=1e-5)
    pixels = inside.pixel_maps(runs[3], torch.zeros(2, 3, 70, 70), "cpu")["rollout"]
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), 1, rtol=1e-5)

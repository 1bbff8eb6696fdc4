"""What is inside the networks: CKA, Grad-CAM, attention rollout, regions of a face."""

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from made_runs import make_runs
from safetensors.torch import save_file

from helpers.bootstrap import Estimate, identity_weights
from helpers.errors import StudyError
from helpers.evaluation.compare import load_runs, make_panel
from helpers.evaluation.tables import evaluate
from helpers.inside import cka as cka_module
from helpers.inside import plots as inside_plots
from helpers.inside import readings as inside_readings
from helpers.inside import section as inside
from helpers.inside.attribution import (
    Attribution,
    attribute,
    attribution_ratios,
    attribution_table,
    examples,
)
from helpers.inside.cka import cka, cka_table, layer_grams
from helpers.inside.regions import ELSEWHERE, REGIONS, read_landmarks, region_masks, region_shares
from helpers.inside.saliency import attentions, cell_maps, grad_cam, rollout, saliency
from helpers.networks.layers import caught
from helpers.networks.models import build_student, build_teacher, decision_logits, head_logits
from helpers.training.augment import plain_view
from helpers.training.runs import Run

mpl.use("Agg")
SIZE = 64
POINTS = "44 50 84 50 64 78 50 100 78 100"
ARMS = ("resnet50", "swin", "deit_tiny-none", "deit_tiny-swin")


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    built = {name: build_teacher(name, "scratch", SIZE)[0] for name in ("resnet50", "swin")}
    built["deit"] = build_student("deit_tiny", "scratch", SIZE)[0]
    for model in built.values():
        for parameter in model.parameters():  # heads start at 0, or nearly
            if parameter.ndim < 3:
                parameter.data += 0.05 * torch.randn_like(parameter)
        model.eval()
    built["resnet50"].fc.weight.data.abs_()  # else nothing may speak for pain
    return built


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (6, 3, 70, 70), generator=generator, dtype=torch.uint8)


def features(seed, faces=24, count=40):
    return np.random.default_rng(seed).normal(1, 1, (faces, count))


def gram(x):
    return x @ x.T


def test_cka_is_the_estimator_written_out():
    """Song et al. 2012, equation 5, with explicit loops over the off-diagonal sums."""

    def hsic(k, m):
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        one = np.ones(n)
        last = 2 * one @ k @ m @ one / (n - 2)
        sums = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (np.trace(k @ m) + sums - last) / (n * (n - 3))

    first = features(0)
    second = 0.5 * first[:, :30] + features(1, count=30)
    centred = [x - x.mean(axis=0) for x in (first, second)]
    k, m = map(gram, centred)
    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert 0.1 < expected < 0.9
    assert cka(gram(first), gram(second)) == pytest.approx(expected, abs=1e-12)


def test_cka_does_not_see_rotation_scale_and_shift():
    x = features(0)
    rotation = np.linalg.qr(features(2, 40, 40))[0]
    assert cka(gram(x), gram(3 * x @ rotation + 5)) == pytest.approx(1, abs=1e-10)
    assert cka(gram(x), gram(x * np.linspace(0, 9, 40))) < 0.99


def test_cka_of_unrelated_layers_is_zero_on_average_though_features_outnumber_faces():
    values = [cka(*(gram(features(2 * i + j, 12, 500)) for j in (0, 1))) for i in range(60)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(60)
    assert np.std(values) < 0.2


def test_cka_asks_for_enough_faces_and_says_when_there_is_nothing_to_compare():
    with pytest.raises(StudyError, match="at least 4 faces, not 3"):
        cka(np.eye(3), np.eye(3))
    with pytest.raises(StudyError, match="same faces"):
        cka(np.eye(5), np.eye(6))
    assert np.isnan(cka(np.ones((5, 5)), gram(features(0, 5))))


@pytest.mark.parametrize("name", ["resnet50", "swin", "deit"])
def test_gram_matrices_are_those_of_the_networks_own_features(models, images, name):
    model = models[name]
    grams = layer_grams(model, images, SIZE)
    last = model.blocks[-1] if name == "deit" else getattr(model, "layer4", None) or model.layers[3]
    with caught(last) as outputs, torch.no_grad():
        model(plain_view(images, SIZE))
    x = outputs[0].flatten(1).double().numpy()
    assert len(grams) == (5 if name == "resnet50" else 4)
    scale = np.abs(gram(x - x.mean(0))).max()
    np.testing.assert_allclose(list(grams.values())[-1], gram(x - x.mean(0)), atol=1e-4 * scale)


def test_layers_share_a_pass_only_as_memory_allows(models, images, monkeypatch):
    together = layer_grams(models["swin"], images, SIZE)
    passes, say = [], cka_module._features
    monkeypatch.setattr(cka_module, "_features", lambda *a: passes.append(list(a[1])) or say(*a))
    monkeypatch.setattr(cka_module, "_MEMORY", 0)
    alone = layer_grams(models["swin"], images, SIZE)
    assert passes[1:] == [[name] for name in together]
    for name, gram_alone in alone.items():
        np.testing.assert_array_equal(gram_alone, together[name])
    assert cka_module._groups({"a": 3, "b": 1, "c": 1}) == [["a"], ["b"], ["c"]]
    monkeypatch.setattr(cka_module, "_MEMORY", 16)  # four features
    assert cka_module._groups({"a": 3, "b": 1, "c": 1, "d": 9}) == [["a", "b"], ["c"], ["d"]]


@pytest.mark.parametrize("name", ["resnet50", "swin"])
def test_a_teachers_map_before_the_relu_sums_to_its_logit_less_the_bias(models, images, name):
    model, pixels = models[name], plain_view(images, SIZE)
    maps = grad_cam(model, pixels, distilled=False, relu=False).detach()
    bias = model.fc.bias if name == "resnet50" else model.head.fc.bias
    with torch.no_grad():
        expected = head_logits(model, pixels)[:, 0] - bias
    torch.testing.assert_close(maps.sum((1, 2)), expected, atol=1e-4, rtol=1e-3)
    assert maps.shape == (6, 2, 2)


def test_grad_cam_of_a_student_is_its_decisions(models, images):
    """A finite difference: moving the patches' features along their mean moves the logit."""
    model, pixels = models["deit"], plain_view(images[:2], SIZE)
    both, alone = (grad_cam(model, pixels, distilled, relu=False) for distilled in (True, False))
    assert not torch.allclose(both, alone)
    step = 1e-2

    def push(_, __, output):
        features = output[:, 2:].detach()
        moved = output.clone()
        moved[:, 2:] += sign * step * features.sum(1, keepdim=True) / features.shape[1]
        return moved

    moved = {}
    for sign in (1, -1):
        hook = model.blocks[-1].norm1.register_forward_hook(push)
        with torch.no_grad():
            moved[sign] = decision_logits(head_logits(model, pixels), distilled=True)
        hook.remove()
    slope = (moved[1] - moved[-1]) / (2 * step)
    torch.testing.assert_close(both.sum((1, 2)), slope, atol=1e-3, rtol=0.02)


def test_attention_is_what_timm_computes_when_it_is_not_fused(models, images):
    model, pixels = models["deit"], plain_view(images, SIZE)
    ours = attentions(model, pixels)
    for block in model.blocks:
        block.attn.fused_attn = False
    hooks, theirs = [], []
    for block in model.blocks:
        drop = block.attn.attn_drop
        hooks.append(drop.register_forward_hook(lambda _, __, output: theirs.append(output)))
    with torch.no_grad():
        model(pixels)
    for hook in hooks:
        hook.remove()
    assert len(ours) == len(theirs) == 12
    for mine, timms in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, timms, atol=1e-6, rtol=1e-5)


def test_rollout_of_two_blocks_by_hand(models, images, monkeypatch):
    """Class, distillation and 16 patches; in the first block patch 3 attends to patch 0."""
    first, second = torch.eye(18)[None], torch.eye(18)[None]
    first[0, 5] = torch.eye(18)[2]
    second[0, 0], second[0, 1] = torch.eye(18)[5], torch.eye(18)[7]
    layers = [layer[None].expand(1, 3, -1, -1) for layer in (first, second)]
    monkeypatch.setattr("helpers.inside.saliency.attentions", lambda *_: layers)
    alone = rollout(models["deit"], None, distilled=False).flatten()
    assert alone.nonzero().flatten().tolist() == [0, 3]
    assert alone[[0, 3]].tolist() == [0.5, 0.5]
    both = rollout(models["deit"], None, distilled=True).flatten()
    # The class token has 1/4 from patch 0 and from patch 3, the distillation token 1/2 from 5.
    assert both[[0, 3, 5]].tolist() == [0.25, 0.25, 0.5]


@pytest.mark.parametrize("name", ["resnet50", "swin", "deit"])
def test_maps_are_shares(models, images, name):
    maps = saliency(models[name], images, SIZE)
    known = maps[np.isfinite(maps).all(axis=(1, 2))]
    assert maps.shape == (6, SIZE, SIZE)
    assert maps.dtype == np.float32
    assert len(known) > 0
    assert (known >= 0).all()
    np.testing.assert_allclose(known.sum(axis=(1, 2)), 1, atol=1e-5)


def test_a_map_of_nothing_has_no_place(models, images, monkeypatch):
    monkeypatch.setattr(
        "helpers.inside.saliency.grad_cam", lambda m, x, d: torch.zeros(len(x), 2, 2)
    )
    assert np.isnan(saliency(models["swin"], images, SIZE)).all()


def test_methods_that_a_network_cannot_answer_are_one_sentence(models, images):
    with pytest.raises(StudyError, match="rollout needs a DeiT"):
        saliency(models["swin"], images, SIZE, "rollout")
    with pytest.raises(StudyError, match="Unknown method 'lime'"):
        saliency(models["deit"], images, SIZE, "lime")
    with pytest.raises(StudyError, match="neither a ResNet, a Swin nor a DeiT"):
        saliency(torch.nn.Linear(1, 1), images, SIZE)


@pytest.mark.parametrize(("name", "cell"), [("swin", (32, 48)), ("deit", (16, 24))])
def test_a_cell_lies_over_the_pixels_that_it_is_made_of(models, name, cell):
    """The second cell of the top row is strongest at its own middle."""
    strip = cell_maps(models[name], SIZE)[1].sum(axis=0)
    assert abs(int(strip.argmax()) - cell[1]) <= 1 or strip[cell[1]] == strip.max()
    assert strip[0] == 0


def test_a_resnets_cell_is_centred_where_its_receptive_field_is(models):
    """The middle of the gradient's energy, and not where stretching the map would put it (112)."""
    model = models["resnet50"]
    pixels = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    pixels.requires_grad_()
    with caught(model.layer4) as outputs:
        model(pixels)
    outputs[0][0, :, 2, 3].square().sum().backward()
    energy = pixels.grad[0].square().sum((0, 1))
    centre = (energy * (torch.arange(160) + 0.5)).sum() / energy.sum()
    strongest = cell_maps(model, 160)[2 * 5 + 3].sum(axis=0).argmax() + 0.5
    assert strongest == 96.5
    assert centre.item() == pytest.approx(strongest, abs=5)


def manifest(**changes):
    row = {"image_id": "a", "detected": True, "landmarks": POINTS, "width": 128} | changes
    return pd.DataFrame([row])


def test_landmarks_are_scaled_and_missing_ones_are_not_made_up():
    points = read_landmarks(manifest(), SIZE)
    np.testing.assert_allclose(points[0], np.array(POINTS.split(), float).reshape(5, 2) / 2)
    assert np.isnan(read_landmarks(manifest(detected=False, landmarks=None), SIZE)).all()
    with pytest.raises(StudyError, match="has not five landmarks"):
        read_landmarks(manifest(landmarks="1 2 3"), SIZE)
    with pytest.raises(StudyError, match="lacks the column landmarks"):
        read_landmarks(manifest().drop(columns="landmarks"), SIZE)


def test_regions_lie_where_they_should_and_never_overlap():
    points = read_landmarks(manifest(), SIZE)
    masks = region_masks(points, SIZE)[0]
    assert masks.sum(axis=0).max() == 1
    # in units of the input: the eyes' distance is 20, their middle (32, 25)
    where = {"brow": (17, 32), "eyes": (25, 22), "nose": (36, 32), "mouth": (50, 32)}
    for region, (y, x) in where.items():
        assert masks[REGIONS.index(region), y, x], region
    assert masks[0].sum() == pytest.approx(1.7 * 20 * 0.45 * 20, rel=0.06)
    assert not masks[:, :10].any()


def test_a_turned_head_brings_points_together_and_no_pixel_counts_twice():
    points = read_landmarks(manifest(landmarks="56 50 72 50 78 74 60 76 74 76"), SIZE)
    masks = region_masks(points, SIZE)[0]
    assert masks.sum(axis=0).max() == 1
    assert masks.any(axis=(1, 2)).all()


def test_regions_follow_the_face():
    points = read_landmarks(manifest(), SIZE)
    moved = region_masks(points + np.array([4, -3]), SIZE)[0]
    np.testing.assert_array_equal(np.roll(region_masks(points, SIZE)[0], (-3, 4), (1, 2)), moved)
    turned = points[..., ::-1] * [-1, 1] + np.array([SIZE, 0])  # a quarter to the right
    expected = np.rot90(region_masks(points, SIZE)[0], -1, axes=(1, 2))
    assert (region_masks(turned, SIZE)[0] != expected).mean() < 0.01


def test_a_face_without_landmarks_has_no_regions():
    assert not region_masks(np.full((1, 5, 2), np.nan), SIZE).any()


def test_shares_sum_to_one_and_a_flat_map_is_chance():
    masks = region_masks(read_landmarks(manifest(), SIZE), SIZE).repeat(2, axis=0)
    maps = np.full((2, SIZE, SIZE), 1 / SIZE**2)
    maps[1] = masks[1, 3] / masks[1, 3].sum()
    table = region_shares(maps, masks).set_index(["face", "region"])
    assert list(table.loc[0].index) == [*REGIONS, ELSEWHERE]
    np.testing.assert_allclose(table.loc[0, "share"], table.loc[0, "chance"])
    assert table.loc[(1, "mouth"), "share"] == pytest.approx(1)
    np.testing.assert_allclose(table.groupby("face")[["share", "chance"]].sum(), 1)
    with pytest.raises(StudyError, match="different faces or sizes"):
        region_shares(maps[:1], masks)


def made_attribution(blank=()):
    """Ten faces; arm a puts twice the mouth's area there, arm b in seed 1 three times."""
    rows = [
        (f"f{i}", f"p{i}", arm, seed, "grad_cam", region, share, 0.1, 0.4)
        for arm, factors in (("swin", (2, 2)), ("deit_tiny-swin", (1, 3)))
        for seed, factor in enumerate(factors)
        for i in range(10)
        for region, value in (("mouth", 0.1 * factor), ("eyes", 0.1))
        for share in [np.nan if (arm, i) in blank else value]
    ]
    columns = "image_id identity arm seed method region share chance most".split()
    return Attribution(pd.DataFrame(rows, columns=columns), 1)


def test_the_table_is_the_mean_over_the_faces_that_have_a_map():
    table = attribution_table(made_attribution(blank={("swin", 0), ("swin", 4)}))
    mouth = table[table["region"] == "mouth"].set_index(["arm", "seed"])
    np.testing.assert_allclose(mouth["ratio"], [2, 2, 1, 3])
    assert list(mouth["faces"]) == [8, 8, 10, 10]
    assert list(mouth["blank"]) == [2, 2, 0, 0]


def test_ratios_carry_the_luck_of_training():
    ratios = attribution_ratios(made_attribution(), 50, 0)
    steady, lucky = (ratios["grad_cam", arm, "mouth"] for arm in ("swin", "deit_tiny-swin"))
    assert (steady.value, lucky.value) == (pytest.approx(2), pytest.approx(2))
    assert steady.high - steady.low < 1e-9
    assert lucky.low < 1 < 3 < lucky.high
    few = made_attribution(blank={("swin", i) for i in range(6)})
    assert np.isnan(attribution_ratios(few, 50, 0)["grad_cam", "swin", "mouth"].low)


def test_an_interval_is_that_of_identities_drawn_again():
    shares = np.linspace(0.05, 0.3, 10)
    shares[3] = np.nan
    found = made_attribution()
    faces = found.faces[(found.faces["arm"] == "swin") & (found.faces["seed"] == 0)].copy()
    faces["share"] = shares[faces["image_id"].str[1:].astype(int)]
    ratio = attribution_ratios(Attribution(faces, 0), 300, 7)["grad_cam", "swin", "eyes"]
    kept = np.flatnonzero(np.isfinite(shares))
    counts = identity_weights([f"p{i}" for i in range(10)], 300, 7).astype(int)
    again = [shares[np.repeat(kept, count)].mean() / 0.1 for count in counts[:, kept]]
    expected = np.quantile(again, [0.025, 0.975])
    np.testing.assert_allclose([ratio.low, ratio.high], expected)
    assert ratio.value == pytest.approx(np.nanmean(shares) / 0.1)


@pytest.fixture(scope="module")
def crops(crops_dir, tmp_path_factory):
    """The test's crops with landmarks; one Pain face of the test split was not detected."""
    table = pd.read_csv(crops_dir / "manifest.csv")
    table["path"] = [str(crops_dir / path) for path in table["path"]]
    table["landmarks"] = " ".join(f"{float(x) * 40 / 128:g}" for x in POINTS.split())
    pain = table.index[(table["split"] == "test") & (table["label"] == "Pain")]
    table["detected"] = table.index != pain[0]
    folder = tmp_path_factory.mktemp("landmarked")
    table.to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def runs(models, tmp_path_factory):
    made = []
    for arm in ARMS:
        folder = tmp_path_factory.mktemp(arm)
        save_file(models["deit" if "-" in arm else arm].state_dict(), folder / "model.safetensors")
        chosen = {"seed": 0, "image_size": SIZE, "amp": False, "student": "deit_tiny"}
        chosen["distillation"] = "hard" if arm == "deit_tiny-swin" else "none"
        stage = "student" if "-" in arm else "teacher"
        params = {"stage": stage, "name": arm, "parameters": chosen}
        empty = pd.DataFrame()
        made.append(Run(Path(folder), json.loads(json.dumps(params)), empty, empty, {}))
    return made


def test_cka_of_runs_compares_students_with_teachers(runs, crops):
    table = cka_table(runs, crops, "cpu")
    pairs = set(zip(table["first_arm"], table["second_arm"], strict=True))
    assert ("deit_tiny-none", "resnet50") in pairs
    assert ("resnet50", "deit_tiny-none") not in pairs
    assert len(pairs) == 6
    # Both students are one network here.
    twins = inside_plots.layer_cka(table, "deit_tiny-swin", "deit_tiny-none")
    np.testing.assert_allclose(np.diag(twins), 1, atol=1e-5)
    assert list(twins.index) == ["block 3", "block 6", "block 9", "block 12"]
    one_way = inside_plots.layer_cka(table, "resnet50", "swin")
    np.testing.assert_array_equal(inside_plots.layer_cka(table, "swin", "resnet50"), one_way.T)
    with pytest.raises(StudyError, match="no CKA of Swin-T with Swin-T"):
        inside_plots.layer_cka(table, "swin", "swin")


def test_runs_are_asked_on_detected_pain_faces(runs, crops):
    found = attribute(runs, crops, "cpu")
    pain = pd.read_csv(crops / "manifest.csv").query("split == 'test' and label == 'Pain'")
    assert found.undetected == 1
    assert set(found.faces["image_id"]) == set(pain.loc[pain["detected"], "image_id"])
    methods = found.faces.groupby("arm")["method"].unique().map(list)
    assert methods["swin"] == ["grad_cam"]
    assert methods["deit_tiny-swin"] == ["grad_cam", "rollout"]
    known = found.faces.dropna()
    assert (known["share"] <= known["most"] + 1e-6).all()
    shares = known.groupby(["image_id", "arm", "method"])["share"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-5)
    # A student that decides by both heads is asked by both; its weights are the other's.
    rolled = known[known["method"] == "rollout"].groupby("arm")["share"].apply(np.array)
    assert not np.allclose(rolled["deit_tiny-none"], rolled["deit_tiny-swin"])


def test_figures_are_drawn_and_name_every_arm(runs, crops):
    table = cka_table(runs, crops, "cpu")
    found = attribute(runs, crops, "cpu")
    figs = [
        inside_plots.cka_maps(table, [*ARMS[2:], "resnet50"], ["resnet50", "swin"]),
        inside_plots.attributions(attribution_ratios(found, 20, 0), "rollout"),
        inside_plots.gallery(examples(runs, crops, 2, "cpu")),
    ]
    for fig in figs:
        fig.canvas.draw()
        words = " ".join(t.get_text() for t in fig.findobj(mpl.text.Text)).replace("\n", " ")
        assert "DeiT-Ti" in words
        assert "← Swin-T" in words
    plt.close("all")
    with pytest.raises(StudyError, match="No arm was asked by Grad-CAM"):
        inside_plots.attributions({}, "grad_cam")


def likeness_table():
    """Two seeds; the pupil's layers are its own teacher's, its twin's are half as like them."""
    rows = []
    for seed in (0, 1):
        for arm, value in (("deit_tiny-swin", 0.8), ("deit_tiny-none", 0.4)):
            for layer in ("block 3", "block 6"):
                for teacher, factor in (("swin", 1.0), ("resnet50", 0.5)):
                    for place, share in (("stage 1", 0.5), ("stage 2", 1.0)):
                        cka = (value + 0.1 * seed) * factor * share
                        rows.append((arm, seed, layer, teacher, seed, place, cka))
    columns = "first_arm first_seed first_layer second_arm second_seed second_layer cka".split()
    return pd.DataFrame(rows, columns=columns)


def test_likeness_is_the_mean_of_each_layers_best():
    table = likeness_table()
    found = inside_readings.likeness(table, "deit_tiny-swin", "swin")
    np.testing.assert_allclose(found, [0.8, 0.9])
    turned = inside_readings.likeness(table, "swin", "deit_tiny-swin")
    assert turned.mean() < found.mean()  # of a teacher's early stage nothing is that much alike


def test_the_layers_are_read_beside_the_untaught_twin(tmp_path):
    arms = ("resnet50", "swin", "deit_tiny-none", "deit_tiny-swin")
    panel = make_panel(load_runs(make_runs(tmp_path, people=12, seeds=(0, 1), arms=arms)), 20, 0)
    said = inside_readings.layers(likeness_table(), panel)
    assert "0.850 with Swin-T" in said
    assert "0.425 with ResNet-50" in said
    assert "more like its own teacher than its untaught twin by 0.400 in each of 2 seeds" in said
    lonely = make_panel(load_runs(make_runs(tmp_path / "b", people=12, arms=("swin",))), 20, 0)
    assert inside_readings.layers(likeness_table(), lonely).startswith("No student")


def test_without_weights_nothing_is_shown_and_the_reason_said(tmp_path):
    study = evaluate(load_runs(make_runs(tmp_path / "runs", people=12)), 20, 0)
    for run in study.runs:
        (run.folder / "model.safetensors").unlink()
    found = inside.look_inside(study, tmp_path / "results", 20, 0)
    assert "not on this machine" in found.missing
    assert inside.gallery(study, tmp_path / "figures", "maps") is None


def test_places_above_and_below_chance_are_named():
    def ratio(value):
        return Estimate(value, np.full(50, value), (value,))

    found = {("grad_cam", "swin", p): ratio(v) for p, v in zip(
        inside_readings.PLACES, (2.0, 1.5, 0.5, 1.0), strict=True)}  # fmt: skip
    said = inside_readings.places(found, "grad_cam")
    assert "more than chance brow 2.00 [2.00, 2.00] and eyes 1.50" in said
    assert "less nose 0.50" in said
    assert "mouth" not in said

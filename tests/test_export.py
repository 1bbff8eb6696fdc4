"""Exports: parity with torch, int8's size and error, what the table of them is made of."""

import json

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from deployed_runs import write_student
from sklearn.metrics import accuracy_score, roc_auc_score
from timm.models.deit import VisionTransformerDistilled

from helpers.errors import StudyError
from helpers.export import cost as export_cost
from helpers.export import onnx_file as export
from helpers.export import plots as export_plots
from helpers.export import readings as export_readings
from helpers.export import table as export_table
from helpers.export.int8 import kept_in_float, quantise, quantise_run, read_crops
from helpers.export.metadata import made_of
from helpers.export.onnx_file import Deployed, export_network, export_run
from helpers.networks.models import count_macs, decision_logits, head_logits
from helpers.predict.face_spec import FaceSpec, heads_of
from helpers.predict.onnx_session import open_session, read_spec
from helpers.training.augment import plain_view
from helpers.training.runs import read_run

SIDE, SIZE = 37, 32


@pytest.fixture(scope="module")
def network():
    """A distilled DeiT of two blocks."""
    torch.manual_seed(0)
    small = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8}
    model = VisionTransformerDistilled(img_size=SIZE, num_classes=1, **small).eval()
    with torch.no_grad():
        for head in (model.head, model.head_dist):
            head.weight.normal_()
    return model


@pytest.fixture(scope="module")
def spec():
    heads = heads_of("student", distilled=True)
    return FaceSpec("deit-swin", 3, heads, SIZE, SIDE, 256, 0.2, 80, "ab", "bfloat16")


@pytest.fixture(scope="module")
def exported(network, spec, tmp_path_factory):
    return export_network(network, spec, tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.fixture(scope="module")
def quantised(exported, spec):
    return quantise(exported, exported.with_name("int8.onnx"), some_faces(64), spec)


def some_faces(count, side=SIDE):
    """Smooth noise, (count, 3, side, side) uint8."""
    rng = np.random.default_rng(count)
    rough = torch.from_numpy(rng.uniform(0, 255, (count, 3, 5, 5)))
    smooth = torch.nn.functional.interpolate(rough, (side, side), mode="bilinear")
    return smooth.round().to(torch.uint8).numpy()


def torch_probabilities(network, crops):
    """The decision and both heads by the study's own steps, in float32."""
    with torch.inference_mode():
        logits = head_logits(network, plain_view(torch.from_numpy(crops), SIZE))
    both = torch.stack([decision_logits(logits, True), logits[:, 0], logits[:, 1]], dim=1)
    return both.sigmoid().numpy()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_gives_torchs_probabilities_for_any_number_of_faces(network, exported, count):
    crops = some_faces(count)
    expected = torch_probabilities(network, crops)
    session = onnxruntime.InferenceSession(exported)
    names = [output.name for output in session.get_outputs()]
    assert names == ["probability", "probability_class", "probability_distillation"]
    found = np.column_stack(session.run(None, {"crops": crops}))
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_faces_of_the_views_own_size_are_not_resized(network, spec):
    crops = some_faces(3, SIZE)
    deployed = Deployed(network, FaceSpec(**{**vars(spec), "side": SIZE}))
    found = torch.stack(deployed(torch.from_numpy(crops)), dim=1).detach().numpy()
    np.testing.assert_allclose(found, torch_probabilities(network, crops), atol=1e-6)


@pytest.mark.parametrize(
    ("stage", "distilled", "heads"), [("teacher", False, 1), ("student", False, 2)]
)
def test_a_head_that_was_not_trained_is_no_output(network, spec, stage, distilled, heads):
    fewer = FaceSpec(**{**vars(spec), "heads": heads_of(stage, distilled)})
    found = Deployed(network, fewer)(torch.from_numpy(some_faces(2)))
    expected = torch_probabilities(network, some_faces(2))[:, 1]  # decides by its class head
    assert len(found) == heads
    for head in found:
        np.testing.assert_allclose(head.detach(), expected, atol=1e-6)


def test_the_file_says_how_faces_come_to_it_and_that_it_is_no_medical_device(exported, spec):
    found = read_spec(open_session(exported), exported)
    assert found == FaceSpec(**{**vars(spec), "precision": "float32"})
    assert "Not a medical device" in onnx.load(exported).doc_string


def test_a_file_from_elsewhere_is_one_sentence(exported, tmp_path):
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(StudyError, match=r"was not made by helpers\.export"):
        read_spec(open_session(tmp_path / "a.onnx"), tmp_path / "a.onnx")
    with pytest.raises(StudyError, match="cannot be read"):
        FaceSpec.from_json(json.dumps({"model": "a"}))


def test_int8_is_a_quarter_of_the_size_and_nearly_the_same(network, exported, quantised, spec):
    crops = some_faces(40)
    expected = torch_probabilities(network, crops)
    found = np.column_stack(open_session(quantised).run(None, {"crops": crops}))
    assert 0 < np.abs(found - expected).max() < 0.05
    assert np.corrcoef(found[:, 0], expected[:, 0])[0, 1] > 0.99
    weights = {t.name: t for t in onnx.load(quantised).graph.initializer}
    int8 = [t for t in weights.values() if t.data_type == onnx.TensorProto.INT8]
    kept = ("head", "token", "pos_embed")
    named = [p for n, p in network.named_parameters() if not any(word in n for word in kept)]
    matrices = sum(p.numel() for p in named if p.ndim > 1)
    assert sum(np.prod(t.dims) for t in int8 if len(t.dims) > 1) == matrices
    assert read_spec(open_session(quantised), quantised).precision == "int8"


def test_preprocessing_attention_and_heads_stay_in_float32(exported):
    graph = onnx.load(exported).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept_names = set(kept_in_float(graph))
    layers = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    kept_layers = [n for n in layers if n.name in kept_names]
    # two products to shrink the picture, two an attention, two heads
    assert len(kept_layers) == 2 + 2 * 2 + 2
    # the patch embedding, and of each block: qkv, projection, two of the MLP
    quantised = [n for n in layers if n.name not in kept_names]
    assert len(quantised) == 1 + 2 * 4
    assert all(any(name in weights for name in node.input) for node in quantised)


@pytest.fixture(scope="module")
def run(crops_dir, tmp_path_factory):
    """A student's run, and its exports in a folder of their own."""
    torch.set_num_threads(1)
    folder = write_student(tmp_path_factory.mktemp("run") / "seed0", crops_dir, amp=True)
    return read_run(folder)


@pytest.fixture(scope="module")
def table(run, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    made = export_table.export_table([run], work, 200, 0, seconds=0.02)
    return work, made.set_index("form")


def test_an_export_is_kept_while_the_weights_are_the_same(run, table, spec):
    work, _ = table
    path = work / "student/deit_tiny-swin/seed0/model.onnx"
    before = path.stat().st_mtime_ns
    assert export_run(run, path.parent) == path
    quantise_run(run, path)
    assert path.stat().st_mtime_ns == before
    assert not made_of(path, spec)
    assert not made_of(path.with_name("nothing.onnx"), spec)


def test_a_call_that_was_broken_off_scores_no_run_twice(run, table, monkeypatch):
    work, made = table
    monkeypatch.setattr(export_table, "score_forms", lambda *_: 1 / 0)
    monkeypatch.setattr(export, "export_network", lambda *_: 1 / 0)
    again = export_table.export_table([run], work, 200, 0, seconds=0.02).set_index("form")
    timed = [name for name in made if name.startswith(("ms", "images_per"))]
    pd.testing.assert_frame_equal(again.drop(columns=timed), made.drop(columns=timed))


def test_the_table_holds_each_forms_quality_and_its_change(run, table):
    work, made = table
    scores = pd.read_csv(work / "student/deit_tiny-swin/seed0/scores.csv")
    own = run.predictions[run.predictions["split"] == "test"]
    pain = own["label"] == "Pain"
    found = {f: scores[scores["arm"] == f"deit_tiny-swin {f}"] for f in ("torch", "onnx", "int8")}
    for form, part in found.items():
        score = part["probability"].to_numpy()
        area = roc_auc_score(pain, score)
        assert made.loc[form, "auroc_estimate"] == pytest.approx(area)
        accuracy = accuracy_score(pain, score > 0.5)
        assert made.loc[form, "accuracy_estimate"] == pytest.approx(accuracy)
    small, exact = found["int8"]["probability"].to_numpy(), found["onnx"]["probability"].to_numpy()
    change = roc_auc_score(pain, small) - roc_auc_score(pain, exact)
    assert made.loc["int8", "auroc_change_estimate"] == pytest.approx(change, abs=1e-12)
    largest = np.abs(small - exact).max()
    assert made.loc["int8", "largest_difference"] == pytest.approx(largest)
    assert 0 < made.loc["onnx", "largest_difference"] < 1e-6
    # the run scored in bfloat16, where the processor has it
    distance = np.abs(found["torch"]["probability"].to_numpy() - own["probability"].to_numpy())
    assert made.loc["torch", "largest_difference"] == pytest.approx(distance.max())
    assert (made["ms_1"] > 0).all()
    assert (made["ms_low_1"] <= made["ms_1"]).all()
    assert made.loc["int8", "megabytes"] < 0.3 * made.loc["onnx", "megabytes"]
    assert made["macs_224"].iloc[0] == pytest.approx(1.26e9, rel=0.02)


def test_crops_of_another_study_are_not_scored(run, tmp_path):
    (tmp_path / "manifest.csv").write_text("image_id,path,identity,side,label,split\n")
    with pytest.raises(StudyError, match="are not those of"):
        export_table.score_forms(run, {}, tmp_path)
    with pytest.raises(StudyError, match="There is no crop"):
        read_crops([], 32)


@pytest.mark.parametrize("name", ["deit_small", "swin_base"])
def test_multiply_adds_are_the_published_ones(name):
    """The others: test_models."""
    assert export_cost.macs_as_published(name) == pytest.approx(
        export_cost.PUBLISHED[name][1], rel=0.02
    )


def test_macs_count_what_a_network_multiplies():
    layer = torch.nn.Conv2d(3, 8, 4, 4, bias=False)
    assert count_macs(layer, 16) == 3 * 8 * 16 * 4 * 4


def test_times_are_of_the_calls(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(export_cost.time, "perf_counter", lambda: now[0])

    def taking(seconds):
        def call(_):
            now[0] += seconds

        return call

    times = export_cost.time_calls({"slow": taking(0.02), "fast": taking(0.002)}, [], 0.1)
    # five rounds of 0.02 s each
    assert times["slow"] == pytest.approx([0.02] * 5)
    assert times["fast"] == pytest.approx([0.002] * len(times["fast"]))
    assert 50 <= len(times["fast"]) <= 55


def test_the_frontier_is_what_nothing_beats():
    rows = pd.DataFrame(
        {"ms": [1.0, 2.0, 3.0, 4.0, 2.0], "auroc": [0.6, 0.8, 0.7, 0.9, 0.75]}, index=list("abcde")
    )
    assert list(export_plots.unbeaten(rows, "ms", "auroc").index) == ["a", "b", "d"]


@pytest.fixture
def results(table, tmp_path):
    """A committed table of a teacher and two students with known ratios."""
    _, made = table
    parts = []
    for place, arm in enumerate(("resnet50", "deit_tiny-none", "deit_tiny-resnet50")):
        part = made.reset_index().assign(arm=arm, megabytes=[80.0, 80.0, 20.0])
        part = part.assign(ms_1=[10.0, 8.0, 4.0], ms_2=[6.0, 5.0, 1.0])
        for name, value in (("estimate", 0.8), ("low", 0.7), ("high", 0.9)):
            part[f"auroc_expressive_{name}"] = value + 0.01 * place
        part.loc[2, ["auroc_change_estimate", "auroc_change_low"]] = [-0.0012, -0.0034]
        parts.append(part.assign(auroc_change_high=0.0009, macs_224=1.01e9))
    pd.concat(parts).assign(published_macs_224=1e9).to_csv(tmp_path / "export.csv", index=False)
    return tmp_path


def test_the_figure_is_drawn_from_the_committed_table(results, tmp_path):
    fig = export_plots.draw_frontier(results)
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == [
        *export_plots.FORMS.values(),
        *("ResNet-50", "DeiT-Ti, no teacher", "DeiT-Ti ← ResNet-50"),
        "unbeaten",
    ]
    assert [ax.get_xscale() for ax in fig.axes] == ["log", "log"]
    small = [line for line in fig.axes[0].lines if line.get_marker() == "^"]
    assert [line.get_ydata()[0] for line in small] == pytest.approx([0.8, 0.81, 0.82])
    places = [line.get_xdata()[0] for line in small]  # all cost 4 ms
    assert places[1] == pytest.approx(4.0)
    assert places[0] < places[1] < places[2]
    assert export_plots.draw_frontier(tmp_path / "nowhere") is None


def test_the_words_say_the_ratios_and_the_change(results, tmp_path):
    said = export_readings.read_int8(results)
    assert "**ResNet-50**: int8 has 0.25 of the size of float32" in said
    assert "takes 0.50 of its time on one thread, 0.20 on two" in said
    assert "−0.0012 AUROC [−0.0034, +0.0009]" in said
    assert "within 1.0 % of the published ones" in export_readings.read_parity(results)
    assert f"pictures of {SIZE} pixels" in export_readings.read_parity(results)
    assert export_readings.export_rows(results).count("\n") == 1 + 9
    for words in (
        export_readings.read_int8,
        export_readings.read_parity,
        export_readings.export_rows,
    ):
        assert words(tmp_path / "nowhere") is None
        assert words(results) in export_readings.summary(results)
    assert "have not been exported" in export_readings.summary(tmp_path / "nowhere")

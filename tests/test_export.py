"""Exports: ONNX says what torch says, int8 nearly so; timm's output is the arm's decision."""

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled

from helpers import export, models
from helpers.faces import load_faces, plain_view
from helpers.files import ROOT
from helpers.runs import HEADS, Run

SIZE = 32


@pytest.fixture(scope="module")
def network():
    """A distilled DeiT of two blocks."""
    torch.manual_seed(0)
    small = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8}
    model = VisionTransformerDistilled(img_size=SIZE, num_classes=1, **small).eval()
    for head in (model.head, model.head_dist):
        torch.nn.init.normal_(head.weight, std=0.4)
    return model


def made_run(folder, crops_dir, by):
    """A student's run that decides by the heads `by`, as far as an export asks for it."""
    params = {"stage": "student", "name": "deit_tiny-swin", "crops_dir": str(crops_dir)}
    params |= {"parameters": {"image_size": SIZE, "seed": 3}, "decides_by": by}
    row = [0.5, *(0.5 if by in (head, "both") else np.nan for head in ("class", "distillation"))]
    return Run(folder, params, None, pd.DataFrame([row], columns=list(HEADS)), {})


@pytest.fixture(scope="module")
def exported(network, crops_dir, tmp_path_factory):
    """The files of a student of both heads, with their differences from torch."""
    run = made_run(tmp_path_factory.mktemp("run"), crops_dir, "both")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "trained", lambda *_: network)
        return export.export_run(run)


@pytest.fixture(scope="module")
def views(crops_dir):
    """The validation faces as a network sees them."""
    return plain_view(load_faces(crops_dir, SIZE, "validation").images, SIZE)


def torch_probabilities(network, views):
    """The decision and both heads by timm's own modules."""
    with torch.inference_mode():
        tokens = network.forward_features(views)
        heads = torch.cat([network.head(tokens[:, 0]), network.head_dist(tokens[:, 1])], 1)
        return torch.cat([heads.mean(1, keepdim=True), heads], 1).sigmoid().numpy()


@pytest.mark.parametrize(("file", "tolerance"), [(0, 1e-5), (1, 0.05)])
@pytest.mark.parametrize("count", [1, 5])
def test_onnx_gives_torchs_probabilities(network, exported, views, count, file, tolerance):
    """For any number of faces; int8 nearly so."""
    path, expected = list(exported)[file], torch_probabilities(network, views[:count])
    said = onnxruntime.InferenceSession(path).run(None, {"faces": views[:count].numpy()})[0]
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(said, expected, atol=tolerance)
    assert 0 < exported[path] < tolerance


def test_int8_has_the_weights_in_int8_but_attention_and_heads_in_float32(network, exported):
    plain, small = exported
    tensors = onnx.load(small).graph.initializer
    int8 = [t for t in tensors if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    kept = ("head", "token", "pos_embed")
    named = [p for n, p in network.named_parameters() if not any(word in n for word in kept)]
    assert sum(np.prod(t.dims) for t in int8) == sum(p.numel() for p in named if p.ndim > 1)
    # two products an attention, two heads
    assert len(export.kept_in_float(onnx.load(plain).graph)) == 2 * 2 + 2


def test_the_files_say_what_goes_in_and_comes_out(exported):
    for path in exported:
        model = onnx.load(path)
        about = {entry.key: entry.value for entry in model.metadata_props}
        assert (about["arm"], about["seed"], about["threshold"]) == ("deit_tiny-swin", "3", "0.5")
        expected = ("N x 3 x 32 x 32", "0.485", "0.229", str(list(HEADS)), "Not a medical device")
        assert all(words in " ".join(about.values()) for words in expected)
        assert not any(node.metadata_props for node in model.graph.node)


@pytest.mark.parametrize("by", ["both", "class", "distillation"])
def test_timms_output_is_the_arms_decision(tmp_path, monkeypatch, views, by):
    """Of a taught student, an untaught one, and one that saw no label; teachers: test_publish."""
    torch.manual_seed(1)
    model, run = models.build_student("deit_tiny", "scratch", SIZE)[0], made_run(tmp_path, "", by)
    monkeypatch.setattr(models, "trained", lambda *_: model.to(memory_format=torch.channels_last))
    heads = torch_probabilities(model.eval(), views)
    expected = heads[:, ("both", "class", "distillation").index(by)]
    graph = export.Deployed(run).eval()(views).detach()
    np.testing.assert_allclose(graph[:, 0], expected, atol=1e-6)
    assert graph.shape[1] == (3 if by == "both" else 2)
    export.save_for_timm(run, tmp_path)
    found = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    np.testing.assert_allclose(found(views)[:, 0].sigmoid().detach(), expected, atol=1e-6)
    assert np.abs(heads[:, 1] - heads[:, 2]).max() > 1e-3
    data = timm.data.resolve_model_data_config(found)
    assert (data["input_size"], data["mean"][0], data["crop_pct"]) == ((3, SIZE, SIZE), 0.485, 1)


def test_the_command_tells_the_difference_or_ends_with_a_sentence(monkeypatch, capsys):
    published = str(ROOT / "results/standin/runs/student/deit_tiny-swin/seed0")
    with pytest.raises(SystemExit, match=r"model\.safetensors"):
        export.main([published])
    monkeypatch.setattr(export, "export_run", lambda run: {run.folder / "model.onnx": 2e-6})
    export.main([published])
    assert "model.onnx: from torch's P(pain) at most 2.0e-06" in capsys.readouterr().out

"""What README.md and data/README.md say of results is what the committed files hold."""

import json
import re

import pandas as pd
import pytest
from safetensors import safe_open

from helpers.errors import StudyError
from helpers.files import ROOT, sha256
from helpers.networks.models import STUDENTS, TEACHERS
from helpers.networks.weights import FACES_WEIGHTS
from helpers.pretraining import scratch_card, weights_card
from helpers.writeup import headline

FOLDER = ROOT / FACES_WEIGHTS
ARCHITECTURES = [TEACHERS["resnet50"], TEACHERS["swin"], STUDENTS["deit_tiny"]]


def test_the_weights_card_is_of_the_committed_weights():
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    assert weights_card.card() in text
    assert (ROOT / "figures/pretraining.png").is_file()


@pytest.mark.parametrize("architecture", [name.split(".")[0] for name in ARCHITECTURES])
def test_committed_weights_are_whole_and_in_16_bits(architecture):
    card = json.loads((FOLDER / f"{architecture}.json").read_text())
    path = FOLDER / f"{architecture}.safetensors"
    assert sha256(path) == card["sha256"]
    with safe_open(path, "pt") as file:
        types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert types <= {"F16", "I64"}
    history = pd.read_csv(path.with_suffix(".csv"))
    assert len(history) == sum(epochs for _, epochs in card["stages"])
    assert history["held_out_loss"].iloc[-1] == pytest.approx(card["held_out_error"], abs=1e-4)
    # rounding changes nothing that a fine-tuning could notice
    assert card["held_out_error_16_bit"] == pytest.approx(card["held_out_error"], abs=1e-3)


def test_all_weights_fit_the_repository():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 120e6


def test_a_folder_without_cards_is_one_sentence(tmp_path):
    with pytest.raises(StudyError, match="holds no card"):
        weights_card.card(tmp_path)


def made_tables(folder, low, high, seeds=(0.01, 0.02)):
    first, second = "deit_tiny-swin", "deit_tiny-resnet50"
    row = {"contrast": "expressive", "metric": "auroc", "estimate": 0.015, "low": low, "high": high}
    pd.DataFrame([{"kind": "taught", "first": first, "second": second} | row]).to_csv(
        folder / "differences.csv", index=False
    )
    contrasts = ("all", "neutral", "expressive")
    pd.DataFrame(
        [{"arm": arm} | row | {"contrast": c} for arm in (first, second) for c in contrasts]
    ).to_csv(folder / "metrics.csv", index=False)
    pd.DataFrame(
        {"arm": arm, "train_seconds": seconds, "macs": macs}
        for arm, seconds, macs in (
            *[("swin", 90.0, 4e9), (first, 30.0, 1e9)],
            *[("deit_tiny-none", 10.0, 1e9), ("deit_tiny-none", 14.0, 1e9)],
        )
    ).to_csv(folder / "cost.csv", index=False)
    pd.DataFrame(
        {"arm": first, "contrast": "expressive", "group": "age", "best": best, "worst": "Old"}
        | {"estimate": gap, "low": gap - 0.01, "high": gap + 0.01}
        for best, gap in (("Middle", 0.02), ("Young", 0.05))
    ).to_csv(folder / "subgroup_gaps.csv", index=False)
    pd.DataFrame(
        {"arm": arm, "seed": seed, "contrast": "expressive", "metric": "auroc", "estimate": value}
        for seed, more in enumerate(seeds)
        for arm, value in ((first, 0.9 + more), (second, 0.9))
    ).to_csv(folder / "seeds.csv", index=False)


@pytest.mark.parametrize(
    ("low", "high", "seeds", "settled"),
    [
        (0.005, 0.03, (0.01, 0.02), True),
        (-0.005, 0.03, (0.01, 0.02), False),
        (0.005, 0.03, (0.04, -0.01), False),
    ],
)
def test_the_headline_follows_the_decision_rule(tmp_path, low, high, seeds, settled):
    made_tables(tmp_path, low, high, seeds)
    text = headline.block(tmp_path, "figures/made")
    assert ("is the better pupil" in text) == settled
    assert ("not settled" in text) != settled
    assert "took 2.5 times as long to train" in text
    assert "1/4.0 of its teacher's multiply-adds" in text
    assert "DeiT-Ti taught by Swin-T +0.050 [+0.040, +0.060] (age: Young above Old)" in text
    assert re.search(r"\+0\.015 \[.0\.005, \+0\.030\] AUROC over 2 seeds", text)


def test_readme_has_the_headline_of_the_committed_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    committed = (ROOT / headline.RESULTS / "runs").is_dir()
    assert (headline.START in readme) == committed
    if committed:
        assert headline.block() in readme


def test_the_card_on_scratch_tells_who_left_the_plateau_and_who_did_not(tmp_path):
    rows = [("none", "the recipe", 0.8, 13), ("batch_size", "128", 0.65, None)]
    rows.append(("warm_up", "none, constant step", 0.69, None))
    table = pd.DataFrame(rows, columns="factor value validation_auroc off_plateau_epoch".split())
    table = table.assign(model="deit_tiny", seed=0, epochs=20, test_auroc=0.7, train_loss=0.5)
    table.to_csv(tmp_path / "t.csv", index=False)
    said = scratch_card.card(tmp_path / "t.csv")
    assert "Off the plateau: the recipe." in said
    assert "Still on it: batch 128 and warm-up none, constant step." in said
    assert "| batch | 128 | 0 | 0.65 | 0.70 | – | 0.50 |" in said
    assert "cannot tell a cause from luck" in said
    assert "Not run" not in said
    part = table[table["factor"] != "warm_up"].assign(model="swin")
    pd.concat([table, part]).to_csv(tmp_path / "t.csv", index=False)
    assert scratch_card.card(tmp_path / "t.csv").count("Not run: warm-up.") == 1
    table.assign(seed=1).pipe(lambda more: pd.concat([table, more])).to_csv(tmp_path / "t.csv")
    assert "luck" not in scratch_card.card(tmp_path / "t.csv")


def test_the_data_card_has_the_committed_table_on_scratch():
    assert scratch_card.card() in (ROOT / "data/README.md").read_text()

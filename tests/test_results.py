"""The committed tables from the committed predictions, and the chapter that shows them."""

import ast
from dataclasses import replace

import matplotlib
import nbformat
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from helpers import compare
from helpers.files import ROOT, read_csv
from helpers.runs import load_runs
from helpers.text import discussion

matplotlib.use("agg")
RESULTS = "results/standin"
PUPILS = ("deit_tiny-swin", "deit_tiny-resnet50")


@pytest.fixture(scope="module")
def study():
    return compare.evaluate(load_runs(f"{RESULTS}/runs"), 2000, 0)


@pytest.mark.parametrize("name", ["metrics", "differences"])
def test_the_committed_runs_give_the_committed_tables(study, name):
    found, committed = study[1][name], read_csv(f"{RESULTS}/{name}.csv")
    ends = ["estimate", "low", "high"]
    keys = [key for key in ("kind", "first", "second", "arm", "contrast", "metric") if key in found]
    found, committed = found.set_index(keys)[ends], committed.set_index(keys)[ends]
    assert len(found) == len(committed)
    np.testing.assert_allclose(found, committed.loc[found.index], rtol=0, atol=1e-9)


def auroc(panel, arm, rows, weights=None):
    """The mean over seeds, by scikit-learn."""
    scores = panel.probabilities[arm]["probability"][:, rows]
    return np.mean([roc_auc_score(panel.positive[rows], s, sample_weight=weights) for s in scores])


def test_the_primary_endpoint_is_scikit_learns_in_every_draw(study):
    panel, _ = study
    rows, found = panel.rows("expressive"), panel.difference(*PUPILS)
    for value, weights in zip(found.draws[:25], panel.weights[:25, rows], strict=True):
        known = [auroc(panel, arm, rows, weights) for arm in PUPILS]
        assert value == pytest.approx(known[0] - known[1], abs=1e-12)


def test_groups_are_those_of_the_identity_by_scikit_learn(study):
    panel, tables = study
    names = ("Black", "South Asian", "Middle Eastern", "Caucasian", "Asian")
    for row in tables["subgroups"].query("contrast == 'all' and group == 'ethnicity'").itertuples():
        among = (panel.faces["identity"].str[4] == str(names.index(row.value))).to_numpy()
        assert row.estimate == pytest.approx(auroc(panel, row.arm, among))


def chapter(folder, config, runs="[ast]*"):
    """Run notebook 05 here, but for its figures; return its names and all that it says in words."""
    for path in (ROOT / RESULTS / "runs").glob(runs):
        link = folder / "runs" / path.relative_to(ROOT / RESULTS / "runs")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    names, said = {}, []
    for cell in nbformat.read(ROOT / "notebooks/05_compare_teachers.ipynb", 4).cells:
        if cell.cell_type == "code" and "mystnb" not in cell.metadata:
            body = ast.parse(cell.source).body
            last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            if last:
                said.append(str(getattr(eval(compile(last, "cell", "eval"), names), "data", "")))
            if "parameters" in cell.metadata.get("tags", []):
                names["runs_dir"] = str(folder / "runs")
                names["results_dir"] = str(folder / config / "results")
    answer = (folder / config / "results/answer.md").read_text()
    return names["names"], answer, " ".join(said)


def test_the_committed_discussion_holds_and_a_flipped_finding_withholds_it(tmp_path):
    names, answer, said = chapter(tmp_path, "standin")
    assert answer.startswith("This leaves open which is higher")
    assert "**There was little left to teach.**" in said
    taught = names["taught"]
    flipped = replace(taught, value=taught.value + 0.1, draws=taught.draws + 0.1)
    withheld = discussion("notebooks/discussion/standin.md", names | {"taught": flipped}).data
    assert "its claim `low(taught) < 0 < high(taught)` does not hold" in withheld


def test_one_seed_gives_no_direction(tmp_path):
    _, answer, said = chapter(tmp_path, "quick", "[ts]*/*/seed0")
    assert answer.startswith("One seed knows nothing")
    assert "Read nothing into its numbers" in said
    assert "By the rule" not in said

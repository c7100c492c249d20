"""Reproduction: which rows are compared with published results, and what the tables and headers say."""

import json
from pathlib import Path

import pytest
import reproduce
import reproduction_rows
import reproduction_tables

from launch.report.analysis.published import published_results
from stn.config.resolve import resolve
from stn.config.yaml_files import build_config, normalise, overlay, read_yaml
from stn.runs.directory import RunDir
from tests.support.paths import ROOT
from tests.support.trainer import QUIET, only_run, train


def test_the_readmes_tables_are_those_of_the_rows() -> None:
    text = (ROOT / "README.md").read_text()
    assert reproduce.readme(text) == text, "run python benchmarks/reproduce.py readme"
    assert text.count("| yes (") + text.count("| **no** (") == 11
    for path in reproduce.CONFIGS.glob("*.yaml"):
        assert reproduce.header(path.read_text(), path.stem) == path.read_text(), path.name


def test_the_last_epochs_of_s4_in_the_manual_are_those_of_the_rows() -> None:
    rows = {row["seed"]: f"{100 * row['test_acc']:.2f}" for row in reproduction_rows.finished_rows("s4")}
    *first, last = [rows[seed] for seed in range(10)]
    text = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert f"our ten seeds (fp32, like the published run) end at {', '.join(first)} and {last} %" in text


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reproduction_rows, "ROWS", tmp_path)
    line = {"arch": "stn_c0", "net": "tutorial", "sig": "a", "status": "finished", "steps": 28140, "epochs": 30.0}
    line["precision"] = "fp32"
    accuracies = [0.9911, 0.9907, 0.9895, 0.9906, 0.9902]
    whole = [line | {"seed": s, "test_acc": a, "best_test_acc": a + 0.001} for s, a in enumerate(accuracies)]
    (tmp_path / "s2_conv.jsonl").write_text("".join(json.dumps(row) + "\n" for row in whole))
    return tmp_path


def test_an_interval_of_a_difference_by_hand(rows: Path) -> None:
    """SD 0.0606, t(4) = 2.7764, so half a width is 2.7764 x 0.0606 x sqrt(1/5 + 1/5) = 0.106."""
    last = next(f for f in published_results() if f.system == "manuelrames, convolution, last epoch")
    assert reproduction_tables.line(last) == (
        "| manuelrames, convolution, last epoch | accuracy | 98.86 (n = 5) "
        "| 99.04 (0.06) | 5 | whole | +0.18 | **no** (\u00b1 0.11) |"
    )
    assert "yes" in reproduction_tables.line(last._replace(value="99.0"))
    best = last._replace(at="best", value="99.05")
    assert "| 99.14 (0.06) |" in reproduction_tables.line(best)
    assert "| 0.96 (0.06) |" in reproduction_tables.line(last._replace(unit="error", value="1.0"))


def test_a_shorter_schedule_claims_nothing(rows: Path) -> None:
    path = rows / "s2_conv.jsonl"
    path.write_text(path.read_text().replace('"epochs": 30.0', '"epochs": 3.0'))
    last = next(f for f in published_results() if f.recipe == "s2_conv")
    assert "| 0.1 |" in reproduction_tables.line(last)
    assert "shorter schedule" in reproduction_tables.line(last)
    path.write_text(path.read_text().splitlines()[0])
    assert "one run says nothing" in reproduction_tables.line(last)


def test_a_schedule_in_which_networks_hardly_learn_is_not_shown(rows: Path) -> None:
    path = rows / "s2_conv.jsonl"
    path.write_text(path.read_text().replace('"epochs": 30.0', '"epochs": 3.0'))
    last = next(f for f in published_results() if f.recipe == "s2_conv")
    line = json.loads(path.read_text().splitlines()[0]) | {"arch": "cnn"}
    path.write_text(path.read_text() + json.dumps(line | {"test_acc": 0.91}) + "\n")
    assert "| 0.1 |" in reproduction_tables.line(last)
    path.write_text(path.read_text().replace('"test_acc": 0.91,', '"test_acc": 0.89,'))
    assert "| not run |" in reproduction_tables.line(last)
    text = "# time   whole\n# ours       99 %\n#            and more\nname: s2_conv\n"
    assert reproduce.header(text, "s2_conv") == (
        "# time   whole\n# ours       not run for long enough to have learnt\nname: s2_conv\n"
    )


def test_systems_that_share_a_line_are_split_when_one_has_been_run(rows: Path) -> None:
    """A network's rows are its own: the fully connected one has none."""
    together = "| Jaderberg et al., TC | error | 13.2 / 3.5 / 2.0 / 1.7 (n = 3) | not run |"
    assert together in reproduction_tables.table()
    line = {
        "arch": "stn_c0",
        "net": "jaderberg_cnn",
        "seed": 0,
        "status": "finished",
        "precision": "bf16",
        "steps": 150_000,
        "epochs": 640.0,
    }
    (rows / "jaderberg_tc.jsonl").write_text(json.dumps(line | {"test_acc": 0.982}) + "\n")
    text = reproduction_tables.table()
    assert together not in text
    assert "| Jaderberg et al., TC, ST-FCN | error | 2.0 (n = 3) | not run |" in text
    assert "| Jaderberg et al., TC, ST-CNN | error | 1.7 (n = 3) | 1.80 | 1 | whole, bf16 | +0.10 | one run" in text
    (rows / "icstn.jsonl").write_text(json.dumps(line | {"net": "icstn", "test_acc": 0.98, "steps": 500_000}) + "\n")
    text = reproduction_tables.table()
    assert "| Lin and Lucey, STN | error | 4.944 | not run |" in text
    assert "| Lin and Lucey, IC-STN-4 | error | 1.230 | 2.00 |" in text


def test_a_recipes_header_says_what_its_rows_say(rows: Path) -> None:
    path = rows / "s2_conv.jsonl"
    facts = '"date": "2026-11-20", "wall_s": 2221.6, "fused": 5, "device": "cpu"'
    path.write_text(path.read_text().replace('"seed"', f'{facts}, "seed"'))
    text = "# title\n# time       not run\n# ours       not run\n#            at all\narch: cnn\n"
    ours = "stn_c0, accuracy: last epoch 99.04 % (SD 0.06), best evaluation on the test set 99.14 % (SD 0.06); n = 5"
    time = "37 min for 5 seeds (--fuse 5) in one process on cpu"
    assert (
        reproduce.header(text, "s2_conv")
        == f"# title\n# time       {time}\n# ours       {ours}, 2026-11-20\narch: cnn\n"
    )
    assert reproduce.header(text, "s2_coord") == text


def test_a_header_names_a_network_that_is_not_the_recipes_and_errors_beside_published_errors(rows: Path) -> None:
    row = {"arch": "cnn", "net": "jaderberg_fcn", "seed": 0, "status": "finished", "test_acc": 0.95, "steps": 1500}
    facts = {"best_test_acc": 0.96, "date": "2026-11-21", "wall_s": 1.0, "fused": 1, "device": "cpu", "options": None}
    (rows / "jaderberg_r.jsonl").write_text(json.dumps(row | facts) + "\n")
    said = "cnn jaderberg_fcn, error: last epoch 5.00 %, best evaluation on the test set 4.00 %; n = 1, 1500 steps"
    assert said in reproduce.header("# title\n# ours       not run\narch: cnn\n", "jaderberg_r")


def test_rows_are_collected_from_run_directories_and_replace_their_own(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "name: short\nnet: tutorial\nlimit_train: 640\nlimit_test: 100\nepochs: 2\nseeds: 0-1\n"
    (tmp_path / "short.yaml").write_text(text)
    monkeypatch.setattr(reproduction_rows, "CONFIGS", tmp_path)
    done = train("--config", tmp_path / "short.yaml", *QUIET, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    path = only_run(tmp_path / "runs").path
    out = reproduction_rows.collect(str(path))
    assert reproduction_rows.collect(str(path)) == out == rows / "short.jsonl"
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["seed"] for row in found] == [0, 1]
    assert list(found[0]["evaluations"]) == ["1", "2"]
    assert found[0]["evaluations"]["2"] == pytest.approx(found[0]["test_acc"], abs=1e-6)
    assert found[0]["bypass_acc"] is not None
    assert "confusion" not in found[0]
    assert len(found[0]["date"]) == 10
    with pytest.raises(ValueError, match="is no run directory with results"):
        reproduction_rows.collect(str(tmp_path / "nothing"))
    status = RunDir(path).read_status()
    RunDir(path).write_status("stopped")
    with pytest.raises(ValueError, match="is stopped"):
        reproduction_rows.collect(str(path))
    RunDir(path).write_status(status["state"])
    (tmp_path / "short.yaml").write_text(f"{text}lr: 0.5\n")
    with pytest.raises(ValueError, match="short does not follow any recipe"):
        reproduction_rows.collect(str(path))


def test_a_run_is_matched_to_its_recipe_whatever_its_name() -> None:
    def recipe(name: str, *laid: dict) -> tuple:
        layers = read_yaml(ROOT / "configs" / f"{name}.yaml"), *(normalise(one, "here") for one in laid)
        return reproduction_rows.recipe_of(
            resolve(build_config(overlay(*layers, {"log": {"name": "some_sweep"}}), "here"))
        )

    part = {"fraction": 0.01, "precision": "bf16"}
    assert recipe("finnveden_r", {"arch": "stn_cx"}, part) == ("finnveden_r", None)
    assert recipe("icstn", part, {"arch": {"iterations": 2}}) == ("icstn", {"arch": {"iterations": 2}})
    for other in ({"lr": 0.5}, {"arch": {"transform": "tps"}}, {"steps": 75_000}, {"data": {"limit_train": 1000}}):
        with pytest.raises(ValueError, match="some_sweep does not follow any recipe"):
            recipe("finnveden_r", other)
    # Twenty of the fifty epochs of another recipe, too, whose learning rate does not move either.
    assert recipe("s0_conv") == ("s0_conv", None)

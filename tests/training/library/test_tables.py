"""stn.results and stn.metrics where run directories overlap, were abandoned, or were moved beside others."""

import json
from pathlib import Path

import pytest

import stn
from stn.config.resolve import resolve, signature
from stn.config.schema import Arch, Config
from stn.config.yaml_files import dump_yaml
from stn.runs.directory import RunDir
from tests.support.records import metric, result

CONFIGS = {name: resolve(Config(arch=Arch(name=name))) for name in ("cnn", "stn_slx")}
SIGS = {name: signature(config) for name, config in CONFIGS.items()}


def written(folder: Path, arch: str, seeds: range, steps: int = 4, done: bool = True) -> RunDir:
    run = RunDir(folder)
    folder.mkdir(parents=True)
    run.config.write_text(dump_yaml(CONFIGS[arch]))
    if done:
        run.add_results([result(seed, sig=SIGS[arch]) for seed in seeds])
    rows = [metric(seed, step + 1) for seed in seeds for step in range(steps)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def lengths(*paths: Path) -> dict[tuple[str, str, int], int]:
    """Return the number of metric rows by signature, architecture and seed."""
    keys = [(row["sig"], row["arch"], row["seed"]) for row in stn.metrics(*paths, frame=False)]
    return {key: keys.count(key) for key in keys}


def test_rows_of_an_abandoned_block_are_left_out(tmp_path: Path) -> None:
    """Of the seeds that another block has finished, whichever comes first."""
    folder, sig = tmp_path / "cnn-mnist" / SIGS["cnn"], SIGS["cnn"]
    written(folder / "0-7", "cnn", range(8), steps=2, done=False)
    written(folder / "0-3", "cnn", range(4))
    written(folder / "4-6", "cnn", range(4, 7))
    assert lengths(tmp_path) == {(sig, "cnn", seed): 4 for seed in range(7)} | {(sig, "cnn", 7): 2}


@pytest.fixture
def res(tmp_path: Path) -> Path:
    """Blocks of two experiments that were moved side by side; one is unfinished."""
    blocks = {"a": written(tmp_path / "runs" / SIGS["cnn"] / "0-3", "cnn", range(4))}
    blocks["b"] = written(tmp_path / "runs" / SIGS["stn_slx"] / "0-3", "stn_slx", range(4))
    blocks["c"] = written(tmp_path / "runs" / SIGS["cnn"] / "2-5", "cnn", range(2, 6), steps=2, done=False)
    (tmp_path / "res").mkdir()
    for name, block in blocks.items():
        block.path.rename(tmp_path / "res" / name)
    return tmp_path / "res"


def test_experiments_that_were_moved_side_by_side_are_told_apart(res: Path) -> None:
    rows = stn.results(res, frame=False)
    expected = [(arch, seed) for arch in ("cnn", "stn_slx") for seed in range(4)]
    assert [(row["sig"], row["seed"]) for row in rows] == [(SIGS[arch], seed) for arch, seed in expected]
    complete = {(SIGS[arch], arch, seed): 4 for arch, seed in expected}
    assert lengths(res) == complete | {(SIGS["cnn"], "cnn", seed): 2 for seed in (4, 5)}


def test_a_moved_directory_without_rows_costs_no_others_their_results(res: Path) -> None:
    (res / "c" / "config.yaml").write_text("trainer: {gpus: 2}\n")
    assert len(stn.results(res, frame=False)) == 8
    with pytest.raises(ValueError, match=r"c/config\.yaml: unknown key"):
        stn.metrics(res)


def test_old_rows_without_a_signature_are_told_apart_by_their_configuration(res: Path) -> None:
    for name in "ab":
        rows = [json.dumps(result(seed)) for seed in range(4)]
        (res / name / "results.jsonl").write_text("".join(f"{row}\n" for row in rows))
    assert len(stn.results(res, frame=False)) == 8

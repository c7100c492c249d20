"""Weights that somebody else has saved: how they are fitted, and how they are evaluated."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stn.commands.evaluate import main, open_run
from stn.config.yaml_files import find_recipe
from stn.evaluation.foreign_weights import fit, load_plain
from tests.support.foreign import Theirs, ours
from tests.support.networks import seeded_network
from tests.support.paths import ROOT
from tests.support.trainer import run_script

RECIPE = "arch: {name: stn_c0_coord, net: tutorial_first, padding: zeros, align_corners: false}\ndataset: mnist\n"


EXPECTED = {
    "stages.0.0.weight": "conv1.weight",
    "stages.2.1.bias": "fc2.bias",
    "st.0.heads.0.head.0.0.weight": "localization.0.conv_layer.weight",
    "st.0.heads.0.head.1.0.bias": "localization.3.bias",
    "st.0.heads.0.last.weight": "fc_loc.2.weight",
}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])  # safetensors files are in the order of the alphabet
def test_other_names_are_matched_by_order_or_shape(tmp_path: Path, ending: str, prefix: str) -> None:
    state = {prefix + name: x for name, x in Theirs().state_dict().items()}
    path = tmp_path / f"weights.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    fitted = fit(load_plain(path), ours())
    ours().load_state_dict(fitted)
    for own, name in EXPECTED.items():
        assert fitted[own].equal(state[prefix + name])


def test_own_names_come_first_whatever_their_order() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))  # alike, so that only names can tell
    state = dict(reversed(network.state_dict().items()))
    fitted = fit({f"_orig_mod.module.{name}": x for name, x in state.items()}, network)
    assert all(fitted[name] is x for name, x in state.items())


def test_batch_norm_is_fitted_with_its_buffers() -> None:
    network, other = (seeded_network("stn_c0_coord", net="tutorial_norm") for _ in range(2))
    for x in other.buffers():
        x.fill_(7)
    renamed = {f"net_{i}.{name.rpartition('.')[2]}": x for i, (name, x) in enumerate(other.state_dict().items())}
    network.load_state_dict(fit(renamed, network))
    assert all(bool((x == 7).all()) for name, x in network.named_buffers() if "running" in name or "num" in name)


def test_alike_layers_are_not_guessed_from_a_file_without_order() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    state = {
        "b.bias": torch.zeros(3),
        "b.weight": torch.zeros(3, 3),
        "a.bias": torch.ones(3),
        "a.weight": torch.ones(3, 3),
    }
    with pytest.raises(ValueError, match="another network"):
        fit(state, network)


def test_another_network_is_refused_with_names_and_shapes() -> None:
    state = Theirs().state_dict()
    with pytest.raises(ValueError, match=r"conv1.weight \[10, 1, 5, 5\] for stages.0.0.weight \[16, 1, 9, 9\].* more"):
        fit(state, seeded_network("stn_c0"))
    with pytest.raises(ValueError, match=r"nothing for stages.2.1.bias \[10\]"):
        fit({name: x for name, x in ours().state_dict().items() if name != "stages.2.1.bias"}, ours())
    with pytest.raises(ValueError, match=r"network: nothing for stages\.2\.1\.bias \[10\]$"):
        fit({name: x for name, x in state.items() if name != "fc2.bias"}, ours())
    with pytest.raises(ValueError, match=r"extra.weight \[1\] for nothing"):
        fit(state | {"extra.weight": torch.zeros(1)}, ours())
    state = ours().state_dict()
    state["stages.2.1.bias"] = torch.zeros(9)
    with pytest.raises(ValueError, match=r"network: stages.2.1.bias \[9\] for stages.2.1.bias \[10\]$"):
        fit(state, ours())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_are_found_in_a_checkpoint_of_a_training(tmp_path: Path, key: str) -> None:
    state = Theirs().state_dict()
    torch.save({"epoch": 3, "optimizer": {"state": {}}, key: state}, tmp_path / "checkpoint.pt")
    assert list(load_plain(tmp_path / "checkpoint.pt")) == list(state)


def test_a_configuration_of_a_run_may_be_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("arch: cnn\n")
    (tmp_path / "results.jsonl").write_text('{"seed": 0, "status": "finished"}\n')
    assert open_run(str(tmp_path)).config.arch.net == "finnveden_r"


def test_recipes_are_found_by_name(tmp_path: Path) -> None:
    assert find_recipe("finnveden_r") == find_recipe("finnveden_r.yaml") == ROOT / "configs" / "finnveden_r.yaml"
    (tmp_path / "own.yaml").write_text(RECIPE)
    assert find_recipe(str(tmp_path / "own.yaml")) == tmp_path / "own.yaml"
    with pytest.raises(ValueError, match="did you mean 'finnveden_r'"):
        find_recipe("finveden_r.yaml")


def test_evaluate_prints_what_the_network_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stn.config.schema import Data
    from stn.data.datasets import mnist
    from stn.data.stream import Stream

    (tmp_path / "own.yaml").write_text(RECIPE)
    network = seeded_network("stn_c0_coord", net="tutorial_first", padding="zeros", align_corners=False).eval()
    state = Theirs().state_dict()
    network.load_state_dict(fit(state, network))
    torch.save(state, tmp_path / "w.pt")
    code = main(["--weights", str(tmp_path / "w.pt"), "--recipe", str(tmp_path / "own.yaml"), "--limit-test", "300"])
    out = capsys.readouterr().out
    batch = Stream(Data(), mnist(), [0]).test_images(torch.arange(300))
    with torch.no_grad():
        logits = network(batch.x_BCHW)
    right = logits.argmax(1) == batch.y_B
    loss = nn.functional.cross_entropy(logits.double(), batch.y_B)
    zeros = right[batch.y_B == 0].float().mean()
    assert code == 0
    assert f"test_acc   {right.double().mean():.6f}" in out
    assert f"test_error {1 - right.double().mean():.6f}" in out
    assert f"test_loss  {loss:.6f}" in out
    assert "macro_f1" in out
    assert f"per class  0: {zeros:.4f}  1: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NO RIGHT"], "Permission denied"),
        (["UNFINISHED"], "has no finished seed"),
        (["BY HAND"], "seed-0/final.safetensors is missing"),
        (["--wieghts"], "unrecognized arguments: --wieghts; see python -m stn evaluate --help"),
        ([], "give either RUN, or --weights and --recipe"),
        (["--weights", "w.pt"], "give either RUN, or --weights and --recipe"),
        (["runs/x", "--recipe", "finnveden_r"], "give either RUN, or --weights and --recipe"),
        (
            ["runs/x", "--limit-test", "5"],
            "--limit-test and --data-root go with --weights; RUN is evaluated on its own",
        ),
        (["--weights", "W", "--recipe", "s0_coord", "--test-iterations", "2"], "give either RUN, or --weights"),
        (["--weights", "w.pt", "--recipe", "finnveden_r"], "there is no file w.pt"),
        (["--weights", "W", "--recipe", "finveden_r"], "did you mean 'finnveden_r'"),
        (["--weights", "W", "--recipe", "finnveden_r"], "are of another network"),
        (["--weights", "W", "--recipe", "finnveden_r", "--limit-test", "0"], "limit_test"),
    ],
)
def test_bad_commands_are_one_message_and_exit_code_2(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(Theirs().state_dict(), tmp_path / "theirs.pt")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("arch: cnn\n")
    (tmp_path / "unfinished" / "results.jsonl").write_text('{"seed": 0}\n{"seed": 1, "status": "failed"}\n')
    (tmp_path / "by hand").mkdir()
    (tmp_path / "by hand" / "config.yaml").write_text("arch: cnn\n")
    rows = '{"seed": "../../x", "status": "finished"}\n{"seed": 0, "status": "finished"}\n'
    (tmp_path / "by hand" / "results.jsonl").write_text(rows)
    places = {"W": tmp_path / "theirs.pt", "UNFINISHED": tmp_path / "unfinished", "NO RIGHT": tmp_path / "unfinished"}
    places["BY HAND"] = tmp_path / "by hand"
    if "NO RIGHT" in arguments:

        def refuse(path: Path) -> list:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr("stn.runs.results.read_rows", refuse)
    arguments = [str(places.get(a, a)) for a in arguments]
    assert run_script("stn/__main__.py", "evaluate", *arguments, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1

"""Which seeds train as one network, and how blocks begin and end."""

import socket
from functools import cache
from pathlib import Path

import pytest
from torch import Tensor, nn

import tests.support.branching  # noqa: F401  (registers an architecture)
from stn.commands.check import check
from stn.commands.finish import wrap_up
from stn.config.registry import register
from stn.config.resolve import resolve
from stn.config.schema import Config, Optim
from stn.models.build import build_network
from stn.models.wirings import cnn
from stn.multiseed.model import StackedModel
from stn.runs.trials import Trial, block_label, build_trials, cut_into_blocks, group_by_run
from stn.training import blocks as training_blocks
from stn.training.runtime import Runtime
from tests.support.networks import batch_norm
from tests.support.seeds import config, trials


@register("arch")
def sorting(make_net, shape, classes) -> nn.Module:
    """A classifier with an operation that no rule knows."""

    class Sorting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = cnn(batch_norm, shape, classes)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).sort(1).values

    return Sorting()


@pytest.fixture
def checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare seeds together with seeds alone once per network, in tests of what is made of it."""
    monkeypatch.setattr(training_blocks, "check_network", cache(training_blocks.check_network))


# ---- which seeds train together


def block_size(trials: list[Trial], runtime: Runtime) -> int:
    return training_blocks.choose_block_size(trials, runtime, lambda *_: None)


def test_blocks_are_equal_and_separate_seeds_that_cannot_resume_together(tmp_path: Path) -> None:
    ten = trials(tmp_path, config())

    def sizes(most: int, saved: list[set[int]]) -> list[list[int]]:
        return [[trial.seed for trial in block] for block in cut_into_blocks(ten, most, saved)]

    assert [len(block) for block in sizes(4, [set()] * 10)] == [4, 3, 3]
    assert sizes(64, [set()] * 10) == [list(range(10))]
    # Killed while it saved step 40: seeds 0 to 2 have it, 3 to 5 have 30 as the others, 6 to 9 have not begun.
    saved = [{30, 40}] * 3 + [{20, 30}] * 3 + [set()] * 4
    assert sizes(64, saved) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert sizes(64, [{30, 40}, {20, 30}, {20}, {20, 10}, *[set()] * 6]) == [[0, 1], [2, 3], [4, 5, 6, 7, 8, 9]]


def test_seeds_that_are_left_are_cut_as_in_an_undisturbed_run(tmp_path: Path) -> None:
    """In fp32 another block is another result."""
    most = 4
    for count in range(1, 40):
        all_seeds = trials(tmp_path, config(seeds=f"0-{count - 1}"))
        blocks = cut_into_blocks(all_seeds, most, [set()] * count)
        assert [trial for block in blocks for trial in block] == all_seeds
        for done in range(1, len(blocks)):
            left = [trial for block in blocks[done:] for trial in block]
            assert cut_into_blocks(left, most, [set()] * len(left)) == blocks[done:]


def test_settings_share_blocks_and_have_run_directories_of_their_own(tmp_path: Path) -> None:
    two = trials(tmp_path, config(seeds="0-2"), config(seeds="0-2").model_copy(update={"optim": Optim(lr=0.5)}))
    (block,) = cut_into_blocks(two, 8, [set()] * 6)
    assert [(trial.config.optim.lr, trial.seed) for trial in block] == [
        (lr, s) for lr in (0.001, 0.5) for s in range(3)
    ]
    assert len(group_by_run(block)) == 2
    assert block_label(block) == "cnn mnist seed 0-2 x 2 settings"
    shares = [build_trials([two[0].config, two[3].config], process, 2) for process in (0, 1)]
    assert [(trial.config.optim.lr, trial.seed) for trial in shares[1]] == [(0.5, 0), (0.5, 1), (0.5, 2)]
    assert {trial.run.path.name for trial in shares[0]} == {"0-2"}


@pytest.mark.usefixtures("checked_once")
def test_memory_and_fuse_bound_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(Config(), 1)
    assert block_size(trials(tmp_path, config()), runtime) == training_blocks.USUAL["cpu"] == 4
    assert block_size(trials(tmp_path, config(fuse=7)), runtime) == 7
    assert block_size(trials(tmp_path, config(fuse=1)), runtime) == 1
    assert block_size(trials(tmp_path, config(seeds="3")), runtime) == 1
    one = trials(tmp_path, config())[0].config
    found = training_blocks.check_network(one)
    assert 20_000 < found.bytes_per_row < 200_000
    need = 2 * found.bytes_per_row * 129 + 4 * found.bytes_per_seed
    assert found.bytes_per_seed == 4 * StackedModel(lambda: build_network(one), [0]).count_parameters()
    for seeds in (1, 3):
        monkeypatch.setattr("psutil.virtual_memory", lambda n=seeds: type("", (), {"available": 2 * n * need + 1000}))
        assert block_size(trials(tmp_path, config()), runtime) == seeds
    monkeypatch.setattr("stn.multiseed.memory._left_by_limits", lambda *_: [2 * 2 * need + 1000])
    assert block_size(trials(tmp_path, config()), runtime) == 2, "a job's limit"


@pytest.mark.usefixtures("checked_once")
def test_no_tensor_of_a_block_goes_beyond_32_bit_indices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = trials(tmp_path, config())[0].config
    elements = training_blocks.check_network(one).elements_per_row
    assert 28 * 28 < elements < 32 * 28 * 28
    monkeypatch.setattr(training_blocks, "MOST_ELEMENTS", 2 * elements * (one.data.batch_size + 1) + 1)
    for fuse in ("auto", 7):
        assert block_size(trials(tmp_path, config(fuse=fuse)), Runtime(Config(), 1)) == 2
    assert "2 seeds at a time instead of 7: more would need tensors beyond 32-bit indices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arch", "text"),
    [
        (
            "sorting",
            "note: no fused rule, hence slower: sort (vmap)",
        ),
        ("branching", "warning: branching trains one seed at a time: TypeError: __bool__ reads a value of a tensor"),
        ("stn_slx", ""),
    ],
)
def test_one_note_says_what_is_slow(
    arch: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_blocks, "fastest_size", lambda config, sizes, *_: max(sizes))
    some = trials(tmp_path, config(arch))
    some[0].run.path.mkdir(parents=True)
    some[0].run.lease.take(print)
    most = block_size(some, Runtime(Config(), 1))
    some[0].run.lease.release()
    said = capsys.readouterr().out
    assert said.startswith(text)
    assert len(said.splitlines()) == bool(text)
    assert most == (1 if arch == "branching" else 4)
    check([resolve(config(arch))])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fused "))
    assert {"sorting": "yes; no fused rule", "branching": "no, one seed", "stn_slx": "yes"}[arch] in line


def test_the_stop_file_of_a_finished_setting_is_deleted_too(tmp_path: Path) -> None:
    two = trials(tmp_path, config(seeds="0"), config(seeds="0").model_copy(update={"optim": Optim(lr=0.5)}))
    for trial in two:
        trial.run.write_status("running", step=1)
    row = two[0].identity() | dict.fromkeys(("test_acc", "best_test_acc", "best_epoch", "macro_f1"), 0.5)
    two[0].run.add_results([row | {"status": "finished", "images_per_s": 1.0, "wall_s": 1.0}])
    two[0].run.stop.touch()
    assert wrap_up(two, "stop file", {trial.sig for trial in two}) == 0
    assert not two[0].run.stop.exists()
    assert two[1].run.read_status()["state"] == "stopped"


def test_a_setting_that_had_finished_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = trials(tmp_path, config(seeds="0"), config(seeds="0").model_copy(update={"optim": Optim(lr=0.5)}))
    for trial in two:
        row = trial.identity() | dict.fromkeys(("test_acc", "best_test_acc", "best_epoch", "macro_f1"), 0.5)
        trial.run.add_results([row | {"status": "finished", "images_per_s": 1.0, "wall_s": 1.0}])
        trial.run.write_status("finished", written_by="somebody else")
    left = two[0].run.path / f".status.json.{socket.gethostname()}-999999998-1.tmp"
    left.touch()
    assert wrap_up(two, None, {two[1].sig}) == 0
    assert [trial.run.read_status().get("written_by") for trial in two] == ["somebody else", None]
    assert capsys.readouterr().out.count("finished before: nothing to do") == 1
    assert not left.exists()
    (other,) = trials(tmp_path, config(seeds="0-1"))[:1]
    assert wrap_up([other], None, set()) == 0
    assert capsys.readouterr().out.count("finished before: nothing to do") == 1
    assert not other.run.path.exists(), "its seed has finished in another block"

"""What a person and W&B see; a sink that dies does not harm the run."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from stn.config.resolve import resolve, signature
from stn.config.schema import Arch, Config, Optim
from stn.config.schema import Log as LogFields
from stn.runs.directory import RunDir
from stn.runs.trials import Trial
from stn.tracking import log as log_module
from stn.tracking import wandb_run
from stn.tracking.log import Log, WandbSink
from stn.tracking.wandb_run import group, run_id

TRAIN_ROW = {
    "kind": "train",
    "seed": 3,
    "step": 50,
    "epoch": 0.5,
    "loss": 0.25,
    "acc": 0.9,
    "lr": 0.1,
    "images_per_s": 1e4,
}
EVAL_ROW = {"kind": "eval", "seed": 3, "step": 100, "epoch": 1.0, "test_acc": 0.95, "test_loss": 0.2, "test_count": 10}


class FakeRun(SimpleNamespace):
    def __init__(self, **init) -> None:
        super().__init__(init=init, logged=[], steps=[], summary={}, metrics=[], code=None, tags=(), starting_step=0)

    def define_metric(self, name: str, step_metric: str) -> None:
        self.metrics.append((name, step_metric))

    def log(self, values: dict, step: int, commit: bool) -> None:
        assert commit
        self.logged.append(values)
        self.steps.append(step)

    def finish(self, exit_code: int) -> None:
        self.code = exit_code

    def mark_preempting(self) -> None:
        self.preempting = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[FakeRun]:
    import wandb as real

    runs: list[FakeRun] = []

    def init(**keywords) -> FakeRun:
        runs.append(FakeRun(**keywords))
        return runs[-1]

    monkeypatch.setattr(real, "init", init)
    monkeypatch.setattr(real, "login", lambda **_: False)
    monkeypatch.setattr(WandbSink, "unreachable", False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return runs


def config(**log_fields) -> Config:
    return resolve(Config(arch=Arch(name="stn_cx"), log=LogFields(name="exp", **log_fields)))


def test_one_wandb_run_per_seed_with_what_grouping_needs(wandb: list[FakeRun], tmp_path: Path) -> None:
    sink = WandbSink(RunDir(tmp_path), config(), "abc", [3, 4], print)
    sink.write([TRAIN_ROW, EVAL_ROW])
    sink.close([EVAL_ROW | {"status": "finished"}, {"seed": 4, "status": "failed", "test_acc": None}])
    first, second = wandb
    assert (first.init["id"], second.init["id"]) == ("exp-abc-3", "exp-abc-4")
    assert first.init["group"] == "exp-stn_cx-mnist-abc"
    assert first.init["name"] == "stn_cx-mnist-s3"
    assert first.init["resume"] == "allow"
    assert first.init["mode"] == "offline"
    assert first.tags == ("stn_cx", "mnist", "exp")
    assert {k: v for k, v in first.init["config"].items() if k != "config"} == {
        "arch": "stn_cx", "net": "finnveden_r", "dataset": "mnist", "lr": 0.001, "seed": 3, "sig": "abc", "name": "exp",
    }  # fmt: skip
    assert first.init["config"]["config"]["optim"]["lr"] == 0.001
    assert first.metrics == [("*", "global_step")]
    assert first.logged[0]["train/loss"] == 0.25
    assert first.logged[1]["test_acc"] == 0.95
    assert [values["global_step"] for values in first.logged] == [50, 100]
    assert first.steps == [100, 201]
    assert second.logged == []
    assert first.summary["test_acc"] == 0.95
    assert (first.code, second.code) == (0, 1)


ODD = ("é ü", "a/b c", "a-b c", "x" * 200, "x" * 199 + "y", "ok_1.2")


def test_names_that_wandb_takes() -> None:
    made = [resolve(Config(arch=Arch(name="stn_cx"), log=LogFields(name=name.replace("/", ":")))) for name in ODD]
    for one in ([run_id(c, "abcdef012345", 2**31 - 1) for c in made], [group(c, "abcdef012345") for c in made]):
        assert len(set(one)) == len(ODD)
        assert all(len(text) <= 128 and re.fullmatch(r"[A-Za-z0-9_.-]+", text) for text in one)
    assert all(1 <= len(tag) <= 64 for c in made for tag in wandb_run.init_arguments(c, "abc", 0)["tags"])
    assert run_id(made[-1], "abc", 3) == "ok_1.2-abc-3"
    default = resolve(Config(arch=Arch(name="stn_cx")))
    assert group(default, "abcdef012345") == "stn_cx-mnist-abcdef"
    by_lr = resolve(Config(arch=Arch(name="stn_cx"), optim=Optim(lr=0.5)))
    assert group(by_lr, signature(by_lr)) != group(default, signature(default))


@pytest.mark.parametrize(
    ("wish", "known", "variable", "mode"),
    [
        ("auto", False, None, "offline"),
        ("auto", True, None, "online"),
        ("auto", True, "offline", "offline"),
        ("offline", True, None, "offline"),
        ("online", False, None, "online"),
        ("disabled", True, None, None),
    ],
)
def test_wandb_mode(
    wish: str,
    known: bool,
    variable: str | None,
    mode: str | None,
    wandb: list[FakeRun],
    tmp_path: Path,
    monkeypatch,
) -> None:
    import wandb as real

    monkeypatch.setattr(real, "login", lambda **_: known)
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    WandbSink(RunDir(tmp_path), config(wandb=wish), "abc", [0], print)
    assert [run.init["mode"] for run in wandb] == ([mode] if mode else [])


def test_an_unreachable_server_means_offline_once_and_for_all(
    wandb: list[FakeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb as real
    from wandb.errors import CommError

    tried, said = [], []
    working = real.init

    def init(**keywords):
        tried.append(keywords["mode"])
        if keywords["mode"] == "online":
            raise CommError("no route")
        return working(**keywords)

    monkeypatch.setattr(real, "init", init)
    monkeypatch.setattr(real, "teardown", lambda: tried.append("forgotten"))
    WandbSink(RunDir(tmp_path), config(wandb="online"), "abc", [0, 1, 2], said.append)
    WandbSink(RunDir(tmp_path), config(wandb="online"), "abc", [3], said.append)
    assert tried == ["online", "forgotten", "offline", "offline", "offline", "offline"]
    assert len(said) == 1


@pytest.mark.parametrize("when", ["opening", "write", "close"])
def test_a_dead_sink_is_one_warning(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead:
        def __init__(self, *_: object) -> None:
            self.fail("opening")

        def fail(self, now: str) -> None:
            if now == when:
                raise RuntimeError("broken pipe")

        def write(self, rows: list) -> None:
            self.fail("write")

        def close(self, results: list) -> None:
            self.fail("close")

    said: list[str] = []
    monkeypatch.setattr(log_module, "WandbSink", Dead)
    monkeypatch.setattr(log_module, "warn", said.append)
    run = RunDir(tmp_path)
    log = Log([Trial(config(), "abc", 3, run)], 0, writes=True)
    log.write([TRAIN_ROW])
    log.write([EVAL_ROW])
    log.close([])
    assert said == ["W&B is off: RuntimeError: broken pipe"]
    assert len(run.metrics.read_text().splitlines()) == 2


def test_a_process_that_does_not_write_logs_nothing(tmp_path: Path) -> None:
    log = Log([Trial(config(), "abc", 3, RunDir(tmp_path))], 0, writes=False)
    log.write([TRAIN_ROW])
    log.close([])
    assert list(tmp_path.iterdir()) == []

"""The state in which W&B shows a run that has ended."""

import pytest

from stn.commands import begin
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config
from stn.runs.directory import RunDir
from stn.tracking.wandb_run import SeedRun


class Ended:
    starting_step, summary, tags, code, preempting = 0, {}, (), None, False

    def __init__(self, **_: object) -> None:
        pass

    def define_metric(self, *_: str, **__: str) -> None:
        pass

    def mark_preempting(self) -> None:
        assert self.code is None, "it counts only while the run is open"
        self.preempting = True

    def finish(self, exit_code: int) -> None:
        self.code = exit_code


@pytest.fixture
def seed_run(tmp_path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "init", Ended)
    config = resolve(Config(arch=Arch(name="cnn")))
    return lambda **settings: SeedRun(wandb, config, "abc", 0, "online", RunDir(tmp_path), str(tmp_path), **settings)


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("failed", 1), (None, 1)])
def test_a_seed_without_result_is_preempted(status: str | None, code: int, seed_run) -> None:
    run = seed_run()
    run.finish(status and {"seed": 0, "status": status}, extras=False)
    assert (run.run.code, run.run.preempting) == (code, status is None)


def test_a_seed_that_ends_with_an_error_has_failed(seed_run) -> None:
    run = seed_run()
    try:
        raise MemoryError
    except MemoryError:
        run.finish(None)
    assert (run.run.code, run.run.preempting) == (1, False)


def test_an_upload_does_not_say_that_a_seed_is_preempted(seed_run) -> None:
    """It may be training elsewhere."""
    run = seed_run(x_update_finish_state=False)
    run.finish(None)
    assert not run.run.preempting


@pytest.mark.parametrize("more", [["--seeds", "0-3"], ["--lr", "0.1,0.2"]])
def test_several_seeds_under_a_wandb_agent_are_refused(more: list[str], monkeypatch, capsys) -> None:
    """It gives all of them one id."""
    begin.begin(["--log.no-pictures", *more], draws=False)
    monkeypatch.setenv("WANDB_SWEEP_ID", "me/stn/abc")
    begin.begin(["--log.no-pictures", *more, "--log.wandb", "disabled"], draws=False)
    begin.begin(["--log.no-pictures"], draws=False)
    with pytest.raises(SystemExit):
        begin.begin(["--log.no-pictures", *more], draws=False)
    assert "W&B agent" in capsys.readouterr().err

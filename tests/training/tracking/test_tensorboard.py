"""What TensorBoard shows of a run that was resumed."""

from pathlib import Path

from stn.runs.directory import RunDir
from stn.tracking.sinks import TensorBoardSink
from tests.support.records import metric


def test_a_resumed_run_keeps_what_was_logged_at_the_step_that_it_resumes_from(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunDir(tmp_path / "0")
    for start, steps in ((None, (10, 20, 30)), (20, (30, 40))):  # killed after step 30, with a checkpoint of step 20
        sink = TensorBoardSink(run, [0], start)
        sink.write([metric(0, step, kind="eval", test_acc=step / 100) for step in steps])
        sink.close([])
    events = EventAccumulator(str(run.path / "tensorboard" / "seed-0"))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("eval/test_acc")] == [10, 20, 30, 40]

"""--train.profile N: N steps of a block of seeds as a trace, and a table of the operations that took longest.

Both files are in the run directory, one pair per block and rank. Where they exist a block is not profiled again.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import ProfileKwargs

from stn.config.seed_list import format_seeds
from stn.runs.directory import block_name
from stn.runs.files import write_atomic
from stn.runs.trials import Trial, block_label, group_by_run
from stn.tracking.console import say, warn
from stn.training.runtime import Runtime

WARM_UP = 10
"""Steps before a profile: in the first ones libraries choose their algorithms and a GPU's graph is captured."""
ROWS = 25
"""Operations in the table."""
REPLAYED = (
    "A step that is replayed as a CUDA graph shows its kernels alone; --train.no-cuda-graph shows operations, too.\n"
)


def profile_file(trials: list[Trial], runtime: Runtime) -> Path:
    """Return the table of a block, in the run directory of its first seed."""
    group = group_by_run(trials)[0]
    rank = f"-rank-{runtime.rank}" if runtime.world > 1 else ""
    return group[0].run.path / "profile" / f"seeds-{block_name(format_seeds([t.seed for t in group]))}{rank}.txt"


@contextmanager
def profiled(
    step: Callable[[int], None], trials: list[Trial], runtime: Runtime, first: int
) -> Iterator[Callable[[int], None]]:
    """Yield the training step, which profiles itself if the configuration asks for it; ``first`` is the step before."""
    config, file = trials[0].config.train, profile_file(trials, runtime)
    assert config.steps is not None
    steps = min(config.profile, config.steps - first - WARM_UP)
    if not config.profile or file.exists():
        yield step
        return
    if steps < 1:
        warn(f"no profile: {config.steps - first} steps are left to train, a profile begins after {WARM_UP}")
        yield step
        return
    if runtime.device.type == "cpu":  # on a GPU its errors matter more than two lines of its log
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    warnings.filterwarnings("ignore", ".*clears events at the end of each cycle")  # of torch 2.11: there is one cycle
    title = f"{block_label(trials)}: steps {first + WARM_UP + 1} to {first + WARM_UP + steps} on {runtime.device}"
    schedule = {"wait": WARM_UP - 2, "warmup": 2, "active": steps, "repeat": 1}
    left = WARM_UP + steps

    def write(profiler: torch.profiler.profile) -> None:
        if left == 0:  # otherwise training was stopped in between: the next start profiles
            _write(file, title, steps, runtime.device.type, profiler)

    with runtime.accelerator.profile(ProfileKwargs(schedule_option=schedule, on_trace_ready=write)) as profiler:

        def run(size: int) -> None:
            nonlocal left
            step(size)
            if left > 0:
                left -= 1
                profiler.step()

        yield run


def _write(file: Path, title: str, steps: int, device: str, profiler: torch.profiler.profile) -> None:
    """Write the trace, then the table, and say which operations took longest; a full disk harms no training."""
    key = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    averages = profiler.key_averages()
    operations = [
        event
        for event in averages
        if event.device_type.name == device.upper() and not event.key.startswith("ProfilerStep")
    ]
    operations.sort(key=lambda event: -getattr(event, key))
    total_us = sum(getattr(event, key) for event in operations)
    table = averages.table(sort_by=key, row_limit=ROWS, max_name_column_width=60)
    trace, note = file.with_suffix(".json.gz"), "" if device == "cpu" else REPLAYED
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = trace.with_name(f".{trace.name}")
        profiler.export_chrome_trace(str(temporary))
        temporary.replace(trace)
        write_atomic(file, f"{title}\n{trace.name} opens in ui.perfetto.dev and chrome://tracing\n{note}\n{table}\n")
    except OSError as error:
        warn(f"no profile: {error}")
        return
    shares = [f"{event.key[:40]} {getattr(event, key) / max(1, total_us):.0%}" for event in operations[:3]]
    say(f"profile   {file}: {total_us / 1000 / steps:,.1f} ms a step; {', '.join(shares)}")

"""Which way to convolve is taken: the fastest of each pass, timed once for each shape."""

import pytest
import torch
import torch.nn.functional as F

from stn.config.schema import Config, Train
from stn.models import kernels
from stn.multiseed import convolution
from stn.multiseed.convolution import Convolutions
from stn.training.runtime import Runtime

WHOLE = {"grouped": 3.0, "channels_last": float("inf"), "loop": 2.0}
PASSES = {
    "forward": {"grouped": 1.0, "unfold": 0.2, "rows": 0.7, "whole": 0.5},
    "filters": {"grouped": 1.0, "unfold": 3.0, "rows": 0.1, "whole": float("inf")},
    "image": {"grouped": 1.0, "unfold": 0.8, "rows": 0.7, "whole": 0.6},
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every way take the time of the tables above; return what was timed."""
    timed: list[str] = []

    def measure(call: tuple[str, str]) -> float:
        timed.append("/".join(call))
        part, way = call
        return WHOLE[way] if part == "all" else PASSES[part][way]

    def passes(ways: list[str], arguments: tuple, groups: int, trains: bool) -> dict:
        parts = PASSES if arguments[0].requires_grad else ["forward", "filters"]
        return {part: {way: (part, way) for way in ways} for part in (parts if trains else ["forward"])}

    monkeypatch.setattr(convolution, "milliseconds", measure)
    monkeypatch.setattr(convolution, "pass_calls", passes)
    monkeypatch.setattr(convolution, "whole_call", lambda way, *_: ("all", way.__name__))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(convolution, "free_bytes", lambda device: 10**9)
    return timed


def small(batch: int = 2, to_image: bool = False) -> tuple:
    x = torch.randn(batch, 4, 6, 6, requires_grad=to_image)
    return x, torch.randn(4, 2, 3, 3), None, (1, 1), (0, 0), (1, 1)


def test_the_fastest_of_each_pass_is_taken_told_once_and_kept(clock: list[str]) -> None:
    told: list[str] = []
    choice = Convolutions("auto", told.append)
    assert choice._choose(small(), 2) == "unfold/rows"
    assert choice._choose(small(batch=7), 2) == "unfold/rows"  # another size of the batch
    assert len(clock) == 3 + 2 * 4
    assert "without Triton's kernels: there is no CUDA device" in told[0]
    assert len(told) == 2
    assert "all passes: grouped 3.00, channels_last inf" in told[1]
    assert "filters: grouped 1.00, unfold 3.00, rows 0.10" in told[1]
    resumed = Convolutions("auto")
    resumed.chosen |= dict.fromkeys(choice.chosen, "loop")
    assert resumed._choose(small(), 2) == "loop"
    assert choice._choose(small(to_image=True), 2) == "unfold/rows/whole"
    with torch.no_grad():  # a forward pass is timed by itself
        assert choice._choose(small(), 2) == "unfold"


def test_what_was_far_behind_is_not_timed_for_more_seeds(clock: list[str]) -> None:
    choice = Convolutions("auto")
    choice._choose(small(), 2)
    clock.clear()
    x, weight, *how = small()
    assert choice._choose((x.repeat(1, 2, 1, 1), weight.repeat(2, 1, 1, 1), *how), 4) == "unfold/rows"
    assert clock == ["forward/unfold", "forward/whole", "filters/rows"]


def test_pytorchs_own_passes_are_taken_where_they_are_as_fast(clock: list[str], monkeypatch) -> None:
    monkeypatch.setitem(WHOLE, "loop", 0.3)
    assert Convolutions("auto")._choose(small(), 2) == "loop"


def test_nothing_is_timed_in_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    choice = Convolutions("auto")
    assert choice._choose(small(), 2) == "channels_last"
    assert not choice.chosen


def test_matrices_that_would_fill_the_memory_are_not_tried(clock: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for free, ways in {1e4: [], 1e5: ["rows"], 1e6: ["unfold", "rows", "whole"]}.items():
        monkeypatch.setattr(convolution, "free_bytes", lambda device, free=free: free)
        clock.clear()
        Convolutions("auto")._choose(small(), 2)
        assert [name for name in clock if "forward" in name] == [f"forward/{way}" for way in ("grouped", *ways)]


def test_bands_with_mostly_zeros_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "free_bytes", lambda device: 1e12)
    arguments = torch.empty(2, 4, 28, 28), torch.empty(4, 2, 9, 9), None, (1, 1), (0, 0), (1, 1)
    tried = [name for name in convolution.OWN if convolution._worth_trying(name, arguments, 2)]
    assert tried == ["grouped", "unfold", "rows"]


def test_triton_alone_needs_a_device_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "_configure_torch", lambda *_: None)  # is for the whole process
    monkeypatch.setattr(kernels, "missing", lambda: "RuntimeError: no C compiler")
    with pytest.raises(ValueError, match=r"--train.conv triton: RuntimeError: no C compiler"):
        Runtime(Config(train=Train(conv="triton")), 1)


def test_steps_of_more_pixels_are_another_shape_and_no_kernels(clock: list[str]) -> None:
    """Triton's kernels take steps of one pixel: a choice for these is not taken over, nor carried out otherwise."""
    choice = Convolutions("auto")
    choice._choose(small(), 2)
    x, weight, bias, _, padding, dilation = small()
    choice._choose((x, weight, bias, (2, 2), padding, dilation), 2)
    assert len(choice.chosen) == 2
    strided = Convolutions("triton/rows")(x, weight, bias, 2, padding, dilation, 2)  # type: ignore[arg-type]
    assert strided is not None
    assert torch.allclose(strided, F.conv2d(x, weight, None, 2, 0, 1, 2))


def test_a_checkpoints_choice_of_what_is_missing_here_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = {"one shape": "triton/rows", "another": "rows/whole"}
    for missing, kept in {"": saved, "no C compiler": {"another": "rows/whole"}}.items():
        monkeypatch.setattr(kernels, "missing", lambda missing=missing: missing)
        choice = Convolutions("auto")
        choice.keep(saved)
        assert choice.chosen == kept

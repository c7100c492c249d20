"""What a block of seeds starts from."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import torch

from stn.training.checkpointer import Checkpointer


def test_the_scale_of_fp16_is_not_that_of_the_seed_before() -> None:
    fresh = torch.amp.GradScaler("cpu")
    used = torch.amp.GradScaler("cpu")
    used.load_state_dict(fresh.state_dict() | {"scale": 8.0, "_growth_tracker": 7})
    runtime = SimpleNamespace(writes=False, from_writer=lambda found: found, accelerator=SimpleNamespace(scaler=used))
    checkpointer = Checkpointer([], runtime, MagicMock(), MagicMock(), MagicMock())  # type: ignore[arg-type]
    assert checkpointer.load() == 0
    assert used.state_dict() == fresh.state_dict()

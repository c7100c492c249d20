"""What no single field can judge: combinations that cannot be trained."""

from stn.config.schema import Config
from stn.config.seed_list import parse_seeds


def validate(config: Config) -> None:
    """Raise ValueError for combinations of fields that cannot be trained."""
    optim, data, train = config.optim, config.data, config.train
    parse_seeds(train.seeds)
    if train.epochs is not None and train.steps is not None:
        raise ValueError("give epochs or steps, not both")
    if optim.name == "adamw" and optim.momentum is not None:
        raise ValueError("optim.name adamw takes no momentum; it has optim.betas")
    if optim.nesterov and (optim.name != "sgd" or optim.momentum == 0):
        raise ValueError("optim.nesterov needs optim.name sgd and a momentum above 0")
    if optim.schedule == "multistep" and not optim.milestones:
        raise ValueError("optim.schedule multistep needs optim.milestones")
    if optim.accumulate > data.batch_size:
        raise ValueError(f"optim.accumulate {optim.accumulate} exceeds batch_size {data.batch_size}")
    if not 0 < data.scale[0] <= data.scale[1]:
        raise ValueError(f"data.scale needs two rising numbers above 0, got {data.scale}")
    if train.precision == "fp16" and train.fuse not in ("auto", 1):
        raise ValueError("fp16 cannot fuse seeds: one seed's overflow would skip a step of all; use bf16")

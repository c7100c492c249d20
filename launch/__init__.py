"""Everything outside runs: starts trainings and sweeps, and reads their run directories. Never imports torch.

`python -m launch` (`__main__.py`, read it first) has the commands; `train.py` starts one training on this machine;
`sweep` runs many, here or on a scheduler; `wandb` uploads their records; `report` compares architectures.
Of stn it may import config, runs and tracking.
"""

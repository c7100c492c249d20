"""Everything outside runs: starts trainings and sweeps, and reads their run directories. Never imports torch.

Read `__main__.py` first: it has the commands of `python -m launch`. Of stn it may import config, runs and tracking.
"""

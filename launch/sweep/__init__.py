"""Sweeps: a file expands to cells (settings) and jobs (blocks of seeds), which run here or on a scheduler.

May import launch.train and, of stn, config, runs and tracking; never torch. Read README.md, then `commands.py`, which
goes through a sweep from top to bottom: `expand.py` and `plan.py` (file to manifest), `status.py` (what is left),
`backends.py` (where jobs run: `local.py`, `slurm.py`), `job.py` (one start of one job).
"""

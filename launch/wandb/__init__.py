"""The upload of run directories to W&B (`python -m launch wandb-sync`), from a machine that reaches the server.

May import stn's config, runs and tracking; wandb itself only inside `client.Server`. Read `sync.py` first (ask, send,
confirm), then `record.py` (what a run directory has to send) and `client.py` (the server and its errors).
"""

"""The upload of run directories to W&B (`python -m launch wandb-sync`), from a machine that reaches the server.

Imports stn's config, runs and tracking; wandb itself only inside `client.Server`. Read `sync.py` first (ask, send,
confirm), then `client.py` (what a run directory has to send, and the server).
"""

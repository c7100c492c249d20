"""The upload of run directories to W&B, from a machine that reaches the server: read `sync.py`, then `client.py`."""

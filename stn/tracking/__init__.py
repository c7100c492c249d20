"""The log of a run: console, metrics.jsonl, TensorBoard and W&B. Imports stn.config and stn.runs, never torch.

Read ``log.py`` first, then ``terminal.py``. ``wandb_run.py`` is shared with the later upload.
"""

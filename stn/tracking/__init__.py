"""Who is told of a run: the terminal, metrics.jsonl, TensorBoard and W&B.

Read ``log.py`` first: metrics.jsonl is the record, every other sink may fail without harming the run.
``wandb_run.py`` is shared with the later upload. Imports stn.config and stn.runs, never torch.
"""

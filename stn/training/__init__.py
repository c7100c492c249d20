"""The parts of train.py's loop. May import config, runs, models, data, multiseed and tracking.

Read ``running_metrics.py`` first, then ``checkpointer.py`` for what is saved when.
"""

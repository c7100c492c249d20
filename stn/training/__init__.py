"""What train.py's loop is made of: ranks, blocks of seeds, optimiser, running metrics, CUDA graph, checkpoints, stop.

May import config, runs, models, data, multiseed and tracking. Read ``running_metrics.py`` first, then
``checkpointer.py`` for what is saved when.
"""

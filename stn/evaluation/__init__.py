"""What a trained network can do: accuracy, poses, the accuracy without its transformer, weights from elsewhere.

Read ``accuracy.py`` first: evaluation is exact on any number of ranks. ``pose.py`` has the measures of
Finnveden et al. Imports stn.training and what is below it.
"""

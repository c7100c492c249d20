"""One run's directory, the only contract between training and launching.

Read ``directory.py`` first: the names of the files, and who may write them. ``lease.py`` decides who trains,
``files.py`` writes whole files or none, ``trials.py`` pairs experiments with seeds. Imports stn.config, never torch.
"""

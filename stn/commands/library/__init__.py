"""What ``import stn`` has: stn.load, stn.results and stn.metrics read finished runs into Python.

Read ``run.py`` first. May import config, runs, models, data, evaluation and training.
"""

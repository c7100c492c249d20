"""Data sets as resident bytes, their perturbations and augmentation, and batches as a function of the step.

Read ``stream.py`` first, then ``datasets.py`` (one function per data set). ``rng.py`` has counter-based random
numbers: every number is a pure function of its keys. Imports stn.config, stn.runs and stn.models.
"""

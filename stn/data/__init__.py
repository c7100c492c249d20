"""Data sets as resident bytes, their perturbations and augmentation, and batches as a function of the step.

Read ``stream.py`` first, then ``datasets.py`` (a function per data set) and ``rng.py`` (counter-based random numbers).
"""

"""Two architectures over all data sets of a report: one matrix, and performance profiles.

Nothing here depends on which other architectures a report has. Read `pairs.py` first.
"""

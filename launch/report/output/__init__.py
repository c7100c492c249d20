"""The formats of a report: HTML page, Markdown, CSV, figures and W&B report. Nothing here computes a statistic.

Imports ``launch.report.analysis``, and for W&B ``launch.wandb.client`` and ``stn.tracking.wandb_run``.
Read ``markdown.py`` first: it is the shortest path from a section to a file. ``assets/`` is the page's own code.
"""

"""Comparison reports: which differences between architectures are real, from the result rows of their seeds.

``analysis`` turns rows into statistics, tables and charts; ``output`` writes them as a page, Markdown, CSV, figures
and a W&B report; ``build`` calls both. Imports ``stn.config``, ``stn.runs``, ``stn.tracking`` and ``launch``'s plans
and W&B client, but never torch. Read ``build.py`` first, then ``analysis/sections.py``.
"""

"""Comparison reports: which differences between architectures are real, from the result rows of their seeds.

``analysis`` goes from run directories to cells, statistics, tables and charts, and a section per data set; ``across``
compares over data sets; ``provenance`` has signatures, differing configurations and warnings; ``earlier`` compares
with an earlier report; ``output`` has the formats (Markdown, CSV, LaTeX, figures, W&B report); ``build`` writes the
folder of a report, with the page. Imports ``stn.config``, ``stn.runs``, ``stn.tracking`` and ``launch``'s plans and
W&B client, but never torch. Read ``build.py`` first, then ``analysis/sections.py``.
"""

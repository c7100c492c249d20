"""What a report says: run directories -> cells -> statistics -> tables and charts -> one section per data set.

Imports ``stn.config``, ``stn.runs`` and ``launch.sweep.plan``; numpy and scipy, but not matplotlib, jinja2 or W&B.
Read ``sections.py`` first: it lists what a data set's section holds and calls the other modules.
"""

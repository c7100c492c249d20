"""The seed axis: a network is an ordinary module that sees one seed, and here many of them run as one.

Read ``README.md`` first, then ``stacked.py`` (a tensor of all seeds, and the two ways to run an operation) and
``model.py`` (the stacked model). ``checks`` looks at a network before it trains. Imports stn.data.
"""

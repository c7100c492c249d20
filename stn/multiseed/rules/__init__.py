"""Rules: how an operation on a tensor of all seeds becomes one operation on their maps, rows or channels.

Read ``basic.py`` first (``rule``, and elementwise operations), then ``layers.py``. ``order.py`` says how maps lie in
memory. Imports stn.multiseed's tensor (``stacked.py``) and its convolutions.
"""

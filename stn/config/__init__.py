"""What a user may say: the schema, YAML files, the command line, and what is resolved from them.

Read ``schema.py`` first (every field with its help text), then ``resolve.py`` (defaults filled in, durations
in steps, and the signature that identifies an experiment). ``command_line.py`` reads the flags, ``flags/foreign.py``
has a hint for those of other programs. ``registry.py`` knows the names of architectures, networks and data sets
without importing them. Imports nothing of stn, and never torch.
"""

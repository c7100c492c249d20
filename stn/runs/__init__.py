"""One run's directory, the only contract between training and launching. Imports stn.config, never torch.

Read ``directory.py`` first: the files' names, and who may write them.
"""

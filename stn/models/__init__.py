"""Ordinary modules that see one seed: layers, networks, architectures and the spatial transformer.

Read ``wirings.py`` first (one function per architecture), then ``transformer.py``. ``transforms.py`` has the
families of transforms, ``grids.py`` the grids and the bilinear sampling. Imports stn.config.
"""

"""Training spatial-transformer networks, many seeds at a time.

``@stn.register("arch")`` and the like add your own code (--plugin).
``stn.load(run)``, ``stn.results(*paths)`` and ``stn.metrics(*paths)`` read what was trained. They are imported when
they are used: ``import stn`` costs nothing.
"""

from typing import TYPE_CHECKING, Any

from stn.config.source import VERSION as __version__

if TYPE_CHECKING:
    from stn.commands.library.run import Run, load
    from stn.commands.library.tables import metrics, results
    from stn.config.registry import register
    from stn.models.transformer import Warp

__all__ = ["Run", "Warp", "__version__", "load", "metrics", "register", "results"]


_MODULES = {
    "Run": "stn.commands.library.run",
    "load": "stn.commands.library.run",
    "metrics": "stn.commands.library.tables",
    "results": "stn.commands.library.tables",
    "register": "stn.config.registry",
    "Warp": "stn.models.transformer",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module 'stn' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)

"""What needs torch, known without importing it: a function by its place. Must not know what functions there are."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Later:
    """A function that is imported when it is called."""

    module: str
    name: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(import_module(self.module), self.name)(*arguments, **options)


@dataclass(frozen=True)
class Module:
    """A module that is imported when one of its functions is called."""

    module: str

    def __getattr__(self, name: str) -> Later:
        return Later(self.module, name)

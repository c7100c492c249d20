"""Weights saved by other programs: read without executing anything, and matched to a network."""

import pickle
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

Tensors = dict[str, Tensor]
NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training checkpoints keep the state dict."""
HOW = "save its state_dict: torch.save(model.state_dict(), FILE)"


def load_plain(path: str | Path) -> Tensors:
    """Return the tensors of a safetensors file or of a torch.save file, alone or inside a training checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or damaged: {error}") from None
    except Exception as error:  # of a damaged file torch.load may say anything
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            why = "holds Python objects, which could execute code when loaded, and was not loaded"
            raise ValueError(f"{path} {why}; {HOW}") from None
        raise ValueError(f"{path} was not written by torch.save, or is damaged: {type(error).__name__}") from None
    if isinstance(found, dict):
        found = next((found[key] for key in NESTED if isinstance(found.get(key), dict) and found[key]), found)
    if not isinstance(found, dict) or not found or not all(isinstance(x, Tensor) for x in found.values()):
        raise ValueError(f"{path} holds no plain state dict of names and tensors; {HOW}")
    if bad := [name for name, tensor in found.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{path} has non-finite values in {bad[0]}: its training diverged, or the file is damaged")
    return found


def _leaf(name: str, tensor: Tensor) -> tuple[str, torch.Size]:
    """Return what two tensors share if only the names of their layers differ."""
    return name.rpartition(".")[2], tensor.shape


def _by_shape(tensors: Tensors) -> dict[frozenset, str] | None:
    """Return layers by the names and shapes of their tensors; None if two are alike."""
    layers: dict[str, list] = {}
    for name, tensor in tensors.items():
        layers.setdefault(name.rpartition(".")[0], []).append(_leaf(name, tensor))
    found = {frozenset(leaves): layer for layer, leaves in layers.items()}
    return found if len(found) == len(layers) else None


def _reorder(given: Tensors, own: Tensors) -> Tensors:
    """Return the given tensors in the order of ours, as far as that can be inferred."""
    if given.keys() == own.keys():
        return {name: given[name] for name in own}
    # safetensors files keep no order of registration: it has to follow from the shapes.
    theirs, ours = _by_shape(given), _by_shape(own)
    if [_leaf(*x) for x in given.items()] == [_leaf(*x) for x in own.items()] or not theirs or not ours:
        return given
    if theirs.keys() != ours.keys():
        return given
    layer_of = {layer: theirs[leaves] for leaves, layer in ours.items()}
    names = ((layer_of[layer], leaf) for layer, _, leaf in (name.rpartition(".") for name in own))
    return {name: given[name] for name in (f"{layer}.{leaf}".removeprefix(".") for layer, leaf in names)}


def _side_by_side(theirs: list, ours: list, nothing: tuple) -> Iterator[tuple]:
    """Yield what differs between two ordered lists; a missing entry does not shift the others."""
    matcher = SequenceMatcher(None, [leaf for leaf, _ in theirs], [leaf for leaf, _ in ours], autojunk=False)
    for kind, i, j, k, n in matcher.get_opcodes():
        if kind != "equal":
            yield from zip_longest(theirs[i:j], ours[k:n], fillvalue=nothing)


def fit(tensors: Tensors, network: nn.Module) -> Tensors:
    """Return the tensors under the network's names; matched by name, else in the order of registration."""
    own = network.state_dict()
    bare = {re.sub(r"^((module|_orig_mod)\.)+", "", name): tensor for name, tensor in tensors.items()}
    found, nothing = _reorder(bare, own), (None, "nothing")
    theirs, ours = (
        {name: (_leaf(name, x), f"{name} {list(x.shape)}") for name, x in tensors.items()} for tensors in (found, own)
    )
    if theirs.keys() & ours.keys():  # ours, if not all
        pairs = [(theirs.get(name, nothing), ours.get(name, nothing)) for name in ours | theirs]
    else:
        pairs = _side_by_side(list(theirs.values()), list(ours.values()), nothing)
    wrong = [f"{a[1]} for {b[1]}" for a, b in pairs if a[0] != b[0]]
    if wrong:
        more = f" and {len(wrong) - 5} more" * (len(wrong) > 5)
        raise ValueError(f"these weights are of another network: {', '.join(wrong[:5])}{more}")
    return dict(zip(own, found.values(), strict=True))

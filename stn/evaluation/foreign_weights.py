"""Weights saved by other programs: read without executing anything, and matched to a network."""

import json
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

Tensors = dict[str, Tensor]
NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training checkpoints keep the state dict."""
HOW = "save its state_dict: torch.save(model.state_dict(), FILE)"
MOST_TENSORS = 10_000
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


@contextmanager
def _bounded_memory(size: int) -> Iterator[None]:
    """Let the process allocate at most ``size`` more bytes: a small file may ask for any number of them."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = psutil.Process().memory_info().vms + size
    if limits[0] == resource.RLIM_INFINITY or most < limits[0]:
        resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _fault(tensor: Tensor) -> str | None:
    """Return why a tensor's values cannot be used, if they cannot."""
    if tensor.is_meta:
        return "is a meta tensor, without values"
    if tensor.layout != torch.strided or tensor.dtype not in FLOATS + INTEGERS:
        return f"is not dense floats or integers but {tensor.layout}, {tensor.dtype}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "is expanded: it has more elements than values; clone() it before saving"
    return None if tensor.isfinite().all() else "has non-finite values: its training diverged, or the file is damaged"


def load_plain(path: str | Path) -> Tensors:
    """Return the tensors of a safetensors file or of a torch.save file, alone or inside a training checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with _bounded_memory(4 * path.stat().st_size + 2**30):
            content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or damaged: {error!s:.200}") from None
    except Exception as error:  # torch.load raises anything on a damaged file
        if "GLOBAL" in str(error):
            why = "holds Python objects, which could execute code when loaded, and was not loaded"
            raise ValueError(f"{path} {why}; {HOW}") from None
        raise ValueError(f"{path} was not written by torch.save, or is damaged: {type(error).__name__}") from None
    if isinstance(content, dict):
        content = next((content[key] for key in NESTED if isinstance(content.get(key), dict) and content[key]), content)
    if not isinstance(content, dict) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise ValueError(f"{path} holds no plain state dict of names and tensors; {HOW}")
    if len(content) > MOST_TENSORS or not all(isinstance(name, str) and name.isprintable() for name in content):
        raise ValueError(f"{path} has more than {MOST_TENSORS:,} tensors, or names that are not strings; {HOW}")
    for name, tensor in content.items():
        if fault := _fault(tensor):
            raise ValueError(f"{path}: {name:.200} {fault}")
    return content


def refuse_other_arch(path: str | Path, ours: str) -> None:
    """Raise ValueError for weights that this program wrote for another architecture: shapes alone need not tell."""
    try:
        with safe_open(path, "pt") as file:
            theirs = json.loads((file.metadata() or {})["stn"])["arch"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
        return
    if theirs != ours:
        raise ValueError(f"{path} was trained as {theirs!s:.80}; this recipe's network is {ours}")


def _layers(tensors: Tensors) -> dict[frozenset, dict[str, str]]:
    """Return the names of each layer's tensors, keyed by the layer's shapes; nothing if two layers are alike."""
    layers: dict[str, dict[str, str]] = {}
    for name in tensors:
        layer, _, leaf = name.rpartition(".")
        layers.setdefault(layer, {})[leaf] = name
    by_shape = {frozenset((leaf, tensors[n].shape) for leaf, n in names.items()): names for names in layers.values()}
    return by_shape if len(by_shape) == len(layers) else {}


def fit(tensors: Tensors, network: nn.Module) -> Tensors:
    """Return the tensors under the network's names; matched by name, else by shape or the order of registration."""
    expected = network.state_dict()
    foreign = {n if n in expected else re.sub(r"^((module|_orig_mod)\.)+", "", n): x for n, x in tensors.items()}
    theirs, ours, same_names = _layers(foreign), _layers(expected), foreign.keys() & expected.keys()
    if same_names:
        foreign = {name: foreign[name] for name in expected | foreign if name in foreign}
    elif ours and theirs.keys() == ours.keys():  # safetensors files are not in the order of registration
        source = {ours[shapes][leaf]: theirs[shapes][leaf] for shapes in ours for leaf in ours[shapes]}
        foreign = {source[name]: foreign[source[name]] for name in expected}

    def entries(named: Tensors) -> list[tuple[str, torch.Size]]:
        return [(name if same_names else name.rpartition(".")[2], tensor.shape) for name, tensor in named.items()]

    # A missing tensor does not shift the others.
    labels, expected_labels = (
        [f"{name:.200} {list(x.shape)}" for name, x in named.items()] for named in (foreign, expected)
    )
    wrong = []
    for kind, i, j, k, n in SequenceMatcher(None, entries(foreign), entries(expected), autojunk=False).get_opcodes():
        if kind != "equal":
            wrong += [f"{a} for {b}" for a, b in zip_longest(labels[i:j], expected_labels[k:n], fillvalue="nothing")]
    if wrong:
        more = f" and {len(wrong) - 5} more" * (len(wrong) > 5)
        raise ValueError(f"these weights are of another network: {', '.join(wrong[:5])}{more}")
    fitted = dict(zip(expected, foreign.values(), strict=True))
    for name, tensor in fitted.items():
        if expected[name].is_floating_point() and not tensor.is_floating_point():
            raise ValueError(f"{name} needs floats, and these weights have {tensor.dtype}")
    return fitted

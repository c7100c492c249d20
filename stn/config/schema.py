"""The fields of a configuration, one model per owner; the line below a field is its help text.

``None`` in ``arch`` means "the architecture's own default"; ``stn.config.resolve`` fills it in.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from stn.config.dataset import Data
from stn.config.fields import Duration, Few, Fraction, OneLine, Positive, Section, Seeds, name_of, short
from stn.config.outputs import Checkpoint, Log
from stn.config.plugins import parse_plugin_options

Depth = Annotated[int, Field(ge=0, le=1000)]


class Arch(Section):
    """The network. Options left at None take the architecture's own default; see --list and --check."""

    model_config = ConfigDict(extra="allow")  # a plugin's architecture has options of its own

    name: Annotated[str, name_of("arch"), short("arch")] = "stn_slx"
    """Architecture: where the localisation net reads and what is warped."""
    net: Annotated[Annotated[str, name_of("net")] | None, short("net")] = None
    """Classifier with its localisation net; None: the data set's usual one."""
    depth: Depth | tuple[Depth, ...] | None = None
    """X: convolutional layers before the point at which the localisation head reads; several: a head at each."""
    transform: Annotated[str, name_of("transform")] | None = None
    """What a transformer may do: translation, attention, similarity, affine, projective, tps (thin-plate spline)."""
    points: Annotated[int, Field(ge=2, le=16)] | None = None
    """tps: control points on each side of their grid."""
    iterations: Annotated[Positive, Field(le=100)] | None = None
    """Spatial transforms in a row, sharing one head, each resampling the original."""
    test_iterations: Annotated[Positive, Field(le=100)] | None = None
    """The same at test time; None: as in training."""
    parallel: Annotated[Positive, Field(le=100)] | None = None
    """Transformers side by side, whose outputs the classifier reads as channels."""
    size: Few | None = None
    """Side of the transformer's output; None: the network's usual one."""
    antialias: bool = False
    """With a smaller output, average the input pixels that each output pixel covers."""
    padding: Literal["zeros", "border", "reflection"] | None = None
    """What the sampler reads outside of the image."""
    align_corners: bool | None = None
    """Whether -1 and 1 are the centres of the corner pixels (published numbers: True)."""
    identity: Literal["bias", "residual"] | None = None
    """How the transform starts at the identity: in the last bias, or added to an output of zero."""
    feed_theta: bool = False
    """Give the transform's parameters to the classifier's last linear layer, too."""
    theta_decay: Annotated[float, Field(ge=0)] | None = None
    """Weight, in the loss, of the squared distance of the parameters from the identity."""

    def __init__(self, /, **values: Any) -> None:
        known = type(self).model_fields
        own = {key: value for key, value in values.items() if key not in known}
        super().__init__(**values | parse_plugin_options(values.get("name", known["name"].default), own, known))


class Optim(Section):
    """The optimiser and its schedule."""

    name: Literal["sgd", "adamw"] = "adamw"
    """Optimiser."""
    lr: Annotated[float, Field(gt=0), short("lr")] = 0.001
    """Learning rate at the schedule's peak; several (0.01,0.02) train beside each other."""
    momentum: Fraction | None = None
    """SGD: momentum; None: 0.9."""
    nesterov: bool = False
    """SGD: Nesterov's form of momentum."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """AdamW: decay of the two running means."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """SGD: L2 penalty; AdamW: decoupled decay; several (0,0.0005) train beside each other."""
    schedule: Literal["constant", "step", "multistep", "cosine", "onecycle"] = "onecycle"
    """How the learning rate moves after the warm-up."""
    warmup: Duration = "0 epochs"
    """Linear warm-up; onecycle: the rising part (0: three tenths of the run)."""
    step_every: Duration = "15 epochs"
    """step: multiply by gamma each time that this much has passed."""
    milestones: tuple[Duration, ...] = ()
    """multistep: multiply by gamma at each of these."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """step, multistep: the factor."""
    start_factor: Annotated[float, Field(gt=0, le=1)] = 0.04
    """onecycle: the learning rate starts at lr times this."""
    final_factor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """onecycle, cosine: the learning rate ends at lr times this."""
    anneal: Literal["linear", "cosine"] = "cosine"
    """onecycle: shape of both parts."""
    label_smoothing: Fraction = 0.0
    """Share of the target spread over all classes."""
    clip: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of a seed's gradient; 0: no clipping."""
    accumulate: Annotated[Positive, Field(le=100_000)] = 1
    """Parts that each batch is computed in, to save memory; the batch stays what it is."""
    loc_lr_multiplier: Annotated[float, Field(ge=0)] = 1.0
    """Learning rate of the localisation net, times lr."""


class Train(Section):
    """Length, seeds, precision and processes."""

    seeds: Annotated[Seeds, short("seeds")] = "0"
    """Seeds to train, such as 0,3,8-15."""
    epochs: Annotated[float | None, Field(gt=0, le=1_000_000), short("epochs")] = None
    """Length in epochs (8 where neither epochs nor steps is given)."""
    steps: Annotated[int | None, Field(gt=0, le=10**12), short("steps")] = None
    """Length in optimiser steps, instead of epochs."""
    fraction: Annotated[float, Field(gt=0, le=1), short("fraction")] = 1.0
    """Train this fraction of the length, with the learning-rate schedule and the evaluations shortened to match."""
    precision: Annotated[Literal["fp32", "bf16", "fp16", "fp64"], short("precision")] = "fp32"
    """bf16 and fp16 are mixed precision; fp16 needs a GPU."""
    tf32: bool = False
    """CUDA: allow TF32 in matrix products and convolutions."""
    deterministic: bool = False
    """CUDA: refuse operations whose result depends on timing; the warp's gradients add up in integers."""
    compile: bool = False
    """torch.compile the network, on CUDA the update too (needs Triton there); seldom worth its start-up."""
    cuda_graph: bool = True
    """Record a training step once and replay it: as a CUDA graph, on a CPU as its operations (not of plugins)."""
    conv: Literal["auto", "grouped", "channels_last", "loop", "unfold", "rows", "whole", "triton"] = "auto"
    """How several seeds convolve; auto on CUDA: the fastest, timed for each shape (grouped: DDP, deterministic)."""
    parallel: Annotated[Literal["auto", "data", "seeds"], short("parallel")] = "auto"
    """data: processes share each batch; seeds: each trains its own seeds."""
    fuse: Annotated[Few | Literal["auto"], short("fuse")] = "auto"
    """Seeds trained as one network in each process, at most; auto: by trial (env.json), 4 in short runs on a CPU."""
    processes: Annotated[Few | None, short("processes")] = None
    """Refuse to start in any other number of processes."""
    threads: Few | None = None
    """CPU threads of a process; None: the cores that other programs leave, divided among the processes."""
    time_limit: Annotated[float | None, Field(gt=0, le=1_000_000)] = None
    """Minutes after which the run saves and exits; the same command resumes it."""
    plugins: Annotated[tuple[OneLine, ...], short("plugin")] = ()
    """Modules with your own architectures, networks, data sets, transforms and metrics: my_package.module."""
    profile: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps of each block of seeds to profile once, after ten others: a trace and a table, in the run directory."""


class Eval(Section):
    """When and how to evaluate."""

    every: Duration = "1 epochs"
    """Time between evaluations; there is always one at the end."""
    batch_size: Annotated[Positive, Field(le=100_000)] = 1000
    """Test images at a time in each process; a CPU takes fewer of large ones, a GPU up to eight times as many."""
    metrics: tuple[Annotated[str, name_of("metric")], ...] = ()
    """More numbers for each evaluation, by name, such as ece; see --list."""
    mirror: bool = False
    """Score each image with its mirror image: the mean of both logits."""


class Config(Section):
    """All sections."""

    arch: Arch = Arch()
    data: Data = Data()
    optim: Optim = Optim()
    train: Train = Train()
    eval: Eval = Eval()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Field(default_factory=Log)  # anew each time: it follows the environment

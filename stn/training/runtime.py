"""The process: Accelerate, its ranks, threads and arithmetic."""

import os
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib import import_module
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
    parse_flag_from_env,
)
from torch import Tensor

from stn.config.flags.launcher import PARENT, launched, launched_alone
from stn.config.resolve import entries_of
from stn.config.schema import Config
from stn.models import kernels
from stn.multiseed.convolution import convolutions_for
from stn.multiseed.model import StackedModel
from stn.runs.cores import Neighbours, cores
from stn.runs.process import follow_parent, gpus_promised, keep_freed_memory
from stn.runs.trials import build_trials
from stn.tracking.console import say, warn

T = TypeVar("T")


class Runtime:
    """This process among the others: its device, its rank, and the collectives of training."""

    def __init__(
        self, config: Config, trials: int, configs: Sequence[Config] = (), neighbours: Neighbours | None = None
    ) -> None:
        if launched():
            # Launchers do not forward every signal, and when one is killed its processes would train on unseen.
            follow_parent(PARENT)
        # A process that has trained its own seeds waits for the others at the end.
        world = int(os.environ.get("WORLD_SIZE", "1"))
        shares_seeds = config.train.parallel == "data" or (config.train.parallel == "auto" and trials < world)
        self.accelerator = self._accelerator(config, timedelta(minutes=30) if shares_seeds else timedelta(days=7))
        self.processes, self.process = self.accelerator.num_processes, self.accelerator.process_index
        self.device = self.accelerator.device
        asked = config.train.processes or os.environ.get("WORLD_SIZE") or ("several" if launched_alone() else None)
        if asked and str(asked) != str(self.processes):
            raise ValueError(
                f"processes asked for: {asked}, running: {self.processes}. "
                "On CPUs: accelerate launch --config_file configs/accelerate/cpu2.yaml, without --cpu"
            )
        self.mode = self._mode(config, trials)
        self.rank, self.world = (self.process, self.processes) if self.mode == "data" else (0, 1)
        """Rank and world size among the processes that train the same seeds, each on its part of the batch."""
        self.share = (self.process, self.processes) if self.mode == "seeds" else (0, 1)
        """Index and number of the parts in which processes divide the seeds."""
        self.shares = [build_trials(list(configs), part, self.share[1]) for part in range(self.share[1])]
        """What each of these parts has to train."""
        self.writes = self.rank == 0
        """Whether this process writes the run directory."""
        self.dtype = torch.float64 if config.train.precision == "fp64" else torch.float32
        self._configure_torch(config, neighbours)
        self.convolutions = convolutions_for(config.train.conv, config.train.deterministic or self.world > 1, say)
        self.compiles = config.train.compile and self._can_compile()

    @staticmethod
    def _accelerator(config: Config, timeout: timedelta) -> Accelerator:
        """Build the Accelerator for the configuration, which has the launcher's settings in it."""
        cpu_chosen, has_gpu = parse_flag_from_env("ACCELERATE_USE_CPU"), torch.cuda.is_available()
        on_cpu = cpu_chosen or not has_gpu
        if gpus_promised() and not (has_gpu or cpu_chosen):
            warn("PyTorch finds none of the GPUs that CUDA_VISIBLE_DEVICES or Slurm names: training on the CPU")
        if config.train.precision == "fp16" and on_cpu:
            raise ValueError("fp16 needs a GPU; use bf16 on a CPU")
        precision = config.train.precision if config.train.precision in ("bf16", "fp16") else "no"
        # DDP reorders its buckets after the first step, and with more than two ranks a resumed run would add in
        # another order than an undisturbed one. Looking for unused parameters keeps the order (seen with 4 gloo ranks).
        handlers = [InitProcessGroupKwargs(timeout=timeout), DistributedDataParallelKwargs(find_unused_parameters=True)]
        # Compiling is train_block's: Accelerate would compile the network of all seeds.
        return Accelerator(cpu=on_cpu, mixed_precision=precision, dynamo_backend="no", kwargs_handlers=handlers)

    def _can_compile(self) -> bool:
        """Whether torch.compile can run on every rank; say so where it cannot."""
        if reason := self.first_reason((kernels.missing() or None) if self.device.type == "cuda" else None):
            warn(f"--train.compile needs Triton and is left out: {reason}")
        return not reason

    def _mode(self, config: Config, trials: int) -> str:
        """Return whether processes divide the seeds or each batch: 'seeds' or 'data', 'single' for one process."""
        mode = config.train.parallel
        if mode == "auto":
            mode = "seeds" if trials >= self.processes else "data"
        if mode == "seeds" and trials < self.processes:
            raise ValueError(f"--parallel seeds: {trials} seeds cannot keep {self.processes} processes busy")
        return "single" if self.processes == 1 else mode

    def _configure_torch(self, config: Config, neighbours: Neighbours | None) -> None:
        """Set threads, arithmetic and determinism of this process."""
        settings = config.train
        torch.set_num_threads(settings.threads or self._threads(settings.deterministic, neighbours))
        for entry in entries_of(config):  # a plugin may set the arithmetic when it is imported: here, not later
            import_module(entry.module)
        torch.set_float32_matmul_precision("highest")
        torch.backends.mkldnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
        torch.backends.cudnn.benchmark = not settings.deterministic
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        if self.device.type == "cpu":
            keep_freed_memory()

    def _threads(self, fixed: bool, neighbours: Neighbours | None) -> int:
        """Return this process's part of the cores, without those that other programs keep busy."""
        processes = int(os.environ.get("LOCAL_WORLD_SIZE") or self.processes)
        most = max(1, cores() // processes)
        if most == 1 or fixed or neighbours is None or self.device.type != "cpu":
            return most
        busy = neighbours.busy_cores()
        threads = max(1, (cores() - busy) // processes)
        if threads < most:
            say(f"{threads} of {most} threads: other programs keep {busy} of {cores()} cores busy")
        return threads

    def prepare(self, model: StackedModel, optimiser: torch.optim.Optimizer, precision: str | None = None) -> tuple:
        """Return the model to call in training (DDP where ranks share seeds) and the optimiser to step.

        In a process of mixed precision, a trial of fp32 gets both back as they are.
        """
        if precision == "fp32" and self.accelerator.mixed_precision != "no":
            return model, optimiser
        model.convolutions = self.convolutions
        model.all_reduce = self.total if self.world > 1 else None
        # device_placement=True is the default: passing it skips Accelerate's import of DTensor (1 s).
        prepared = self.accelerator.prepare_model(model, device_placement=True, evaluation_mode=self.world == 1)
        model.flatten()  # DDP gives parameters memory of their own
        # Accelerate's optimiser is needed for skipped steps in fp16 only, and costs 0.3 ms a step.
        return prepared, self.accelerator.prepare_optimizer(optimiser) if self.accelerator.scaler else optimiser

    def can_replay(self, config: Config) -> bool:
        """Whether a step can be recorded and replayed: it needs no other process and no host sync.

        On a CPU a plugin's network is called at every step: it may be anything that Python can write.
        """
        reason = "processes share each batch" if self.world > 1 else "fp16 asks whether to skip a step"
        can = self.world == 1 and self.accelerator.scaler is None
        if config.train.cuda_graph and self.device.type == "cuda" and not can and self.writes:
            say(f"note: steps are not replayed as a CUDA graph: {reason}")
        calls_python = self.device.type == "cpu" and (config.train.compile or config.train.plugins)
        return config.train.cuda_graph and can and not calls_python

    def sync(self, module: torch.nn.Module, last: bool) -> AbstractContextManager:
        """Return the context of one part of a batch: DDP reduces gradients in the last one only."""
        return nullcontext() if last else self.accelerator.no_sync(module)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients; without fp16's scaler, Accelerate's method would only divide the loss by 1."""
        self.accelerator.backward(loss) if self.accelerator.scaler else loss.backward()

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum over the ranks that share these seeds."""
        return self.accelerator.reduce(tensor, "sum") if self.world > 1 else tensor  # type: ignore[return-value]

    def gather(self, tensor: Tensor) -> Tensor:
        """Return a row per rank that shares these seeds."""
        row = tensor.unsqueeze(0)
        return self.accelerator.gather(row) if self.world > 1 else row  # type: ignore[return-value]

    def first_reason(self, reason: str | None) -> str | None:
        """Return the reason of the first rank that has one, of those that share these seeds."""
        if not self.total(torch.tensor(int(reason is not None), device=self.device)):
            return None
        return next(filter(None, gather_object([reason]) if self.world > 1 else [reason]))

    def from_writer(self, value: T) -> T:
        """Return the writing rank's value on every rank."""
        return broadcast_object_list([value])[0] if self.world > 1 else value

    def facts(self) -> dict:
        """Return what env.json records of the process."""
        cuda = self.device.type == "cuda"
        return {
            "device": str(self.device),
            "device_name": torch.cuda.get_device_name(self.device) if cuda else platform.processor(),
            "world_size": self.processes,
            "mode": self.mode,
            "threads": torch.get_num_threads(),
            "compiled": self.compiles,
        }

    def end(self) -> None:
        """Leave the process group; in another order gloo aborts after success (8 of 14 runs)."""
        self.accelerator.wait_for_everyone()
        self.accelerator.free_memory()
        self.accelerator.end_training()

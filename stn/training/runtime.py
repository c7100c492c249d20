"""The process: Accelerate, ranks, threads, arithmetic. Must not know what is trained."""

import ctypes
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    parse_flag_from_env,
)
from torch import Tensor

from stn.config.schema import Config
from stn.multiseed.model import StackedModel
from stn.runs.process import cores, follow_launcher

T = TypeVar("T")
_ACCELERATE = {"fp32": "no", "fp64": "no", "bf16": "bf16", "fp16": "fp16"}


def _asked_for(config: Config) -> int | None:
    """How many processes somebody wanted: the configuration, torchrun, or accelerate's launcher.

    accelerate launch --cpu --num_processes 2 starts one process only. What gives it away is
    the rendezvous address that it sets for several, without a world size to go with it.
    """
    if config.train.processes is not None:
        return config.train.processes
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    if "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ:
        try:
            launcher = psutil.Process().parent()
            if launcher is not None and "MASTER_ADDR" not in launcher.environ():
                return -1
        except psutil.Error:
            pass
    return None


def _keep_memory() -> None:
    """glibc keeps freed memory; large batches otherwise pay page faults at every step."""
    if sys.platform == "linux":
        m_trim_threshold, m_mmap_max = -1, -4
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


class Runtime:
    """What a process is among others, and the few things that they do together."""

    def __init__(self, config: Config, trials: int) -> None:
        train, world = config.train, int(os.environ.get("WORLD_SIZE", "1"))
        on_cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
        if train.precision == "fp16" and on_cpu:
            raise ValueError("fp16 needs a GPU; use bf16 on a CPU")
        follow_launcher()
        launcher_precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if launcher_precision not in ("no", _ACCELERATE[train.precision]):
            raise ValueError(
                f"the launcher asks for {launcher_precision}; say --precision {launcher_precision} instead"
            )
        # A process that has trained its own seeds waits for the others at the end.
        shares_seeds = train.parallel == "data" or (train.parallel == "auto" and trials < world)
        timeout = timedelta(minutes=30) if shares_seeds else timedelta(days=7)
        # DDP reorders its buckets after the first step, and with more than two ranks a resumed
        # run would add in another order than an undisturbed one. Looking for unused parameters
        # keeps the order (seen with 4 gloo ranks).
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision=_ACCELERATE[train.precision],
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout), ddp],
        )
        if self.accelerator.gradient_accumulation_steps != 1:
            raise ValueError("the launcher asks for gradient accumulation; say --optim.accumulate instead")
        self.processes, self.process = self.accelerator.num_processes, self.accelerator.process_index
        self.device = self.accelerator.device
        asked = _asked_for(config)
        if asked is not None and asked != self.processes:
            wish = "several processes were" if asked == -1 else f"{asked} process{'es were' if asked != 1 else ' was'}"
            raise ValueError(
                f"{wish} asked for, but {self.processes} trains here. On CPUs: "
                "accelerate launch --config_file configs/accelerate/cpu2.yaml, without --cpu"
            )
        if train.parallel == "auto":
            self.mode = "seeds" if trials >= self.processes else "data"
        else:
            self.mode = train.parallel
        if self.mode == "seeds" and trials < self.processes:
            raise ValueError(f"--parallel seeds: {trials} seeds cannot keep {self.processes} processes busy")
        if self.processes == 1:
            self.mode = "single"
        self.rank, self.world = (self.process, self.processes) if self.mode == "data" else (0, 1)
        """Among the ranks that train the same seeds, each on its part of the batch."""
        self.share = (self.process, self.processes) if self.mode == "seeds" else (0, 1)
        """Which part of the seeds this process trains."""
        self.writes = self.rank == 0
        """Whether this process writes the run directory."""
        self._settings(config)

    def _settings(self, config: Config) -> None:
        local = int(os.environ.get("LOCAL_WORLD_SIZE") or self.processes)
        torch.set_num_threads(config.train.threads or max(1, cores() // local))
        torch.backends.cuda.matmul.allow_tf32 = config.train.tf32
        torch.backends.cudnn.allow_tf32 = config.train.tf32
        torch.backends.cudnn.benchmark = not config.train.deterministic
        if config.train.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        if self.device.type == "cpu":
            _keep_memory()
        self.dtype = torch.float64 if config.train.precision == "fp64" else torch.float32

    def prepare(self, model: StackedModel, optimiser: torch.optim.Optimizer) -> tuple:
        """The model as it is called in training (DDP where ranks share seeds), and the optimiser."""
        # device_placement is True anyway: said, it spares the second that a look for DTensors takes to import.
        prepared = self.accelerator.prepare_model(model, device_placement=True, evaluation_mode=self.world == 1)
        model.flatten()  # DDP gives parameters memory of their own
        # Accelerate's optimiser is needed for skipped steps in fp16 only, and costs 0.3 ms a step.
        return prepared, self.accelerator.prepare_optimizer(optimiser) if self.accelerator.scaler else optimiser

    def can_graph(self, config: Config) -> bool:
        """Whether a step may be recorded: nothing in it waits for another process or for the host."""
        return config.train.cuda_graph and self.world == 1 and self.accelerator.scaler is None

    def sync(self, module: torch.nn.Module, last: bool) -> AbstractContextManager:
        """Gradients are exchanged in the last part of a batch only."""
        return nullcontext() if last else self.accelerator.no_sync(module)

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks that share seeds."""
        return self.accelerator.reduce(tensor, "sum") if self.world > 1 else tensor  # type: ignore[return-value]

    def any_rank(self, flag: bool) -> bool:
        return bool(self.total(torch.tensor(int(flag), device=self.device)))

    def from_writer(self, value: T) -> T:
        """What the writing rank says, on every rank."""
        return broadcast_object_list([value])[0] if self.world > 1 else value

    def facts(self) -> dict:
        """What env.json says of the process."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.processor()
        return {
            "device": str(self.device),
            "device_name": name,
            "world_size": self.processes,
            "mode": self.mode,
            "threads": torch.get_num_threads(),
        }

    def end(self) -> None:
        """In this order, or gloo aborts after success."""
        self.accelerator.wait_for_everyone()
        self.accelerator.free_memory()
        self.accelerator.end_training()

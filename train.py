"""Train one architecture: one or many seeds, on one or many processes.

    accelerate launch train.py --arch stn_slx --dataset mnist --seeds 0

Read ``train_block`` from top to bottom: it is the whole loop.
S seed, B batch, C channel, H, W, K class.
"""

import sys

from stn import cli

command = cli.parse(sys.argv[1:])  # before torch is imported: --help and typos answer at once

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn import checkpoint, env, optim
from stn.archs import build_model
from stn.archs.wirings import count
from stn.config import dump_yaml, format_seeds, parse_seeds, signature, steps_of
from stn.data.stream import Batch, Stream
from stn.describe import check, list_names
from stn.evaluate import evaluate
from stn.finish import wrap_up
from stn.log import Log, say
from stn.meter import Meter
from stn.resolve import build_dataset, resolve
from stn.resume import Progress
from stn.rng import Site, derived_seed
from stn.rundir import Row, RunDir, write_atomic
from stn.runtime import Runtime
from stn.schema import Config
from stn.seeds import Seeds
from stn.stop import Stop


def gradients(config: Config, runtime: Runtime, forward: nn.Module, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
    """Add up the gradients of a batch, in parts if asked; each seed's mean loss and share of hits, [S]."""
    losses, hits = [], []
    parts = list(batch.parts(config.optim.accumulate))
    for i, part in enumerate(parts):
        with runtime.sync(forward, last=i == len(parts) - 1):
            logits_SBK = forward(part.x_SBCHW, step, part.row_B)
            S, B, K = logits_SBK.shape
            logits_MK, y_M = logits_SBK.reshape(S * B, K), part.y_SB.reshape(S * B)
            each_M = F.cross_entropy(logits_MK, y_M, reduction="none", label_smoothing=config.optim.label_smoothing)
            loss_S = (each_M.view(S, B) * part.weight_B).sum(1)
            runtime.accelerator.backward(loss_S.sum())
        losses.append(loss_S.detach())
        hits.append((logits_MK.detach().argmax(-1).eq(y_M).view(S, B) * part.weight_B).sum(1))
    return torch.stack(losses).sum(0), torch.stack(hits).sum(0)


def train_block(config: Config, sig: str, runtime: Runtime, run: RunDir, stop: Stop, seeds: list[int]) -> list[Row]:
    """Train a block of seeds side by side; result rows of those that finished or failed."""
    steps = config.train.steps
    assert steps is not None

    # ---- data, model, optimiser
    dataset = build_dataset(config.data.name)
    stream = Stream(config.data, dataset, seeds, runtime.device, runtime.dtype, runtime.rank, runtime.world)
    model = Seeds(lambda: build_model(config.arch, dataset.shape, dataset.classes), seeds)
    model.to(runtime.device, runtime.dtype).to(memory_format=runtime.memory_format)
    if config.train.compile:
        model.compile_each()
    optimiser = optim.build_optimiser(config.optim, model)
    forward, stepper = runtime.prepare(model, optimiser)
    meter = Meter(seeds, runtime, "val" if config.data.validation else "test")

    # ---- resume
    progress = Progress(run, runtime, model, optimiser, meter, steps)
    step = progress.load()
    if step:
        say(f"seed {format_seeds(seeds)} goes on at step {step} of {steps}")

    # ---- the loop
    model.train()
    with Log(run, config, sig, seeds, step, runtime.writes) as log:
        meter.tick(training=False)
        while step < steps and meter.alive() and not stop.due(step):
            lr = optim.learning_rate(config.optim, step, steps)
            optim.set_learning_rate(optimiser, lr)
            runtime.seed(derived_seed(seeds[0], Site.OTHER, step, runtime.rank))  # for what is not counter-based
            loss_S, hits_S = gradients(config, runtime, forward, stream.batch(step), step)
            if config.optim.clip:
                runtime.accelerator.unscale_gradients(stepper)
                optim.clip_gradients(model, config.optim.clip)
            stepper.step()
            stepper.zero_grad()
            meter.add(step, loss_S, hits_S, images=stream.batch_size(step) * len(seeds))
            step += 1

            epoch = step / stream.steps_per_epoch
            if due(config.log.every, step, steps):
                log.rows(meter.train_rows(step, epoch, lr))
            if due(config.eval.every, step, steps):
                meter.tick(training=True)
                scores = evaluate(model, stream, config.eval.batch_size, runtime)
                log.rows(meter.eval_rows(step, epoch, scores))
                meter.tick(training=False)
            if due(config.checkpoint.every, step, steps) and step < steps:
                progress.save(step, config.checkpoint.keep)

        # ---- leave
        rows: list[Row] = []
        if step < steps and meter.alive():
            progress.save(step, config.checkpoint.keep)
        else:
            for seed, one in zip(seeds, model.models, strict=True):
                facts = {"params": count(one), "steps": step, "epochs": step / stream.steps_per_epoch}
                weights = one.state_dict()
                facts["weights_sha256"] = checkpoint.digest(weights)
                rows.append(identity(config, sig, seed) | facts | meter.result(seed) | runtime.result())
                if runtime.writes:
                    checkpoint.save_final(run, seed, weights)
                    run.add_result(rows[-1])
        log.close(rows)
    runtime.accelerator.free_memory()
    return rows


def due(every: str, step: int, steps: int) -> bool:
    return step % steps_of(every, 1) == 0 or step == steps


def identity(config: Config, sig: str, seed: int) -> Row:
    """What a result row says of the experiment."""
    return {
        "sig": sig,
        "seed": seed,
        "name": config.log.name,
        "arch": config.arch.name,
        "net": config.arch.net,
        "dataset": config.data.name,
        "precision": config.train.precision,
        "batch_size": config.data.batch_size,
    }


def train(config: Config, runtime: Runtime, stop: Stop, run: RunDir, sig: str, seeds: list[int]) -> int:
    """Train the seeds that are not finished, block by block; the exit code."""
    if runtime.writes and set(seeds) - set(run.finished()):
        run.lock(tell=say)
        checkpoint.drop_torn(run)
        write_atomic(run.config, dump_yaml(config))
        write_atomic(run.env, env.describe(sig=sig, **runtime.facts()))
    # Under the lock: another copy may have finished some in the meantime.
    todo = runtime.from_writer([s for s in seeds if s not in run.finished()] if runtime.writes else [])
    for start in range(0, len(todo), config.train.fuse):
        train_block(config, sig, runtime, run, stop, todo[start : start + config.train.fuse])
        if stop.reason:
            break
    return wrap_up(config, run, sig, seeds, stop.reason, bool(todo)) if runtime.writes else 0


def main() -> int:
    try:
        if command.list:
            return list_names()
        config = resolve(command)
        if command.check:
            return check(config)
        seeds, sig = parse_seeds(config.train.seeds), signature(config)
        runtime = Runtime(config, seeds)
        dataset = build_dataset(config.data.name)
        build_model(config.arch, dataset.shape, dataset.classes)  # whatever is wrong, before there is a directory
    except ValueError as error:
        cli.fail(error)
    try:
        with runtime.accelerator.local_main_process_first():  # one process of a machine downloads
            dataset.load(config.data.root)
    except ValueError as error:
        cli.fail(error, everywhere=True)
    seeds = runtime.own(seeds)
    assert config.log.name is not None
    run = RunDir.of(config.log.runs, config.log.name, sig, seeds)
    stop = Stop(run.stop, config.train.time_limit, runtime.any_rank if runtime.world > 1 else None)
    stop.listen()
    try:
        code = train(config, runtime, stop, run, sig, seeds)
    except OSError as error:
        cli.fail(error, code=1, everywhere=True)
    runtime.end()
    return code


if __name__ == "__main__":
    sys.exit(main())

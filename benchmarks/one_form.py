"""One process of a form, which fused.py starts for each measurement.

The argument is a JSON object that names the form. The process prints when it is ready, trains in its turns (turns.py)
and answers at last with one line of JSON.
"""

import json
import os
import resource
import sys
import warnings
from typing import Any

import forms
import torch
from configured import configure
from measure import CORES
from traffic import work_per_image
from turns import Turns

from stn.runs.process import keep_freed_memory


def facts(networks: dict[str, list[str]]) -> dict[str, Any]:
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y", "t")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and not on_cpu else None
    return {"gpu": gpu, "networks": {name: work_per_image(configure(*words)) for name, words in networks.items()}}


def prepare(job: dict[str, Any], device: torch.device) -> forms.Step:
    """Return the step of a form, with PyTorch's default settings for plain forms and train.py's for fused ones."""
    kind, precision = job["kind"], job["precision"]
    torch.set_num_threads(1 if job["processes"] > 1 else job.get("threads", CORES))
    if kind in ("fused", "product"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if kind in ("product", "copy"):
        return forms.product(device, precision == "bf16") if kind == "product" else forms.copy(device)
    config = configure(*job["network"])
    if kind == "fused":
        torch.backends.cudnn.benchmark = True
        if device.type == "cpu":
            keep_freed_memory()
        return forms.fused(config, device, job["seeds"], precision == "bf16", job["graph"] or device.type == "cpu")
    if kind == "vmap":
        return forms.vmapped(config, device, job["seeds"])
    if kind == "loader":
        return forms.plain(config, device, forms.loader(config, job["root"], job["workers"], device.type == "cuda"))
    return forms.plain(config, device, forms.resident(config, device))


def main(job: dict[str, Any]) -> dict[str, Any]:
    if job["kind"] == "facts":
        return facts(job["networks"])
    device = torch.device("cuda" if job["cuda"] else "cpu")
    step = prepare(job, device)
    step()
    turns = Turns(job["seconds"])
    over = not turns.wait()
    while not over:
        # The host runs ahead of a GPU: synchronise every 50 steps only.
        images = sum(step() for _ in range(50 if job["cuda"] else 1))
        over = turns.enough(images, torch.cuda.synchronize if job["cuda"] else lambda: None)
    peak = (
        torch.cuda.max_memory_allocated() if job["cuda"] else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {"peak_mb": peak / 1e6}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # PyTorch warns of more workers than cores, which we measure on purpose
    job = json.loads(sys.argv[1])
    print(json.dumps(main(job)), flush=True)
    if not job.get("workers"):
        os._exit(0)  # PyTorch's own end takes a second

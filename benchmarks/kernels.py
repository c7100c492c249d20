"""Print the kernels that take most of a training step on a GPU, as JSON: kernels.py NETWORK SEEDS.

Five steps of the fused form of fused.py, without a CUDA graph, under torch's profiler.
"""

import json
import sys

import forms
import torch
from configured import configure
from measured import NETWORKS
from torch.profiler import ProfilerActivity, profile

STEPS, MOST = 5, 10


def main(network: str, seeds: int) -> dict:
    device = torch.device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    step = forms.fused(configure(*NETWORKS[network]), device, seeds, bf16=False, graph=False)
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
    events = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    events.sort(key=lambda event: -event.self_device_time_total)
    rows = [
        {
            "kernel": event.key[:120],
            "ms_a_step": event.self_device_time_total / 1e3 / STEPS,
            "calls": event.count / STEPS,
        }
        for event in events
    ]
    total = sum(row["ms_a_step"] for row in rows)
    launches = sum(row["calls"] for row in rows)
    return {"network": network, "seeds": seeds, "ms_a_step": total, "launches": launches, "kernels": rows[:MOST]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))), flush=True)

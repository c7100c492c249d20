"""Steps as CUDA graphs, on a CUDA device. Skipped where there is none."""

import pytest
import torch

from stn.training.replay import cuda_graph

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_recorded_steps_are_replayed_for_each_size() -> None:
    seen = torch.zeros(3, device="cuda")
    size = [0]

    def step() -> None:
        seen[size[0]] += torch.ones((), device="cuda")

    replay = cuda_graph.GraphedStep(step, torch.device("cuda"), True, print)
    for i in range(30):
        size[0] = i % 3
        replay(size[0])
    assert seen.tolist() == [10, 10, 10]
    assert len(replay._graphs) == 3


def test_steps_go_on_after_an_evaluation_had_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "LARGE", 0)
    x, p = torch.arange(2.0**20, device="cuda"), torch.ones(2**20, device="cuda", requires_grad=True)
    optimiser = torch.optim.SGD([p], lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        (p * x.sin()).square().sum().backward()
        optimiser.step()

    def train(graphed: bool) -> torch.Tensor:
        p.data.fill_(1)
        run = cuda_graph.GraphedStep(step, torch.device("cuda"), graphed, pytest.fail)
        for _ in range(3):
            for _ in range(cuda_graph.WARM_UP + 3):
                run(1)
            if graphed:
                run.make_room(optimiser)
                assert p.grad is None
                torch.full((2**22,), float("nan"), device="cuda")  # an evaluation's, in the memory that was the graph's
        return p.detach().clone()

    assert torch.equal(train(graphed=True), train(graphed=False))

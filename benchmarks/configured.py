"""The configuration of a benchmark's network; what it imports, a peer has to wait for."""

from peer_forms import BATCH, LR

from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim


def configure(arch: str, net: str, dataset: str) -> Config:
    published = {"padding": "zeros", "align_corners": False} if net == "tutorial" else {}
    return resolve(
        Config(
            arch=Arch(name=arch, net=net, **published),  # type: ignore[arg-type]
            data=Data(name=dataset, batch_size=BATCH),
            optim=Optim(name="sgd", lr=LR, momentum=0, schedule="constant"),
        )
    )

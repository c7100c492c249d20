"""Networks with a transformer, and the stream of their images."""

from copy import deepcopy

from torch import nn

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.data.stream import Stream
from stn.evaluation.pose import measure_poses
from stn.evaluation.pose_statistics import Points
from stn.models.build import build_network
from stn.models.wirings import Transformed
from stn.multiseed.model import StackedModel


def make(arch: str, dataset: str, **options) -> tuple[Transformed, Stream]:
    config = resolve(Config(arch=Arch(name=arch, **options), data=Data(name=dataset, limit_test=400)))
    facts = build_dataset(dataset)
    model = build_network(config)
    assert isinstance(model, Transformed)
    return model, Stream(config.data, facts, [0])


def measure_pose(model: nn.Module, stream: Stream, images: int) -> tuple[dict, Points]:
    return measure_poses(StackedModel(lambda: deepcopy(model), [0]), stream, images)[0]

"""Networks with a transformer, and the stream of their images."""

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.models.wirings import Transformed


def make(arch: str, dataset: str, **options) -> tuple[Transformed, Stream]:
    config = resolve(Config(arch=Arch(name=arch, **options), data=Data(name=dataset, limit_test=400)))
    facts = build_dataset(dataset)
    model = build_network(config)
    assert isinstance(model, Transformed)
    return model, Stream(config.data, facts, [0])

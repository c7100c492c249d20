"""A network as somebody else may have written and saved it, and ours of the same shape."""

from torch import nn

from tests.support.networks import seeded_network


class Coord(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(3, 8, 7)


class Theirs(nn.Module):
    """The layers of the PyTorch tutorial's network with CoordConv, under the names that they have there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, 10)
        self.localization = nn.Sequential(Coord(), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 10, 5))
        self.fc_loc = nn.Sequential(nn.Linear(90, 32), nn.ReLU(), nn.Linear(32, 6))


def ours() -> nn.Module:
    return seeded_network("stn_c0_coord", net="tutorial_first")

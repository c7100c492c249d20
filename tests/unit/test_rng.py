"""Counter-based random numbers: pure, well spread, independent of how rows are grouped."""

import pytest
import torch

from stn.data.rng import Draws, Site, _mix, derived_seed


def test_numbers_depend_on_keys_alone() -> None:
    rows = torch.arange(100)
    whole = Draws(7, Site.PERTURB, rows).uniform(3)
    assert torch.equal(whole[40:60], Draws(7, Site.PERTURB, rows[40:60]).uniform(3))
    assert torch.equal(whole, Draws(torch.tensor(7), int(Site.PERTURB), rows).uniform(3))
    for other in (Draws(8, Site.PERTURB, rows), Draws(7, Site.AUGMENT, rows), Draws(7, Site.PERTURB, rows + 1)):
        assert not torch.equal(whole, other.uniform(3))


def test_a_stream_goes_on() -> None:
    together, apart = Draws(1, 2).bits(4), Draws(1, 2)
    assert torch.equal(together, torch.cat([apart.bits(3), apart.bits(1)]))


def test_mixing_is_that_of_splitmix64() -> None:
    for value in (0, 1, -1, 12345, 2**62, -(2**63)):
        z = value % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        assert _mix(torch.tensor(value)).item() % 2**64 == z ^ (z >> 31)


def test_uniform_is_uniform_and_independent() -> None:
    u = Draws(3, Site.ORDER, torch.arange(50_000)).uniform(2).double()
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, bins=100, min=0, max=1)
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert chi2 < 150  # 99 degrees of freedom: beyond 150 once in 1,500 draws
    assert abs(torch.corrcoef(u.T)[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1]) < 0.02


def test_neighbouring_seeds_have_nothing_in_common() -> None:
    u = Draws(torch.arange(200)[:, None], Site.ORDER, torch.arange(300)).uniform(1)[..., 0].double()
    c = torch.corrcoef(u) - torch.eye(200)
    assert c.abs().max() < 0.3  # 5 standard errors


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_chance(p: float) -> None:
    share = Draws(5).chance(torch.arange(100), 1000, p).double().mean()
    assert abs(share - p) < 0.006


def test_chance_names_numbers_of_the_stream_however_many_are_mixed_at_once() -> None:
    rows, n = 300, 1000  # more numbers than are mixed at a time
    seeds = torch.tensor([5, 6]).view(-1, 1, 1)
    number = Draws(seeds, 3).bits(rows * n).view(2, rows, n)
    below = round(0.3 * 2**64) - 2**63
    assert torch.equal(Draws(seeds, 3).chance(torch.arange(rows), n, 0.3), number < below)
    some = torch.tensor([7, 250, 3])
    assert torch.equal(Draws(6, 3).chance(some, n, 0.3), number[1, some] < below)


def test_normal_is_normal_and_goes_on() -> None:
    z = Draws(4, torch.arange(20_000)).normal(3, 2.5)
    assert z.dtype == torch.float32
    assert torch.isfinite(z).all()
    below = torch.special.ndtr(z.double().flatten().sort().values / 2.5)
    assert (below - torch.arange(60_000) / 60_000).abs().max() < 1.95 / 60_000**0.5  # once in a thousand
    assert torch.corrcoef(z.double().T).triu(1).abs().max() < 0.03
    together, apart = Draws(1, 2).normal(4), Draws(1, 2)
    assert torch.equal(together, torch.cat([apart.normal(3), apart.normal(1)]))


def test_normal_is_finite_whatever_the_bits() -> None:
    class Extreme(Draws):
        def bits(self, n: int) -> torch.Tensor:
            return torch.tensor([0, 0, -1, -1, 2**63 - 1, 0, -(2**63), -1])

    z = Extreme(0).normal(4)
    assert torch.isfinite(z).all()
    assert z.abs().max() < 9


def test_integers_and_permutations() -> None:
    n = Draws(9, torch.arange(1000)).integers(30, 7)
    assert n.unique().tolist() == [0, 1, 2, 3, 4, 5, 6]
    order = Draws(torch.arange(3), 4).permutation(500)
    assert torch.equal(order.sort(-1).values, torch.arange(500).expand(3, 500))
    assert not torch.equal(order[0], order[1])


def test_golden_values_never_change() -> None:
    """If these numbers change, every published seed trains another network."""
    assert derived_seed(0, Site.INIT) == GOLDEN_SEED
    assert Draws(1, 2, 3).bits(2).tolist() == GOLDEN_BITS


GOLDEN_SEED = 138435732662085109
GOLDEN_BITS = [1321962074176129191, -2521084883668924615]

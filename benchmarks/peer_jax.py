"""The peer on JAX: the six networks of finnveden_r in Flax, a jitted step that makes its batch, vmap over seeds.

Images are NHWC, as Flax has them. Max-pooling is a maximum over a reshaped map, whose gradient takes XLA less time on a
CPU than that of flax.linen.max_pool. XLA's own convolution under vmap was the fastest of the forms that were tried with
several seeds (jax.lax.map: a seventh of its speed). For one seed, slices and a product in its place train cnn 2.4 times
as fast (still far behind PyTorch's) and stn_slx 1.1 times, but take 4 to 10 times as long to compile: they are not
taken. B batch, H, W, C channel.
"""
# pyright: reportMissingImports=false

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from peer_forms import BATCH, LIMIT_DEGREES, LR, MEAN, STD, Meter, load

START = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""How torch initialises weights."""
SHARED, OWN = "stn_slx", "stn_dlx"
"""Whose localisation net reads the classifier's first stage, and whose reads a copy of it with weights of its own."""


def sample(x_BHWC: jax.Array, theta_B6: jax.Array) -> jax.Array:
    """Sample bilinearly under affine matrices, as torch does with align_corners and border padding."""
    B, H, W, C = x_BHWC.shape
    a, b, c, d, e, f = theta_B6.T[..., None, None]
    x, y = jnp.linspace(-1, 1, W), jnp.linspace(-1, 1, H)[:, None]
    u = jnp.clip((a * x + b * y + c + 1) * (W - 1) / 2, 0, W - 1)
    v = jnp.clip((d * x + e * y + f + 1) * (H - 1) / 2, 0, H - 1)
    left, top = jnp.clip(jnp.floor(u), 0, W - 2), jnp.clip(jnp.floor(v), 0, H - 2)
    u, v = (u - left)[..., None], (v - top)[..., None]
    index = (top * W + left).astype(jnp.int32).reshape(B, -1, 1)
    flat = x_BHWC.reshape(B, H * W, C)
    p, q, r, s = (jnp.take_along_axis(flat, index + k, 1).reshape(B, H, W, C) for k in (0, 1, W, W + 1))
    return (p * (1 - u) + q * u) * (1 - v) + (r * (1 - u) + s * u) * v


class Stage(nn.Module):
    """Convolution, max-pool, ReLU; with coordinates, their part is convolved once a batch."""

    width: int
    kernel: int
    coordinates: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = (self.kernel, self.kernel)
        _, H, W, _ = x.shape
        x = nn.Conv(self.width, window, padding="VALID", kernel_init=START, name="image")(x)
        if self.coordinates:
            row_column = jnp.stack(jnp.meshgrid(jnp.linspace(-1, 1, H), jnp.linspace(-1, 1, W), indexing="ij"), -1)
            convolve = nn.Conv(
                self.width, window, (1, 1), "VALID", use_bias=False, kernel_init=START, name="coordinates"
            )
            x += convolve(row_column[None])
        B, H, W, C = x.shape
        x = x[:, : H // 2 * 2, : W // 2 * 2]
        return nn.relu(x.reshape(B, H // 2, 2, W // 2, 2, C).max((2, 4)))


class Network(nn.Module):
    """A network of finnveden_r, by the name of its architecture."""

    arch: str

    def setup(self) -> None:
        self.stages = [Stage(32 if self.arch == "cnn" else 16, 9), Stage(32, 7)]
        self.out = nn.Dense(10, kernel_init=START)
        if self.arch == "cnn":
            return
        coord, widths = self.arch == "stn_c0_coord", {"stn_c0": (32, 16, 16), "stn_c0_coord": (32,)}
        self.trunk = [Stage(16, 9)] if self.arch == OWN else [Stage(8, 7, True), Stage(10, 5, True)] if coord else []
        self.head = [nn.Dense(width, kernel_init=START) for width in widths.get(self.arch, (16, 16, 16))]
        start = jnp.array([1.0, 0, 0, 0, 1, 0])
        self.theta = nn.Dense(6, kernel_init=nn.initializers.zeros, bias_init=lambda *_: start)

    def warp(self, x: jax.Array, seen: jax.Array) -> jax.Array:
        for stage in self.trunk:
            seen = stage(seen)
        seen = seen.reshape(len(seen), -1)
        for layer in self.head:
            seen = nn.relu(layer(seen))
        return sample(x, self.theta(seen))

    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = self.stages
        if self.arch == "stn_cx":
            x = first(x)
            x = second(self.warp(x, x))
        else:
            if self.arch != "cnn":
                x = self.warp(x, first(x) if self.arch == SHARED else x)
            x = second(first(x))
        return self.out(x.reshape(len(x), -1))


def perturb(x_BHW: jax.Array, key: jax.Array, turn: bool) -> jax.Array:
    """Return bytes as normalised images, each turned by an angle of its own; MNIST's border is black."""
    x = x_BHW[..., None].astype(jnp.float32) / 255
    if turn:
        angle = jnp.deg2rad(jax.random.uniform(key, (len(x),), minval=-LIMIT_DEGREES, maxval=LIMIT_DEGREES))
        cos, sin, zero = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle)
        x = sample(x, jnp.stack([cos, -sin, zero, sin, cos, zero], 1))
    return (x - MEAN) / STD


def train(job: dict[str, Any]) -> Meter:
    arch, _, dataset = job["network"]
    net, seeds, optimiser, turn = Network(arch), job["seeds"], optax.sgd(LR), dataset == "mnist_r"
    (x_NHW, y_N), (test_x, test_y) = (map(jnp.asarray, load(job["root"], part)) for part in (True, False))

    def start(key: jax.Array) -> tuple:
        parameters = net.init(key, jnp.zeros((1, 28, 28, 1)))
        return parameters, optimiser.init(parameters)

    def update(state: tuple, key: jax.Array, t: jax.Array) -> tuple[tuple, jax.Array]:
        parameters, moments = state
        pick, turned = jax.random.split(jax.random.fold_in(key, t))
        index_B = jax.random.randint(pick, (BATCH,), 0, len(x_NHW))
        x, y = perturb(x_NHW[index_B], turned, turn), y_N[index_B]

        def loss_of(p: Any) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(net.apply(p, x), y).mean()  # type: ignore[arg-type]

        loss, gradients = jax.value_and_grad(loss_of)(parameters)
        updates, moments = optimiser.update(gradients, moments)
        return (optax.apply_updates(parameters, updates), moments), loss

    def hits(state: tuple, key: jax.Array) -> jax.Array:
        logits = net.apply(state[0], perturb(test_x, key, turn))
        return (logits.argmax(-1) == test_y).mean()  # type: ignore[union-attr]

    keys = jax.random.split(jax.random.key(0), seeds)
    if seeds == 1:
        keys, many = keys[0], start
    else:
        many, update, hits = jax.vmap(start), jax.vmap(update, (0, 0, None)), jax.vmap(hits)  # type: ignore[assignment]
    state, step = jax.jit(many)(keys), jax.jit(update, donate_argnums=0)
    meter = Meter(job, lambda: jax.jit(hits)(state, keys).reshape(-1).tolist())
    t, former = 0, None
    while True:
        (state, loss), t = step(state, keys, t), t + 1
        jax.block_until_ready(former)  # JAX would take 32 steps at once, which end when others have their turn
        former = loss
        if meter.enough(BATCH * seeds, lambda: jax.block_until_ready(state)):  # noqa: B023
            return meter

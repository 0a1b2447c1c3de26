"""The networks that are measured: this one, transformers', and the same layers with PyTorch's own attention."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.gpu.setting import Setting
from benchmarks.peers import TheirTokens
from model.config.perceiver import PerceiverConfig
from model.measures.losses import cross_entropy_sum
from model.perceiver import Perceiver

Step = Callable[[], object]
CLASSES = 1_000


@dataclass(frozen=True)
class Images:
    """A batch on the device; its lengths are on the host, as the trainer has them."""

    pixels: Tensor
    lengths: Tensor
    labels: Tensor

    @staticmethod
    def draw(config: PerceiverConfig, num_samples: int, device: torch.device) -> "Images":
        """Return random images of the network's size."""
        image = config.inputs["image"]
        assert image is not None
        shape = (num_samples, image.height, image.width, image.channels)
        pixels = torch.randint(0, 255, shape, dtype=torch.uint8, device=device)
        labels = torch.randint(0, CLASSES, (num_samples,), device=device)
        return Images(pixels, torch.full((num_samples,), image.height), labels)


def ours(setting: Setting, config: PerceiverConfig, compiled: bool) -> Callable[[Images], Step]:
    """Return what makes a training step, forward and backward, of a batch."""
    network = Perceiver(replace(config, compile=compiled), seed=0).to(setting.device)
    weights = torch.ones(max(setting.batches()), device=setting.device)

    def of(batch: Images) -> Step:
        def step() -> None:
            with torch.autocast(setting.device.type, torch.bfloat16):
                logits = network({"image": batch.pixels}, {"image": batch.lengths})["label"]
            cross_entropy_sum(logits, batch.labels, weights[: len(batch.labels)]).backward()  # type: ignore[no-untyped-call]
            network.zero_grad(set_to_none=True)

        return step

    return of


def transformers(setting: Setting, config: PerceiverConfig) -> Callable[[Images], Step]:
    """The same for transformers' network, which reads once, without dropout."""
    import transformers as library

    image = config.inputs["image"]
    assert image is not None
    architecture = library.PerceiverConfig(
        num_latents=config.num_latents,
        d_latents=config.latent_width,
        d_model=config.token_width,
        num_blocks=config.num_blocks,
        num_self_attends_per_block=config.layers_per_block,
        num_self_attention_heads=config.self_attend.num_heads,
        num_cross_attention_heads=1,
        self_attention_widening_factor=1,
        cross_attention_widening_factor=1,
        attention_probs_dropout_prob=0.0,
        num_labels=CLASSES,  # type: ignore[call-arg]  # of its base class
        image_size=image.height,
    )
    network: nn.Module = library.PerceiverForImageClassificationFourier(architecture)
    network.to(setting.device).train()
    return _of(setting, network, lambda pixels: network(inputs=pixels.permute(0, 3, 1, 2)).logits)


def plain_attention(setting: Setting, config: PerceiverConfig) -> Callable[[Images], Step]:
    """The same for the layers as one writes them with torch.nn and scaled_dot_product_attention."""
    network = PlainPerceiver(config).to(setting.device)
    return _of(setting, network, network)


def _of(setting: Setting, network: nn.Module, answer: Callable[[Tensor], Tensor]) -> Callable[[Images], Step]:
    def of(batch: Images) -> Step:
        def step() -> None:
            with torch.autocast(setting.device.type, torch.bfloat16):
                logits = answer(batch.pixels.float() / 255)
            functional.cross_entropy(logits.float(), batch.labels).backward()  # type: ignore[no-untyped-call]
            network.zero_grad(set_to_none=True)

        return step

    return of


class PlainLayer(nn.Module):
    """Attention and an MLP, both with a norm before and a residual around them; tokens have a norm of their own."""

    def __init__(self, width: int, token_width: int, num_heads: int) -> None:
        super().__init__()
        # As this network has it: the one head that reads the tokens is as wide as they are.
        inner = token_width if num_heads == 1 else width
        self.num_heads = num_heads
        self.norm, self.norm_tokens, self.norm_mlp = (nn.LayerNorm(w) for w in (width, token_width, width))
        self.query, self.key, self.value = (nn.Linear(w, inner) for w in (width, token_width, token_width))
        self.output = nn.Linear(inner, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, latents: Tensor, tokens: Tensor | None = None) -> Tensor:
        normed = self.norm(latents)
        read = normed if tokens is None else self.norm_tokens(tokens)
        q, k, v = (
            linear(part).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear, part in ((self.query, normed), (self.key, read), (self.value, read))
        )
        heads = functional.scaled_dot_product_attention(q, k, v)
        latents = latents + self.output(heads.transpose(1, 2).flatten(2))
        out: Tensor = latents + self.mlp(self.norm_mlp(latents))
        return out


class PlainPerceiver(nn.Module):
    """The schedule of a config, with the mean of the latents and one linear layer."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.schedule = config.schedule()
        self.tokens = TheirTokens(config)
        width, heads = config.latent_width, config.self_attend.num_heads
        numbers = {kind: 1 + max(index for its, index in self.schedule if its == kind) for kind, _ in self.schedule}
        self.latents = nn.Parameter(0.02 * torch.randn(config.num_latents, width))
        self.reads = nn.ModuleList(PlainLayer(width, config.token_width, 1) for _ in range(numbers["cross_attend"]))
        self.blocks = nn.ModuleList(
            nn.ModuleList(PlainLayer(width, width, heads) for _ in range(config.layers_per_block))
            for _ in range(numbers["block"])
        )
        self.logits = nn.Linear(width, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.tokens(pixels)
        latents = self.latents.expand(len(pixels), -1, -1)
        for kind, index in self.schedule:
            if kind == "cross_attend":
                latents = self.reads[index](latents, tokens)
            else:
                block = self.blocks[index]
                assert isinstance(block, nn.ModuleList)
                for layer in block:
                    latents = layer(latents)
        out: Tensor = self.logits(latents.mean(dim=1))
        return out

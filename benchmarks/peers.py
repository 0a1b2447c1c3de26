"""The networks that benchmarks/network.py compares, each built for the same configuration and fed the same tensor."""

import importlib
import importlib.machinery
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.byte_array import Inputs
from model.modalities.image import ImageInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.perceiver import Perceiver

OURS = "ours"
COMPILED = "ours, compiled"


@dataclass(frozen=True)
class Configuration:
    """One comparison: a network of ours, those that are compared with it, and how many steps each makes."""

    ours: PerceiverConfig
    networks: tuple[str, ...]
    steps: int

    def inputs(self) -> Tensor:
        """A batch of one: image, points or ids."""
        ((name, modality),) = self.ours.ordered_inputs.items()
        if name == "text":
            # Bytes, without the six special ids before them.
            return torch.randint(6, 262, (1, *modality.shape))
        return torch.rand(1, *modality.shape) * 2 - 1


class Alone(nn.Module):
    """Ours, with one tensor in and one out."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.network = Perceiver(config, seed=0)
        (self.input,), (self.output,) = config.ordered_inputs, config.outputs

    def forward(self, value: Tensor) -> Tensor:
        answer: Tensor = self.network({self.input: value})[self.output]
        return answer


class TheirTokens(nn.Module):
    """Tokens for peers that have no adapter of their own for a modality: position tables computed once, as krasserm."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        # Not as a grid in parts, which the separable form reads without putting its tokens together.
        self.inputs = Inputs(replace(config, cross_attend_form="plain"))
        self.num_input_channels = config.token_width

    def forward(self, value: Tensor) -> Tensor:
        (name,) = self.inputs.adapters
        tokens: Tensor = self.inputs({name: value}, None, None, value.dtype).values
        return tokens


def ours(configuration: Configuration) -> nn.Module:
    return Alone(configuration.ours)


def compiled(configuration: Configuration) -> nn.Module:
    return Alone(replace(configuration.ours, compile=True))


def transformers(configuration: Configuration) -> nn.Module:
    """Return transformers' network with the weights of ours, which is exported to it; without dropout of attention."""
    import transformers as library

    from model.interop.huggingface import to_hugging_face

    values, state = to_hugging_face(Perceiver(configuration.ours, seed=0))
    architecture = values["architectures"][0]
    model = getattr(library, architecture)(library.PerceiverConfig(**values))
    model.load_state_dict(state)
    channels_first = architecture.startswith("PerceiverForImage")

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, value: Tensor) -> Tensor:
            logits: Tensor = self.model(inputs=value.permute(0, 3, 1, 2) if channels_first else value).logits
            return logits

    return Logits()


def perceiver_io(configuration: Configuration) -> nn.Module:
    """krasserm's, whose encoder has several cross-attends, with the mean of the latents and a linear layer."""
    modules = _krasserm()
    config = configuration.ours
    encoder = modules.PerceiverEncoder(
        input_adapter=TheirTokens(config),
        num_latents=config.num_latents,
        num_latent_channels=config.latent_width,
        num_cross_attention_heads=1,
        num_cross_attention_qk_channels=config.token_width,
        num_cross_attention_v_channels=config.token_width,
        num_cross_attention_layers=config.num_cross_attends,
        num_self_attention_heads=config.self_attend.num_heads,
        num_self_attention_layers_per_block=config.layers_per_block,
        num_self_attention_blocks=config.num_blocks,
    )

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.logits = encoder, nn.Linear(config.latent_width, config.outputs["label"].num_classes)

        def forward(self, value: Tensor) -> Tensor:
            logits: Tensor = self.logits(self.encoder(value).mean(dim=1))
            return logits

    return Classifier()


def perceiver_pytorch(configuration: Configuration) -> nn.Module:
    """Return lucidrains' network, whose MLPs are wider and gated."""
    from perceiver_pytorch import Perceiver as Theirs

    config = configuration.ours
    tokens = TheirTokens(config)
    network = Theirs(
        # These two must be given, and without fourier_encode_data nothing reads them.
        num_freq_bands=64,
        max_freq=224,
        fourier_encode_data=False,
        input_channels=config.token_width,
        input_axis=1,
        depth=config.num_blocks,
        num_latents=config.num_latents,
        latent_dim=config.latent_width,
        latent_heads=config.self_attend.num_heads,
        cross_dim_head=config.token_width,
        latent_dim_head=config.latent_width // config.self_attend.num_heads,
        num_classes=config.outputs["label"].num_classes,
        weight_tie_layers=True,
        self_per_cross_attn=config.layers_per_block,
    )
    return nn.Sequential(tokens, network)


def _krasserm() -> types.ModuleType:
    """Its modules without fairscale, which a step does not need."""
    fairscale, wrappers = types.ModuleType("fairscale"), types.ModuleType("fairscale.nn")
    fairscale.__spec__ = importlib.machinery.ModuleSpec("fairscale", None)
    vars(wrappers)["checkpoint_wrapper"] = lambda layer, **_: layer
    sys.modules |= {"fairscale": fairscale, "fairscale.nn": wrappers}
    return importlib.import_module("perceiver.model.core")


BUILDERS: dict[str, Callable[[Configuration], nn.Module]] = {
    OURS: ours,
    COMPILED: compiled,
    "transformers": transformers,
    "perceiver-io": perceiver_io,
    "perceiver-pytorch": perceiver_pytorch,
}

_MEAN = {"label": LabelOutput(num_classes=1_000)}
_SEVERAL = (OURS, COMPILED, "perceiver-io", "perceiver-pytorch")


def _imagenet(side: int, num_latents: int, width: int, num_cross_attends: int) -> PerceiverConfig:
    from model.config.grids import PositionsConfig

    # Of 224 pixels at every side, as the peers have them; and erf below, which is their GELU.
    positions = PositionsConfig(num_bands=64, max_resolution=(224, 224))
    one = num_cross_attends == 1
    return PerceiverConfig(
        inputs={"image": ImageInput(height=side, width=side, positions=positions)},
        outputs={"label": LabelOutput(num_classes=1_000, pooling="query")} if one else _MEAN,
        decoder=DecoderConfig(query_residual=True),
        num_latents=num_latents,
        latent_width=width,
        num_cross_attends=num_cross_attends,
        num_blocks=8,
        layers_per_block=6,
        gelu="erf",
    )


def _half_mlm() -> PerceiverConfig:
    attention = AttentionConfig(num_heads=8, qk_width=128, value_width=640)
    return PerceiverConfig(
        inputs={"text": TextInput(max_tokens=2_048, embedding_width=384)},
        outputs={"text": TextOutput()},
        decoder=DecoderConfig(cross_attend=AttentionConfig(num_heads=8, qk_width=256, value_width=384)),
        num_latents=256,
        latent_width=640,
        num_cross_attends=1,
        num_blocks=1,
        layers_per_block=26,
        cross_attend=attention,
        self_attend=attention,
        gelu="erf",
    )


def _modelnet() -> PerceiverConfig:
    return PerceiverConfig(
        inputs={"points": PointsInput(num_points=2_048)},
        outputs=_MEAN,
        num_latents=512,
        latent_width=1_024,
        num_cross_attends=2,
        num_blocks=2,
        layers_per_block=6,
        gelu="erf",
    )


CONFIGS = {
    "modelnet40": Configuration(_modelnet(), _SEVERAL, steps=3),
    "imagenet64": Configuration(_imagenet(64, 256, 512, 8), _SEVERAL, steps=3),
    "imagenet64_io": Configuration(_imagenet(64, 256, 512, 1), (OURS, COMPILED, "transformers"), steps=3),
    "mlm_half": Configuration(_half_mlm(), (OURS, COMPILED, "transformers"), steps=3),
    "imagenet224": Configuration(_imagenet(224, 512, 1_024, 8), _SEVERAL, steps=1),
    "imagenet224_io": Configuration(_imagenet(224, 512, 1_024, 1), (OURS, COMPILED, "transformers"), steps=1),
}

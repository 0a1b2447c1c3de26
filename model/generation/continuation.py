"""The answer to what comes next in a stream that grows, with the keys and values of earlier places kept.

    known      x0 x1 x2 x3 x4 x5 x6       what the stream has so far
    window           0 ........... n      the last places, as many as the network has; the answer is that of place n
    latents                s ..... n      at most as many as the network has

The window and its first latent stay where they are while there is room: a further place then costs one latent. Where
there is none they move by half of the latents, and all is computed anew. A latent that is kept knows of those before
it, which a first latent does not: so the answers with kept keys are those without.

    B samples, L known places, M places of the window, C channels of a token, D channels of a latent
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from model.attention.alignment import aligned
from model.attention.dispatch import causal_mask
from model.attention.layers import CrossAttend, KeysValues
from model.attention.norms import normalised
from model.attention.rotary import angles
from model.encoder import Block
from model.perceiver import Perceiver
from model.stream import StreamLatents


@dataclass(frozen=True)
class Layout:
    """Where the answer to the next place of a stream is computed."""

    start: int
    """The first place of the stream that the window has."""
    first_latent: int
    """The place of the first latent in the window."""


def layout(num_known: int, num_places: int, num_latents: int) -> Layout:
    """Return the layout for a stream of which so much is known, in a network of so many places and latents."""
    # Half of the latents: moved by one place, the window would be computed anew for each answer.
    stride = max(1, num_latents // 2)
    # The place that is answered is one more than what is known.
    start = _multiple_from(num_known + 1 - num_places, stride)
    return Layout(start, _multiple_from(num_known + 1 - start - num_latents, stride))


def _multiple_from(number: int, stride: int) -> int:
    """The least multiple of the stride that is neither below a number nor below 0."""
    return -(-max(number, 0) // stride) * stride


class Continuation:
    """Answers what comes next in a batch of streams; unless it `keeps` nothing, it computes each place once."""

    def __init__(self, network: Perceiver, *, keeps: bool = True) -> None:
        config = network.config
        assert isinstance(network.encoder.latents, StreamLatents), "the network continues no input"
        self._network, self._encoder, self._keeps = network.eval(), network.encoder, keeps
        self._latents_at = network.encoder.latents
        self._name, self._stream = config.stream, config.ordered_inputs[config.stream]
        (self._output,) = config.answers()
        self._layout: Layout | None = None
        self._num_done = 0
        self._kept: dict[tuple[str, int, int], KeysValues] = {}

    @torch.no_grad()
    def next(self, known: Shaped[Tensor, "B L *c"]) -> Float[Tensor, "B *v"]:
        """Return the logits of what comes after the first L ids of texts, or after so many cells of arrays, row by row.

        A further call is for the same streams, of which more is known. ValueError where an array of several axes is
        full.
        """
        stream = self._stream
        here = layout(known.shape[1], stream.num_tokens, self._network.config.num_latents)
        if here.start and len(stream.grid) > 1:
            raise ValueError(f"inputs.{self._name}: all of its {stream.num_tokens} cells are known; ask for fewer")
        # In another window every place has another position: nothing that was kept is right there.
        if here != self._layout or not self._keeps:
            self._layout, self._num_done = here, 0
            self._kept.clear()
        num_places = known.shape[1] - here.start + 1
        placed_BMC = self._placed(known[:, here.start :])[:, self._num_done : num_places]
        latents_BND = self._latents(placed_BMC, max(here.first_latent - self._num_done, 0))
        self._num_done = num_places
        answer: Tensor = self._network.decoder.means[self._output](latents_BND[:, -1:])
        return answer[:, 0]

    def _placed(self, window: Tensor) -> Float[Tensor, "B M C"]:
        """Return the tokens of the window's places, and maybe of some after them."""
        if self._stream.ids is not None:
            # One more place than there are ids; the token of that one is not read.
            given = functional.pad(window, (0, 1))
        else:
            missing = self._stream.num_tokens - window.shape[1]
            given = functional.pad(window, (0, 0, 0, missing)).reshape(len(window), *self._stream.shape)
        dtype = self._latents_at.weight.dtype
        return self._latents_at.placed(self._network.inputs({self._name: given}, None, None, dtype).values)

    def _latents(self, placed_BMC: Tensor, first_latent: int) -> Float[Tensor, "B N D"]:
        """Return the latents of the new places from `first_latent` on, after all steps of the encoder."""
        encoder = self._encoder
        latents_BND: Tensor = self._latents_at.project(placed_BMC[:, first_latent:])
        tokens_BMC = aligned(normalised(placed_BMC, encoder.norm))
        turns_MP = self._turns(placed_BMC.shape[1])
        read: dict[int, KeysValues] = {}
        for step, (kind, index) in enumerate(encoder.schedule):
            if kind == "block":
                block = encoder.blocks[index]
                assert isinstance(block, Block)
                for number, layer in enumerate(block):
                    kept = self._kept.setdefault((kind, step, number), KeysValues())
                    latents_BND = layer(latents_BND, before=kept)
                continue
            layer = encoder.cross_attends[index]
            assert isinstance(layer, CrossAttend)
            if index not in read:
                # By module and not by step: those that share their weights read the same keys.
                read[index] = self._kept.setdefault((kind, index, 0), KeysValues())
                read[index].join(*layer.keys_values(tokens_BMC, turns_MP))
            keys, values = read[index].pair
            seen = causal_mask(latents_BND.shape[1], keys.shape[2], keys.device)
            turns_bNP = None if turns_MP is None else turns_MP[None, first_latent:]
            latents_BND = layer(latents_BND, keys, values, seen, None, None, turns_bNP)
        return latents_BND

    def _turns(self, num_places: int) -> Float[Tensor, "M P"] | None:
        """Return the angles of rotary positions of the new places of the window."""
        encoder, device = self._encoder, self._latents_at.weight.device
        if not encoder.rotary:
            return None
        layer = encoder.cross_attends[0]
        assert isinstance(layer, CrossAttend)
        turns_MP = angles(self._stream.grid, layer.attention.num_pairs, device)
        return turns_MP[self._num_done : self._num_done + num_places]

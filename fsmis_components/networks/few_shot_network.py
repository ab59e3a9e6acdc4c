"""What all networks of the collection have in common: MONAI's door and a stored support."""

from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.resize import resize_logits
from fsmis_components.layers.support_state import SupportState, check_state
from fsmis_components.losses import margin_cross_entropy
from fsmis_components.networks.encoders import build_encoder


class SliceFeatures(NamedTuple):
    """Features of a batch of slices and the size that its images had before padding."""

    high: Tensor
    image_size: Tuple[int, int]


class FewShotNetwork(nn.Module):
    """Segments query slices by labelled support slices, several structures in one call.

    A method gives ``build_support``, ``_margins`` or ``segment``, and ``_train_step``; one that
    needs more levels of features than the last gives its own ``encode``.
    Background is modelled per structure: the logit of structure n is ``score_fg - score_bg`` and
    channel 0 is zero, so that for one structure the softmax equals that of the papers' two
    channels.

    Args:
        encoder: a name of :func:`build_encoder`, or a module with ``stride``, ``pad_multiple``
            and a level ``high``.
        support_pack: state of a support that ``net(image)`` uses; not part of the weights.
    """

    stored_state: Dict[str, Tensor]
    enlarge: Callable[[Tensor, Tuple[int, int]], Tensor] = staticmethod(resize_logits)
    pointwise = False  # does the answer at a place depend on the query's features there alone?

    def __init__(
        self, encoder: Union[str, nn.Module], support_pack: Optional[SupportState] = None
    ) -> None:
        super().__init__()
        module = build_encoder(encoder) if isinstance(encoder, str) else encoder
        self.encoder = module
        self.stride = int(module.stride)  # type: ignore[arg-type]
        self.pad_multiple = int(module.pad_multiple)  # type: ignore[arg-type]
        self.title = type(self).__name__
        self.stored_state = {}
        if support_pack is not None:
            self.set_support(support_pack)

    def forward(
        self,
        image: Tensor,
        support_image: Optional[Tensor] = None,
        support_label: Optional[Tensor] = None,
        label: Optional[Tensor] = None,
    ) -> Union[Tensor, Dict[str, Tensor]]:
        """Segment query slices by labelled support slices, or by the stored support.

        Args:
            image: query slices, (B, 1, H, W).
            support_image: support slices, (B, S, 1, H, W); None takes the stored support.
            support_label: masks of the structures, (B, S, N, H, W) in [0, 1].
            label: the query's masks, (B, N, H, W); training only.

        Returns:
            In evaluation logits (B, 1 + N, H, W). In training a dictionary of the logits and of
            the method's loss terms, each of shape (B,).

        Raises:
            ValueError: a label in evaluation, none in training, or no support.
        """
        if self.training:
            if support_image is None or support_label is None or label is None:
                raise ValueError(
                    f"{self.title}: expected support_image, support_label and label in training "
                    "mode"
                )
            return self._train_step(image, support_image, support_label, label)
        if label is not None:
            raise ValueError(
                f"{self.title}: label must not be given in evaluation mode, it is never read"
            )
        if support_image is None or support_label is None:
            if len(self.stored_state) == 0:
                raise ValueError(
                    f"{self.title}: expected support_image and support_label, or a support stored "
                    "by set_support or the constructor argument support_pack"
                )
            stored = {name: t.to(image.device) for name, t in self.stored_state.items()}
            return self.segment(self.encode(image), stored, None)
        valid = all_labelled(support_label)
        features = self.encode(support_image.flatten(0, 1))
        state = self.build_support(features, support_label, valid, None)
        return self.segment(self.encode(image), state, None)

    def encode(self, image: Tensor) -> SliceFeatures:
        """Encode slices (B, 1, H, W) of any size into features (B, C, h, w)."""
        padded = pad_slices(image, self.pad_multiple)
        return SliceFeatures(self.encoder(padded).high, (image.shape[-2], image.shape[-1]))

    def _encode_episode(self, image: Tensor, support_image: Tensor) -> Tuple[Any, Any]:
        """Return the features of support and query, of images (B, S, 1, H, W) and (B, 1, H, W)."""
        # one batch, as in the released codes: batch norm sees support and query together
        joined = self.encode(torch.cat([support_image.flatten(0, 1), image], 0))
        query = image.shape[0]
        return take_slices(joined, slice(None, -query)), take_slices(joined, slice(-query, None))

    def build_support(
        self, features: SliceFeatures, masks: Tensor, valid: Tensor, seeds: Optional[Tensor] = None
    ) -> SupportState:
        """Turn labelled support slices into a state.

        Args:
            features: of the B*S support slices.
            masks: (B, S, N, H, W) in [0, 1].
            valid: whether structure n is labelled in slice s, (B, S, N) bool.
            seeds: of a method's random draws, int64 (B, S, N); None: the same each time.
        """
        raise NotImplementedError

    def segment(
        self,
        query_features: SliceFeatures,
        state: SupportState,
        section_weights: Optional[Tensor] = None,
    ) -> Tensor:
        """Return logits (B, 1 + N, H, W) of query slices; channel 0 is zero.

        Args:
            query_features: of B query slices.
            state: of one support for all slices, or of one for each.
            section_weights: which support slices serve and how much each counts, (B or 1, N, S)
                >= 0; where all are zero the structure is absent. None: all labelled ones alike.
        """
        margins = self._margins(query_features.high, state, section_weights)
        return with_background(self._to_image(margins, query_features.image_size))

    def _margins(
        self, query: Tensor, state: SupportState, section_weights: Optional[Tensor]
    ) -> Tensor:
        """Return score_fg - score_bg at the features' size, (B, N, h, w)."""
        raise NotImplementedError

    def _to_image(self, margins: Tensor, image_size: Tuple[int, int]) -> Tensor:
        """Enlarge margins (B, N, h, w) to the image's size, (B, N, H, W)."""
        h, w = margins.shape[-2] * self.stride, margins.shape[-1] * self.stride
        return self.enlarge(margins, (h, w))[:, :, : image_size[0], : image_size[1]]

    def _train_step(
        self, image: Tensor, support_image: Tensor, support_label: Tensor, label: Tensor
    ) -> Dict[str, Tensor]:
        raise NotImplementedError

    def set_support(self, state: SupportState) -> None:
        """Store a support, so that ``net(image)`` segments its structures without arguments."""
        check_state(state)
        self.stored_state = dict(state)


def take_slices(features: Any, chosen: slice) -> Any:
    """Return the features of some slices, in the tuple that they come in."""
    return type(features)(*(level[chosen] for level in features[:-1]), features.image_size)


def alignment_loss(margins: Tensor, support_label: Tensor, skipped: Tensor) -> Tensor:
    """Return the loss of a support that was segmented by its query's prediction, (B,).

    Prototype alignment regularisation (PANet; Wang et al., ICCV 2019).

    Args:
        margins: of the support slices, (B * S, N, H, W).
        support_label: (B, S, N, H, W).
        skipped: structures that count as 0, bool (B, N).
    """
    b, s = support_label.shape[0], support_label.shape[1]
    ignored = 255.0
    truth = support_label.masked_fill(skipped[:, None, :, None, None], ignored)
    return margin_cross_entropy(margins, truth.flatten(0, 1)).reshape(b, s).mean(1)


def pad_slices(image: Tensor, multiple: int) -> Tensor:
    """Extend slices (B, 1, H, W) below and at the right, by their last row and column."""
    bottom, right = -image.shape[-2] % multiple, -image.shape[-1] % multiple
    if bottom > 0 or right > 0:
        image = F.pad(image, [0, right, 0, bottom], mode="replicate")
    return image


def all_labelled(support_label: Tensor) -> Tensor:
    """Return the validity (B, S, N) of labels (B, S, N, H, W) that lack no structure."""
    b, s, n = support_label.shape[0], support_label.shape[1], support_label.shape[2]
    return torch.ones([b, s, n], dtype=torch.bool, device=support_label.device)


def check_switches(network: str, **switches: object) -> None:
    """Refuse what is not a bool, as the text "false" of a command line, which counts as true.

    Raises:
        ValueError: it names the network and the switch.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ValueError(f"{network}: expected {name} True or False, got {value!r}")


def with_background(margins: Tensor) -> Tensor:
    """Put channel 0, which is zero, before margins (B, N, H, W)."""
    return torch.cat([torch.zeros_like(margins[:, :1]), margins], 1)

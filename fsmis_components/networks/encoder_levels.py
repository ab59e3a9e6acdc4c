"""What an encoder gives: feature maps of one batch of slices at four levels."""

from typing import NamedTuple

from torch import Tensor


class EncoderLevels(NamedTuple):
    """Feature maps of one batch of slices; methods use the levels that their paper names.

    An encoder says the channels and the strides of the four maps in its attributes ``channels``
    and ``strides``. ``high`` is the level that ALPNet and CoW make prototypes of.
    """

    edge: Tensor
    low: Tensor
    mid: Tensor
    high: Tensor

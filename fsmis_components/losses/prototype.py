"""Prototype loss of IPSNet: sides agree on each class, the two classes differ on each side."""

from torch import Tensor

from fsmis_components.losses.auxiliary import auxiliary_loss


def prototype_loss(tokens: Tensor) -> Tensor:
    """Return the auxiliary loss of CoW, of one prototype for each class and side.

    IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025): its aim,
    consistency within a class and less similarity between classes, said as a loss.

    Args:
        tokens: (B, Q, 2, 2, C): class (background, foreground), then side (support, query).

    Returns:
        The loss in [0, 6], averaged over the Q pairs, (B,).
    """
    sets = tokens.unsqueeze(4)  # (B, Q, class, side, 1 prototype, C)
    loss = auxiliary_loss(sets[:, :, 1, 0], sets[:, :, 0, 0], sets[:, :, 1, 1], sets[:, :, 0, 1])
    return loss.mean(1)

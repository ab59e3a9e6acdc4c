"""Let a torchvision that was built for CUDA be imported beside a torch for the CPU.

Such a torchvision (the one that pip installs by default) cannot load its compiled operators there
and then fails while it is imported, because it describes two of them that were never declared.
MONAI Label imports torchvision for a few functions in Python and calls neither operator.
``label_environment.py`` puts this file into the environment, where a ``.pth`` line imports it in
every Python process, the server's background processes too; so it may cost next to nothing:
nothing happens before somebody imports torchvision.
"""

import sys


class _DeclareOperators:
    """A finder that finds nothing: it declares the operators when torchvision is looked for."""

    library = None

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Declare the operators once, then leave finding torchvision to Python's own finders."""
        if name == "torchvision" and cls.library is None:
            import torch

            # kept for as long as the process lives: the declarations end with the library object
            cls.library = torch.library.Library("torchvision", "DEF")
            cls.library.define("nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
            cls.library.define("qnms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, _DeclareOperators)

"""PyTorch and the package ``grad-cam``, where they are installed."""

import sys
import unittest.mock
import warnings

import pytest

TORCHVISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def grad_cam(module="pytorch_grad_cam"):
    """Returns a module of the package; skips where it is missing.

    It imports torchvision for pictures and boxes, which are not needed here and must be built for
    the very PyTorch that is installed: a stand-in, while the package is imported.
    """
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of these packages alone
        pytest.importorskip("torch")
        for name in TORCHVISION:
            patch.setitem(sys.modules, name, unittest.mock.MagicMock())
        return pytest.importorskip(module)

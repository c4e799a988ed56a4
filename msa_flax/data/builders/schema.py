"""What the data sets that TFDS prepares have in common in this package."""

import io
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds


def features(**extra: tfds.features.FeatureConnector) -> tfds.features.FeaturesDict:
    """Returns the common features of one example, and the extra ones of a data set.

    Fields: ``image`` uint8 [h, w, 1], stored as PNG; ``label`` 0 or 1; ``example_id`` unique,
    stable and path-like; ``group`` (series or patient) and ``family`` (source slice), "" if
    unknown; ``slice_index``, -1 if unknown; ``height`` and ``width`` of the file in pixels.

    Args:
        extra: further features by name, for instance ``mask=image()``.
    """
    return tfds.features.FeaturesDict(
        {
            "image": image(),
            "label": tfds.features.ClassLabel(num_classes=2),
            "example_id": tfds.features.Text(),
            "group": tfds.features.Text(),
            "family": tfds.features.Text(),
            "slice_index": tfds.features.Scalar(dtype=np.int32),
            "height": tfds.features.Scalar(dtype=np.int32),
            "width": tfds.features.Scalar(dtype=np.int32),
        }
        | extra
    )


def image() -> tfds.features.Image:
    """Returns the feature of a grey image: uint8 [h, w, 1] of any size, stored as PNG."""
    return tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png")


def png(image: np.ndarray) -> io.BytesIO:
    """Returns an image or mask, uint8 [h, w], as the PNG file that :func:`image` stores.

    TFDS would do the same from an array, ten times slower.
    """
    return io.BytesIO(cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes())


class Builder(tfds.core.GeneratorBasedBuilder):
    """A builder that downloads nothing; every builder of this package derives from it."""

    # TFDS would look for a checksum file beside the builder's source, with a package
    # (importlib_resources) that it does not declare as needed.
    url_infos: ClassVar[dict[str, Any]] = {}

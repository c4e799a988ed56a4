"""Public DICOM files of pydicom and pydicom-data, and copies of them with changed elements."""

import copy
import functools
import io

import pydicom
from pydicom.data import get_testdata_file


def public(name):
    """The path of a public file; nothing is downloaded."""
    return get_testdata_file(name, download=False)


@functools.cache
def _read(name):
    return pydicom.dcmread(public(name))


def dataset(name="CT_small.dcm", **elements):
    """A copy of a public file's data set; an element whose new value is ... is taken away."""
    ds = copy.deepcopy(_read(name))  # copy.copy would share the elements
    for keyword, value in elements.items():
        if value is ...:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def saved(ds):
    """The bytes of a file."""
    file = io.BytesIO()
    ds.save_as(file)
    return file.getvalue()

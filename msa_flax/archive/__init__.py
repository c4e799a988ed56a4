"""Results as DICOM objects, which go back to the archive that the images came from."""

"""Whole archives: studies of DICOM files made into a data set that is quick to train on."""

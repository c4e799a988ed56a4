"""Prediction of new images: finding them, scoring them, saying when the model does not know."""

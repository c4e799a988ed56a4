"""A model that travels: one folder or file, checked when it is read, without the run it is from."""

"""The training loop and its parts; data, model and metric writer come as arguments."""

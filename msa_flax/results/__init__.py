"""What is written into the folder of a run: its scores on a split, and maps of its images."""

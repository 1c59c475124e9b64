"""Training: labels, fits and baselines."""

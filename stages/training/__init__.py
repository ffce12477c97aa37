"""Optimiser, schedule, order of pairs, checkpoints and the training loop."""

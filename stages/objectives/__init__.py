"""Losses and rewards as pure functions of (B,) tensors.

Notation, per pair: c = log pi(y+) - log ref(y+), r = log pi(y-) - log ref(y-) (sums over scored
tokens, nats), D = c - r.
"""

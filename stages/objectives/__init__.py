"""The objectives of the field: losses, rewards and weights as pure functions of (B,) tensors.

Notation, per pair: c = log pi(y+) - log ref(y+), r = log pi(y-) - log ref(y-) (sums over scored
tokens, nats), D = c - r, L+ and L- scored tokens, s = the logistic function, b = beta, e = label
smoothing, m = the pair's margin. The loss of an optimiser step is the mean over its pairs.
"""

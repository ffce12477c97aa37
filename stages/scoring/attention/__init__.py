"""Attention over packs: what transformers calls, and the back-ends that compute it."""

"""Preference pairs, their identity, and the store of reference log-probs. No model, no command line."""

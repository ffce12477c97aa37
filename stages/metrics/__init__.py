"""Metrics from per-pair records: no model, and no number that depends on batch size, world size or order."""

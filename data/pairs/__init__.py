"""The prepared pairs: made once, split, accounted for, compared with those of another day."""

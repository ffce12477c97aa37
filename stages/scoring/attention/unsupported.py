"""The exception by which a model shows that it cannot be scored in packs. It never leaves the scoring package."""


class UnsupportedModel(Exception):
    """Packs, or one back-end, would give this model wrong values; the message says why, as the end of a sentence."""

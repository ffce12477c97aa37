"""What a run pins of the stored values."""

from stages.reference_rows import ReferenceLogps, values_digest


def test_the_digest_of_values_covers_the_shared_sums():
    """A run with LD-DPO may go on only with the shared sums that it was begun with."""
    values = [(), (-0.5, -0.75), (-0.5, -0.5), (-0.25, -0.75)]
    digests = {values_digest({"key": ReferenceLogps(-1.0, -2.0, "{}", *shared)}) for shared in values}
    assert len(digests) == len(values)

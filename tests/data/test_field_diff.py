"""What a person sees where a hash has changed."""

from data.field_diff import field_diff


def test_field_diff_names_the_fields_that_differ():
    old = {"dtype": "float32", "config": {"theta": 1, "same": 2}, "gone": 1}
    new = {"dtype": "bfloat16", "config": {"theta": 5, "same": 2}}
    assert field_diff(old, new) == ["config.theta: 1 -> 5", 'dtype: "float32" -> "bfloat16"', "gone: 1 -> null"]

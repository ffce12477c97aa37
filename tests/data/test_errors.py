"""The error tree is what its docstring draws."""

import re

from data import errors

DRAWN = re.findall(r"^ +(\+-- )?(\w+) +(\d+) ", errors.__doc__, re.MULTILINE)
CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def test_docstring_draws_every_class_with_its_exit_code():
    assert {name: int(code) for _, name, code in DRAWN} == {name: c.exit_code for name, c in CLASSES.items()}


def test_docstring_draws_the_inheritance():
    for branch, name, _ in DRAWN:
        assert CLASSES[name].__base__ is (errors.PipelineError if branch else Exception)


def test_exit_codes_are_distinct_and_none_means_success():
    codes = [c.exit_code for c in CLASSES.values()]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes


def test_message_is_the_text():
    assert str(errors.DataError("row 3 is empty")) == "row 3 is empty"

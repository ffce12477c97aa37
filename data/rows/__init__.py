"""One row of any form: its pairs in normal form, or why it has none."""

"""The report of an evaluation: one HTML page, a Markdown summary for CI, and the card in the policy's folder."""

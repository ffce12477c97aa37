"""The one scorer that all three jobs use.

Legend: N responses, B rows of a batch, T tokens of a row, M scored tokens, V vocabulary, D width.
"""

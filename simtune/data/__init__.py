"""From a store or a file to samples, and from samples to tokens.

`decisions` reads the classic file, `imitation` and `selection` choose what to learn from,
`tokens` turns samples into ids and labels.
"""

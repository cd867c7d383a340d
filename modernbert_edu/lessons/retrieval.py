"""What 12_retrieval measures, and its figures."""

FIGURES = {}

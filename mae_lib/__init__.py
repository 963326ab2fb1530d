"""Masked auto-encoders, their scaling laws, and how far the laws may be extrapolated."""

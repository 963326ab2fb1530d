"""Laws, their fits, their intervals, and their predictions. Never imports torch."""

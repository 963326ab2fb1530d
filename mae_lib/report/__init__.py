"""From executed notebooks and prose pages to the book. Never imports torch."""

"""What a run leaves behind: rows, provenance, atomic writes, locks. Never imports torch."""

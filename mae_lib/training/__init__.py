"""From a cell to trained weights, resumable bit for bit."""

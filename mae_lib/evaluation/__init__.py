"""What the frozen features know: k-NN, linear probe, and both baselines."""

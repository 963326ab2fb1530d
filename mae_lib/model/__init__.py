"""The masked auto-encoder on timm's encoders."""

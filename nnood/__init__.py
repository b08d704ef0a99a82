"""nnood: self-configuring anomaly localisation for medical images, trained on normal images only."""

__version__ = "0.1.0"

"""Training: recipes, cross-validation, the trainer derived from nnU-Net's, and validation on fixed anomalies."""

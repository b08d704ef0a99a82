"""Comparing predictions with labels: anomaly metrics and the evaluation of a folder of predictions."""

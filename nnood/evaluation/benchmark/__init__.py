"""Benchmark sets: anomalies of many kinds in held-out normal images, apart from the training's tasks."""

"""From a trained network and images to score maps and sample scores."""

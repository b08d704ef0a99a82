"""Autoencoders: networks that learn to reconstruct normal images, and what their failures and codes tell."""

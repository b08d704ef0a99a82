"""Trained models for others: one archive that holds all a prediction needs, and the MOOD challenge's container."""

from nnood.sharing.archive import open_model
from nnood.sharing.exporting import export_model
from nnood.sharing.installing import install_model

__all__ = ["export_model", "install_model", "open_model"]

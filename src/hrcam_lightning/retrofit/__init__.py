"""HR-CAM's second stage: a linear head on a frozen network, by one pass over the data and one convex problem."""

from hrcam_lightning.retrofit.trainer import RetrofitTrainer

__all__ = ["RetrofitTrainer"]

"""Local trainer, losses, metrics, evaluation and model versions."""

"""Models, data and flags small enough that a training run takes seconds: one module per system."""

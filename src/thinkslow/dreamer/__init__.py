"""DreamerV3, architecture profile `main`: the model, its losses, its training."""

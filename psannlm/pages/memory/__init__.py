"""Memory: the bytes of a training step, predicted and measured, checkpointed or not."""

"""Speed, memory and arithmetic of a model, and the figures drawn from what was measured."""

"""Neurons: one module for each model, `cell` for what they share, `wrappers` for what goes around them."""

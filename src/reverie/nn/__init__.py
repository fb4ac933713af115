"""Layers, recurrent cells, latents, distributions, heads, encoders and decoders."""

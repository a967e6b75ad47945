"""The paper: LEO, its layers, latents, losses and inner loop."""

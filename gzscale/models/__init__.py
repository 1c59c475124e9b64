"""Models: networks, what they are fed with, and the engine that runs them."""

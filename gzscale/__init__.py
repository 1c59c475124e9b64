"""gzscale turns a survey's pixels into galaxy catalogs overnight."""

__version__ = "0.1.0"

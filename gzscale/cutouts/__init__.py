"""Cutouts: stamps on a common grid, and the Zarr stores that hold them."""

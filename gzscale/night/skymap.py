"""The map of a night: its partitions on the sky, coloured by the part of their objects that is done."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy import units
from astropy.visualization.wcsaxes import WCSAxes
from astropy.visualization.wcsaxes.frame import EllipticalFrame, RectangularFrame
from astropy.wcs import WCS
from cdshealpix.nested import healpix_to_lonlat
from hats.pixel_math.spatial_index import compute_spatial_index
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gzscale.catalog.schema import HEALPIX_ORDER
from gzscale.night.charts import INK, MUTED, drawing, to_svg
from gzscale.night.overview import PartitionState

__all__ = ["centres", "find_owners", "project", "sky_map"]

#: From nothing done to all done; blue and red are told apart by the colour blind.
_COLOURS = LinearSegmentedColormap.from_list("done", ["#b2182b", "#f0b67f", "#92c5de", "#2f6fad"])
#: Beyond this radius in degrees the whole sky is shown.
_WHOLE_SKY = 60.0
#: Cells of the map.
_SIDE, _WHOLE_WIDTH = 480, 960
#: Partitions wider than so many cells are set apart by a line.
_SET_APART = 8
#: Mean half diagonal of a HEALPix pixel of order 0 in degrees (4 pi / 12 steradian, as a square).
_HALF_DIAGONAL = np.degrees(np.sqrt(4 * np.pi / 12)) / np.sqrt(2)


def sky_map(states: Sequence[PartitionState]) -> str:
    """Draw the partitions of a night.

    Every cell of the map is looked up on the sphere, so that a partition on the pole or on
    RA 0 is like any other; partitions too small for a cell are dots.

    Parameters
    ----------
    states
        At least one.
    """
    orders = np.array([state.item.partition.order for state in states], np.int64)
    pixels = np.array([state.item.partition.pixel for state in states], np.int64)
    fractions = np.array([state.fraction for state in states])
    ra, dec = centres(orders, pixels)
    radii = _HALF_DIAGONAL / 2.0**orders
    wcs, shape, whole = project(ra, dec, radii)
    owner = find_owners(wcs, shape, orders, pixels)
    if not whole:
        wcs, shape = _cropped(wcs, owner, ra, dec)
        owner = find_owners(wcs, shape, orders, pixels)
    cell = abs(wcs.wcs.cdelt[1])
    small = radii < 1.5 * cell
    image = np.where(owner >= 0, fractions[owner], np.nan)
    image[_edges(owner) & (radii[owner] > _SET_APART * cell)] = np.nan
    with drawing():
        figure = Figure(figsize=(6.4, 3.5) if whole else (5.2, 4.2))
        frame = EllipticalFrame if whole else RectangularFrame
        axes = WCSAxes(figure, (0.1, 0.1, 0.72, 0.86), wcs=wcs, frame_class=frame)
        figure.add_axes(axes)
        norm = Normalize(0, 1)
        axes.imshow(image, cmap=_COLOURS, norm=norm, interpolation="nearest", origin="lower")
        if small.any():
            x, y = wcs.world_to_pixel_values(ra[small], dec[small])
            axes.scatter(
                x, y, c=fractions[small], s=9, cmap=_COLOURS, norm=norm, linewidths=0, rasterized=True
            )
        axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(-0.5, shape[0] - 0.5))
        _label(axes, whole)
        place = figure.add_axes((0.87, 0.2, 0.022, 0.64))
        bar = figure.colorbar(ScalarMappable(norm, _COLOURS), cax=place)
        bar.set_label("part of the objects done", color=INK)
        bar.outline.set_visible(False)
        return to_svg(figure, "sky", "Map of the partitions on the sky, coloured by the part that is done")


def find_owners(
    wcs: WCS, shape: tuple[int, int], orders: NDArray[np.int64], pixels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Find the HEALPix pixel that each cell of a map lies in.

    Parameters
    ----------
    wcs
        The map's projection.
    shape
        Its rows and columns.
    orders, pixels
        HEALPix pixels (nested) that do not overlap, shape (n,).

    Returns
    -------
    NDArray[np.int64]
        Position among the pixels, of ``shape``; -1 where there is none.
    """
    row, column = np.indices(shape)
    ra, dec = wcs.pixel_to_world_values(column.ravel(), row.ravel())
    on_sky = np.isfinite(ra) & np.isfinite(dec)
    found = np.full(row.size, -1)
    index = np.asarray(compute_spatial_index(ra[on_sky] % 360, dec[on_sky]), np.int64)
    shift = 2 * (HEALPIX_ORDER - orders)
    starts, stops = pixels << shift, (pixels + 1) << shift
    by_start = np.argsort(starts)
    owner = by_start[np.clip(np.searchsorted(starts[by_start], index, side="right") - 1, 0, None)]
    found[on_sky] = np.where((index >= starts[owner]) & (index < stops[owner]), owner, -1)
    return found.reshape(shape)


def _edges(owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the cells whose neighbour above or to the right has another owner."""
    edges = np.zeros(owner.shape, bool)
    edges[:-1] |= owner[:-1] != owner[1:]
    edges[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    return edges


def _cropped(
    wcs: WCS, owner: NDArray[np.int64], ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> tuple[WCS, tuple[int, int]]:
    """Zoom in on the cells that have an owner, and on the centres of the pixels."""
    x, y = wcs.world_to_pixel_values(ra, dec)
    rows, columns = np.nonzero(owner >= 0)
    left, right = min(x.min(), columns.min(initial=_SIDE)), max(x.max(), columns.max(initial=0))
    low, high = min(y.min(), rows.min(initial=_SIDE)), max(y.max(), rows.max(initial=0))
    # No narrower than a third of its other side, so that a stripe keeps readable axes.
    width, height = (1.08 * max(end - start, 1.0) for start, end in ((left, right), (low, high)))
    width, height = max(width, height / 3), max(height, width / 3)
    zoom = _SIDE / max(width, height)
    shape = (round(height * zoom), round(width * zoom))
    zoomed = wcs.deepcopy()
    zoomed.wcs.cdelt = wcs.wcs.cdelt / zoom
    middle = (left + right) / 2 + 1, (low + high) / 2 + 1
    zoomed.wcs.crpix = [
        (side + 1) / 2 + (old - centre) * zoom
        for side, old, centre in zip(shape[::-1], wcs.wcs.crpix, middle, strict=True)
    ]
    return zoomed, shape


def centres(
    orders: NDArray[np.int64], pixels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centres of HEALPix pixels.

    Parameters
    ----------
    orders, pixels
        Nested scheme, shape (n,).

    Returns
    -------
    ra, dec : NDArray[np.float64]
        Degrees, shape (n,).
    """
    ra, dec = np.empty(len(orders)), np.empty(len(orders))
    for order in np.unique(orders):
        chosen = orders == order
        lon, lat = healpix_to_lonlat(pixels[chosen].astype(np.uint64), int(order))
        ra[chosen], dec[chosen] = lon.deg, lat.deg
    return ra, dec


def project(
    ra: NDArray[np.float64], dec: NDArray[np.float64], radii: NDArray[np.float64]
) -> tuple[WCS, tuple[int, int], bool]:
    """Choose a map that holds all partitions: zenithal equal-area around them, or all sky (Mollweide).

    Parameters
    ----------
    ra, dec
        Their centres in degrees, shape (n,).
    radii
        Half their diagonals in degrees, shape (n,).

    Returns
    -------
    wcs : astropy.wcs.WCS
        The projection.
    shape : tuple[int, int]
        Rows and columns.
    whole : bool
        Whether it is the whole sky.
    """
    alpha, delta = np.radians(ra), np.radians(dec)
    points = np.stack([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)])
    middle = points.mean(axis=1)
    length = float(np.linalg.norm(middle))
    wcs = WCS(naxis=2)
    if length > 0.1:
        cosines = np.clip(points.T @ middle / length, -1, 1)
        radius = float((np.degrees(np.arccos(cosines)) + radii).max()) * 1.05
        if radius < _WHOLE_SKY:
            wcs.wcs.ctype = ["RA---ZEA", "DEC--ZEA"]
            wcs.wcs.crval = [
                np.degrees(np.arctan2(middle[1], middle[0])) % 360,
                np.degrees(np.arcsin(middle[2] / length)),
            ]
            wcs.wcs.crpix = [(_SIDE + 1) / 2] * 2
            # Half a side of the map on the ZEA plane (Calabretta & Greisen 2002, eq. 69).
            half = np.degrees(2 * np.sin(np.radians(radius / 2)))
            wcs.wcs.cdelt = [-2 * half / _SIDE, 2 * half / _SIDE]
            return wcs, (_SIDE, _SIDE), False
    height = _WHOLE_WIDTH // 2
    wcs.wcs.ctype = ["RA---MOL", "DEC--MOL"]
    wcs.wcs.crval = [180.0, 0.0]
    wcs.wcs.crpix = [(_WHOLE_WIDTH + 1) / 2, (height + 1) / 2]
    step = 4 * np.sqrt(2) * 180 / np.pi / _WHOLE_WIDTH
    wcs.wcs.cdelt = [-step, step]
    return wcs, (height, _WHOLE_WIDTH), True


def _label(axes: WCSAxes, whole: bool) -> None:
    axes.coords.grid(color=MUTED, alpha=0.35, linewidth=0.5)
    axes.coords.frame.set_color(MUTED)
    axes.coords.frame.set_linewidth(0.6)
    for coordinate, name in zip(axes.coords, ("RA", "Dec"), strict=True):
        coordinate.set_format_unit("deg")
        coordinate.set_ticklabel(size=7.5, color=MUTED, exclude_overlapping=True)
        coordinate.set_axislabel(f"{name} [deg]" if not whole else "", color=INK)
        coordinate.set_ticks(color=MUTED, number=5)
        coordinate.set_ticks_visible(not whole)
    if whole:
        axes.coords[0].set_ticks(spacing=60 * units.deg)
        axes.coords[1].set_ticks(spacing=30 * units.deg)

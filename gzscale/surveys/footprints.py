"""An index of frame footprints on the sky: which frame covers a position."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray
from scipy.spatial import KDTree

from gzscale._parquet import decode
from gzscale.errors import ConfigError, CredentialsError, StorageError
from gzscale.storage import open_storage
from gzscale.surveys.tan import TanFrame, edge_distance, tan_pixels, tan_sky, unit_vectors

__all__ = [
    "Footprints",
    "footprints_of",
    "read_footprints",
    "stripe_to_sky",
    "window_flist_footprints",
    "write_footprints",
]

#: An index of all 938,046 fields of SDSS has 80 MB; SDSS's own window_flist.fits half a gigabyte.
MAX_INDEX_BYTES = 2_000_000_000
_INTEGERS = ("run", "camcol", "field", "naxis2", "naxis1")
_FLOATS = ("crval1", "crval2", "crpix1", "crpix2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")
#: Side of an SDSS pixel in degrees: 0.396127 arcsec (Gunn et al. 1998, AJ 116, 3040).
_PIXEL = 0.396127 / 3600
#: Positions that are searched at one time: bounds the memory of their candidates.
_BATCH = 65_536


@dataclass(frozen=True, slots=True)
class Footprints:
    """The footprints of some frames, one a (run, camcol, field).

    Attributes
    ----------
    exposures
        run, camcol, field, int64, shape (n, 3), sorted.
    shapes
        naxis2, naxis1, int64, shape (n, 2).
    parameters
        crval, crpix and cd as in `gzscale.surveys.tan.tan_pixels`, float64, shape (n, 8).
    """

    exposures: NDArray[np.int64]
    shapes: NDArray[np.int64]
    parameters: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.exposures)

    def search(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find for each position the frame that it lies deepest in.

        Parameters
        ----------
        ra, dec
            Degrees, shape (m,).

        Returns
        -------
        NDArray[np.int64]
            Row of the index, or -1 where no frame covers the position, shape (m,). Of the frames that
            cover it, the one whose nearest edge is farthest; of equals, the first.
        """
        best = np.full(len(ra), -1, dtype=np.int64)
        if not len(self):
            return best
        columns, rows = (self.shapes[:, 1] - 1) / 2.0, (self.shapes[:, 0] - 1) / 2.0
        tree = KDTree(unit_vectors(*tan_sky(self.parameters.T, columns, rows)))
        a, b, c, d = self.parameters[:, 4:].T
        half = np.hypot(columns + 1, rows + 1) * np.maximum(np.hypot(a, c), np.hypot(b, d))
        chord = 2 * np.sin(np.radians(min(float(half.max()), 90.0)) / 2) * 1.001
        for start in range(0, len(ra), _BATCH):
            stop = start + _BATCH
            near = tree.query_ball_point(unit_vectors(ra[start:stop], dec[start:stop]), chord)
            best[start:stop] = self._deepest(ra[start:stop], dec[start:stop], near)
        return best

    def _deepest(
        self, ra: NDArray[np.float64], dec: NDArray[np.float64], near: Iterable[list[int]]
    ) -> NDArray[np.int64]:
        best = np.full(len(ra), -1, dtype=np.int64)
        candidates = [sorted(found) for found in near]
        counts = np.array([len(found) for found in candidates])
        if not counts.sum():
            return best
        frame = np.concatenate([np.array(found, dtype=np.int64) for found in candidates])
        position = np.repeat(np.arange(len(ra)), counts)
        x, y = tan_pixels(self.parameters[frame].T, ra[position], dec[position])
        depth = edge_distance(x, y, self.shapes[frame].T)
        # Written from the shallowest to the deepest, so the deepest stays; of equals, the first frame.
        order = np.lexsort((-frame, depth))
        order = order[depth[order] >= 0]
        best[position[order]] = frame[order]
        return best


def footprints_of(frames: dict[tuple[int, int, int], TanFrame]) -> Footprints:
    """Make the index of some frames, by run, camcol and field."""
    keys = sorted(frames)
    return Footprints(
        exposures=np.array(keys, dtype=np.int64).reshape(-1, 3),
        shapes=np.array([frames[key].shape for key in keys], dtype=np.int64).reshape(-1, 2),
        parameters=np.array(
            [[*frames[key].crval, *frames[key].crpix, *frames[key].cd] for key in keys], dtype=np.float64
        ).reshape(-1, 8),
    )


def write_footprints(index: Footprints, location: str) -> None:
    """Write an index as Parquet."""
    integers = np.concatenate([index.exposures, index.shapes], axis=1)
    columns = {name: pa.array(integers[:, i].astype(np.int32)) for i, name in enumerate(_INTEGERS)}
    columns |= {name: pa.array(index.parameters[:, i]) for i, name in enumerate(_FLOATS)}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    folder, name = _split(location)
    open_storage(folder).put(name, sink.getvalue())


def read_footprints(location: str) -> Footprints:
    """Read an index: one that `write_footprints` wrote, or SDSS's ``window_flist.fits``.

    Raises
    ------
    ConfigError
        If it is missing, too large or neither of the two.
    """
    folder, name = _split(location)
    try:
        storage = open_storage(folder)
        entry = storage.stat(name)
        if entry is None:
            raise ConfigError(f"{location}: there is no footprint index; set survey.options.index to one")
        if entry.size > MAX_INDEX_BYTES:
            raise ConfigError(f"{location}: {entry.size} bytes; an index has at most {MAX_INDEX_BYTES}")
        data = storage.get(name)
    except CredentialsError:
        raise
    except StorageError as error:
        raise ConfigError(f"{location}: the footprint index cannot be read: {error}") from error
    if data.startswith(b"SIMPLE"):
        return window_flist_footprints(data, location)
    try:
        table = decode(data, [*_INTEGERS, *_FLOATS])
        integers = np.stack([table[name].to_numpy().astype(np.int64) for name in _INTEGERS], axis=1)
        parameters = np.stack([table[name].to_numpy().astype(np.float64) for name in _FLOATS], axis=1)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{location}: not a footprint index ({error}); build one from the tree") from error
    return Footprints(integers[:, :3], integers[:, 3:], parameters)


def window_flist_footprints(data: bytes, location: str, rerun: str = "301") -> Footprints:
    """Turn SDSS's list of all fields into an index.

    Each field is a rectangle in great circle coordinates (mu along the scan, nu across it), which a TAN
    projection at its middle matches to a few arcsec; the frame's own WCS has the last word.

    Parameters
    ----------
    data
        Bytes of ``window_flist.fits``: columns RUN, RERUN, CAMCOL, FIELD, NODE, INCL,
        MU_START, MU_END, NU_START, NU_END (degrees).
    location
        Its name, for messages.
    rerun
        Other reruns are passed over.

    References
    ----------
    https://data.sdss.org/datamodel/files/PHOTO_RESOLVE/window_flist.html
    """
    try:
        with fits.open(io.BytesIO(data), memmap=False) as hdus:
            table = hdus[1].data
            table = table[np.char.strip(np.asarray(table["RERUN"]).astype(str)) == rerun]
            exposures = np.stack([np.asarray(table[c], np.int64) for c in ("RUN", "CAMCOL", "FIELD")], axis=1)
            node, incl, mu0, mu1, nu0, nu1 = (
                np.asarray(table[c], np.float64)
                for c in ("NODE", "INCL", "MU_START", "MU_END", "NU_START", "NU_END")
            )
    except (OSError, IndexError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{location}: not a window_flist.fits ({error})") from error
    mu, nu = (mu0 + mu1) / 2, (nu0 + nu1) / 2
    ra, dec = stripe_to_sky(mu, nu, node, incl)
    sides = np.stack([np.abs(mu1 - mu0) * np.cos(np.radians(nu)), np.abs(nu1 - nu0)], axis=1)
    shapes = np.rint(sides / _PIXEL).astype(np.int64)
    # Rows run along mu and columns along nu: the direction of a small step gives the position angle.
    ra_row, dec_row = stripe_to_sky(mu + _PIXEL / np.cos(np.radians(nu)), nu, node, incl)
    ra_column, dec_column = stripe_to_sky(mu, nu + _PIXEL, node, incl)
    flat = np.cos(np.radians(dec))
    cd = [
        _wrapped(ra_column - ra) * flat,
        _wrapped(ra_row - ra) * flat,
        dec_column - dec,
        dec_row - dec,
    ]
    crpix = [(shapes[:, 1] + 1) / 2.0, (shapes[:, 0] + 1) / 2.0]
    order = np.lexsort(exposures.T[::-1])
    parameters = np.stack([ra, dec, *crpix, *cd], axis=1)
    return Footprints(exposures[order], shapes[order], parameters[order])


def stripe_to_sky(
    mu: NDArray[np.float64], nu: NDArray[np.float64], node: NDArray[np.float64], incl: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn great circle coordinates into right ascension and declination, all in degrees.

    References
    ----------
    Stoughton et al. 2002, AJ 123, 485, section 4.2.3 (SDSS survey coordinates).
    """
    m, n, i = np.radians(mu - node), np.radians(nu), np.radians(incl)
    x = np.cos(m) * np.cos(n)
    y = np.sin(m) * np.cos(n) * np.cos(i) - np.sin(n) * np.sin(i)
    z = np.sin(m) * np.cos(n) * np.sin(i) + np.sin(n) * np.cos(i)
    return (np.degrees(np.arctan2(y, x)) + node) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def _wrapped(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    return (angle + 180.0) % 360.0 - 180.0


def _split(location: str) -> tuple[str, str]:
    folder, _, name = location.rpartition("/")
    return folder or ("/" if location.startswith("/") else "."), name

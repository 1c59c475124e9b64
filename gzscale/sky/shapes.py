"""How the synthetic galaxies look: their bodies' shares of the r light, profiles, inclinations, patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["EDGE_ON_COSINE", "draw_shapes", "projected_axis_ratio"]

#: A disk is an edge-on galaxy below this cosine of the inclination: 78 degrees and more.
EDGE_ON_COSINE = 0.2
#: Bulge-to-total ratios in r: mean and standard deviation of a beta distribution (Graham & Worley 2008,
#: MNRAS 388, 1708, by Hubble type; of edge-on disks as of all types together).
_BULGES = {
    "lenticular": (0.35, 0.13),
    "spiral": (0.15, 0.09),
    "barred_spiral": (0.13, 0.07),
    "edge_on": (0.18, 0.12),
    "merger": (0.32, 0.09),
}
#: Shares of bars (Gadotti 2011, MNRAS 415, 3308), of arms (Seigar & James 1998, MNRAS 299, 685, for the arms'
#: strength; here in r) and of companions, as ranges.
_BARS = {"barred_spiral": (0.08, 0.20)}
_ARMS = {
    "spiral": (0.2, 0.45),
    "barred_spiral": (0.2, 0.4),
    "irregular": (0.4, 0.8),
    "merger": (0.08, 0.2),
}
_COMPANIONS = {"merger": (0.15, 0.4)}
#: How many arms are seen: Hart et al. 2016 (MNRAS 461, 3663), table 3, most have two.
_ARM_COUNTS = {1: 0.06, 2: 0.58, 3: 0.18, 4: 0.10, 5: 0.08}


def draw_shapes(
    kind: NDArray[np.str_],
    radius: NDArray[np.float64],
    absolute: NDArray[np.float64],
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """Draw bodies, profiles and orientation of each object.

    Parameters
    ----------
    kind
        Kinds of `gzscale.sky.population.KINDS`, or ``star``; shape (n,).
    radius
        Circularised half-light radius in arcsec, shape (n,); 0 for stars.
    absolute
        Absolute r magnitude, shape (n,); NaN for stars.
    rng
        The generator.

    Returns
    -------
    dict
        Columns of the truth table, each of shape (n,). ``fraction_<body>`` add up to 1; radii are half-light
        semi-major axes in arcsec, angles are in degrees.
    """
    n = kind.size
    spiral = np.isin(kind, ["spiral", "barred_spiral"])
    merger, elliptical, star = kind == "merger", kind == "elliptical", kind == "star"
    shares = _shares(kind, rng)
    ratio = _axis_ratio(kind, absolute, rng)
    # Half-integer Sersic indices: a profile's tables are computed once for each. Luminous ellipticals
    # have the higher ones (Caon, Capaccioli & D'Onofrio 1993, MNRAS 265, 1013).
    mean = np.where(elliptical, 4.0 - 0.6 * (np.nan_to_num(absolute, nan=-21.0) + 21.0), 2.2)
    index = np.clip(np.round(2 * rng.normal(mean, 0.9)), 2, 11) / 2
    numbers, odds = list(_ARM_COUNTS), list(_ARM_COUNTS.values())
    count = np.where(spiral, rng.choice(numbers, n, p=odds), 0)
    return {
        **{f"fraction_{body}": share for body, share in shares.items()},
        "axis_ratio": np.where(star, 1.0, ratio),
        "position_angle": rng.uniform(0, 180, n),
        "bulge_sersic": index,
        # The size relation is for circularised radii; these are semi-major axes. A bulge has about a quarter
        # of its galaxy's half-light radius (Gadotti 2009, MNRAS 393, 1531).
        "bulge_radius": np.where(elliptical, radius / np.sqrt(ratio), radius * rng.uniform(0.15, 0.4, n)),
        "disk_radius": np.where(elliptical, 0.0, 1.15 * radius / np.sqrt(np.maximum(ratio, 0.35))),
        "bar_angle": rng.uniform(0, 180, n),
        "arm_count": np.where(merger, 1, count).astype(np.int32),
        # Pitch angles of real arms: 8 (tight) to 35 degrees (loose), Kennicutt 1981 (AJ 86, 1847).
        "arm_pitch": np.where(merger, rng.uniform(30, 45, n), rng.uniform(8, 35, n)),
        "arm_sense": rng.choice([-1, 1], n).astype(np.int32),
        "pattern_seed": rng.integers(0, 2**31, n).astype(np.int32),
        "companion_separation": _among(kind, {"merger": (1.0, 2.6)}, rng) * radius,
        "companion_angle": rng.uniform(0, 360, n),
    }


def _among(
    kind: NDArray[np.str_], ranges: dict[str, tuple[float, float]], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw uniformly within each kind's range; 0 for kinds without one."""
    share, values = rng.random(kind.size), np.zeros(kind.size)
    for name, (low, high) in ranges.items():
        values = np.where(kind == name, low + (high - low) * share, values)
    return values


def _shares(kind: NDArray[np.str_], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Draw the bodies' shares of the r light; they add up to 1."""
    bulge = np.zeros(kind.size)
    for name, (mean, deviation) in _BULGES.items():
        strength = mean * (1 - mean) / deviation**2 - 1
        here = kind == name
        bulge[here] = rng.beta(mean * strength, (1 - mean) * strength, int(here.sum()))
    bulge[np.isin(kind, ["elliptical", "star"])] = 1.0
    bar, arms = _among(kind, _BARS, rng), _among(kind, _ARMS, rng)
    companion = _among(kind, _COMPANIONS, rng)
    scale = np.maximum(1.0, bulge + bar + arms + companion)
    shares = {"bulge": bulge, "bar": bar, "arms": arms, "companion": companion}
    shares = {body: share / scale for body, share in shares.items()}
    return {**shares, "disk": np.maximum(0.0, 1 - sum(shares.values()))}


def _axis_ratio(
    kind: NDArray[np.str_], absolute: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw projected axis ratios: Padilla & Strauss 2008 (MNRAS 388, 1321).

    Disks have a thickness of 0.21 +- 0.02 and a face-on ellipticity of ln e = -2.33 +- 0.79;
    ellipticals are oblate, from 0.41 at M_r = -18 to 0.76 at -22.5. All are seen from random directions,
    but the kind of that name from the side and other disks not.
    """
    n = kind.size
    cosine = rng.random(n)
    thin = np.isin(kind, ["spiral", "barred_spiral", "lenticular", "merger"])
    edge = kind == "edge_on"
    cosine = np.where(thin, EDGE_ON_COSINE + (1 - EDGE_ON_COSINE) * cosine, cosine)
    cosine = np.where(edge, EDGE_ON_COSINE * cosine, cosine)
    luminosity = np.nan_to_num(absolute, nan=-21.0)
    flattening = 0.41 + 0.35 * (-18.0 - luminosity) / 4.5 + 0.12 * rng.standard_normal(n)
    irregular = rng.normal(0.45, 0.12, n)
    thickness = np.where(kind == "elliptical", flattening, np.where(kind == "irregular", irregular, 0.0))
    thickness = np.clip(thickness, 0.25, 0.95)
    disk = thin | edge
    thickness = np.where(disk, np.clip(rng.normal(0.21, 0.02, n), 0.12, 0.3), thickness)
    ellipticity = np.minimum(np.exp(rng.normal(-2.33, 0.79, n)), 0.5)
    return projected_axis_ratio(
        np.where(disk, 1 - ellipticity, 1.0), thickness, cosine, rng.uniform(0, np.pi, n)
    )


def projected_axis_ratio(
    middle: NDArray[np.float64],
    minor: NDArray[np.float64],
    cosine: NDArray[np.float64],
    azimuth: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the axis ratio of a triaxial ellipsoid in projection: Binney 1985 (MNRAS 212, 767).

    Parameters
    ----------
    middle, minor
        Middle and smallest axis in units of the largest, shape (n,).
    cosine
        Cosine of the angle between the line of sight and the minor axis, shape (n,).
    azimuth
        Azimuth of the line of sight from the major axis in radians, shape (n,).

    Returns
    -------
    NDArray[np.float64]
        Between 0 and 1, shape (n,).
    """
    sine2, cosine2 = 1 - cosine**2, cosine**2
    across, along = np.sin(azimuth) ** 2, np.cos(azimuth) ** 2
    a = cosine2 / minor**2 * (across + along / middle**2) + sine2 / middle**2
    b = cosine * np.sin(2 * azimuth) * (1 - 1 / middle**2) / minor**2
    c = (across / middle**2 + along) / minor**2
    root = np.sqrt((a - c) ** 2 + b**2)
    return np.sqrt(np.maximum(a + c - root, 0) / (a + c + root))

"""One SDSS frame file: its four HDUs with the cards of the real ones, as bytes.

HDU 0 the image, 1 the calibration vector, 2 the sky, 3 the asTrans astrometry, as in
the SDSS data model's ``frame``. Written card by card, because the real files' order
and their BZERO, BSCALE and RADECSYS are not what a FITS library would write by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gzscale.sky import scan
from gzscale.sky.camera import NANOMAGGIES_PER_COUNT, calibration, sky_counts

__all__ = ["frame_bytes", "frame_path"]

_BLOCK = 2880
#: Bins of the stored sky, and pixels of a bin's side.
_SKY_COLUMNS, _SKY_ROWS, _SKY_BIN = 256, 192, 8
#: Order in which a star crosses the CCDs of a camera column; each is two fields behind the last.
_SCAN_ORDER = "riuzg"
#: Time of the run's first row in r: TAI seconds since MJD 0, and seconds a row.
_TAI_START, _ROW_TIME = 4558300000.0, 0.026322
#: What the real frames of 3918-3-213 state, by band.
_INVERSE_VARIANCE = {"u": 0.0880649, "g": 0.054179, "r": 0.151104, "i": 0.356087, "z": 12.1949}
_TRANSFORM_NAMES = (
    *("RUN", "RERUN", "CAMCOL", "FILTER", "NODE", "INCL", "NAXIS", "FIELD", "A", "B", "C", "D", "E", "F"),
    *("DROW0", "DROW1", "DROW2", "DROW3", "DCOL0", "DCOL1", "DCOL2", "DCOL3"),
    *("CSROW", "CSCOL", "CCROW", "CCCOL", "RICUT", "MJD", "AIRMASS", "MUERR", "NUERR"),
)

_Card = tuple[str, Any, str]


def frame_path(key: scan.FieldKey, band: str) -> str:
    """Return where a frame lies below the root of an SDSS image tree."""
    name = f"frame-{band}-{scan.RUN:06d}-{key.camcol}-{key.field:04d}.fits.bz2"
    return f"eboss/photoObj/frames/{scan.RERUN}/{scan.RUN}/{key.camcol}/{name}"


def frame_bytes(key: scan.FieldKey, band: str, pixels: NDArray[np.float32]) -> bytes:
    """Return a frame file before compression.

    Parameters
    ----------
    key, band
        Which frame.
    pixels
        Nanomaggies a pixel, shape (1489, 2048).
    """
    calib = calibration(key.camcol, band)
    parts = [
        _header(_image_cards(key, band)),
        _data(pixels.astype(">f4").tobytes()),
        _header(_vector_cards()),
        _data(calib.astype(">f4").tobytes()),
    ]
    for table in (_sky(key, band), _transform(key, band)):
        parts += [_header(_table_cards(table)), _data(table.tobytes())]
    return b"".join(parts)


def _header(cards: list[_Card]) -> bytes:
    text = "".join(fits.Card(*card).image for card in cards) + "END".ljust(80)
    return text.ljust(-(-len(text) // _BLOCK) * _BLOCK).encode("ascii")


def _data(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // _BLOCK) * _BLOCK, b"\0")


def _start(key: scan.FieldKey, band: str) -> float:
    """Return when the frame's first row was read, TAI seconds."""
    delay = 2 * scan.FIELD_STEP * _SCAN_ORDER.index(band)
    return round(_TAI_START + (key.first_row + delay) * _ROW_TIME, 2)


def _image_cards(key: scan.FieldKey, band: str) -> list[_Card]:
    wcs = scan.frame_wcs(key, band)
    return [
        ("SIMPLE", True, "32 bit floating point"),
        ("BITPIX", -32, "32 bit floating point"),
        ("NAXIS", 2, ""),
        ("NAXIS1", scan.COLUMNS, ""),
        ("NAXIS2", scan.ROWS, ""),
        ("EXTEND", True, "Extensions may be present"),
        ("BZERO", 0.0, "Set by MRD_SCALE"),
        ("BSCALE", 1.0, "Set by MRD_SCALE"),
        *_telescope_cards(key, band),
        *_run_cards(key, band),
        *_ccd_cards(key, band),
        *_version_cards(key),
        ("RADECSYS", "ICRS", "International Celestial Ref. System"),
        ("CTYPE1", "RA---TAN", "Coordinate type"),
        ("CTYPE2", "DEC--TAN", "Coordinate type"),
        ("CUNIT1", "deg", "Units"),
        ("CUNIT2", "deg", "Units"),
        ("CRPIX1", wcs.crpix[0], "X of reference pixel"),
        ("CRPIX2", wcs.crpix[1], "Y of reference pixel"),
        ("CRVAL1", wcs.crval[0], "RA of reference pixel (deg)"),
        ("CRVAL2", wcs.crval[1], "Dec of reference pixel (deg)"),
        ("CD1_1", float(wcs.cd[0, 0]), "RA deg per column pixel"),
        ("CD1_2", float(wcs.cd[0, 1]), "RA deg per row pixel"),
        ("CD2_1", float(wcs.cd[1, 0]), "Dec deg per column pixel"),
        ("CD2_2", float(wcs.cd[1, 1]), "Dec deg per row pixel"),
        ("HISTORY", "Synthetic frame: gzscale simulate", ""),
        ("COMMENT", "Calibration parameters", ""),
        ("COMMENT", "Floats truncated at 10 binary digits with FLOATCOMPRESS", ""),
        ("NMGY", NANOMAGGIES_PER_COUNT[band], "Calibration factor [nMgy per count]"),
        ("NMGYIVAR", _INVERSE_VARIANCE[band], "Calibration factor inverse variance"),
        ("VERSIDL", "none", "Version of IDL"),
        ("VERSUTIL", "none", "Version of idlutils"),
        ("VERSPOP", "none", "Version of photoop product"),
        ("PCALIB", "synthetic", "Value of PHOTO_CALIB"),
        ("PSKY", "synthetic", "Value of PHOTO_SKY"),
        ("RERUN", str(scan.RERUN), "rerun"),
        ("HISTORY", "SDSS_FRAME_ASTROM: synthetic astrometry, fitted to asTrans", ""),
    ]


def _telescope_cards(key: scan.FieldKey, band: str) -> list[_Card]:
    tai = _start(key, band)
    date, time = _calendar(tai)
    ra, dec = scan.pixel_to_sky(key.camcol, "r", scan.COLUMNS / 2, key.first_row)
    return [
        ("TAI", tai, "1st row - Seconds since Nov 17 1858"),
        ("RA", round(float(ra), 6), "1st row - RA of telescope boresight (deg)"),
        ("DEC", round(float(dec), 6), "1st row - Dec of telescope boresight (deg)"),
        ("SPA", 90.0, "1st row - Camera col position angle (deg)"),
        ("IPA", 180.0, "1st row - Rotator position angle (deg)"),
        ("IPARATE", 0.0, "1st row - Rotator angular velocity (deg/s)"),
        ("AZ", 120.0, "1st row - Azimuth of telescope (deg)"),
        ("ALT", 60.0, "1st row - Altitude of telescope (deg)"),
        ("FOCUS", -515.5, "1st row - Focus piston (microns)"),
        ("DATE-OBS", date, "1st row - TAI date"),
        ("TAIHMS", time, "1st row - TAI time (HH:MM:SS.SS)"),
        ("COMMENT", "TAI,RA,DEC,SPA,IPA,IPARATE,AZ,ALT,FOCUS at reading of col 0, row 0", ""),
    ]


def _calendar(tai: float) -> tuple[str, str]:
    """Return date and time of day of TAI seconds since MJD 0."""
    day, second = divmod(round(tai * 100), 8640000)
    date = np.datetime64("1858-11-17") + np.timedelta64(day, "D")
    hours, rest = divmod(second, 360000)
    minutes, hundredths = divmod(rest, 6000)
    return str(date), f"{hours:02d}:{minutes:02d}:{hundredths / 100:05.2f}"


def _run_cards(key: scan.FieldKey, band: str) -> list[_Card]:
    camera_row = _SCAN_ORDER.index(band) + 1
    return [
        ("ORIGIN", "SDSS", ""),
        ("TELESCOP", "2.5m", ""),
        ("TIMESYS", "TAI", ""),
        ("RUN", scan.RUN, "Run number"),
        ("FRAME", key.field + 2 * (camera_row - 1), "Frame sequence number within the run"),
        ("CCDLOC", 10 * camera_row + key.camcol, "Survey location of CCD (e.g., rowCol)"),
        ("STRIPE", scan.STRIPE, "Stripe index number (23 <--> eta=0)"),
        ("STRIP", "N", "Strip in the stripe being tracked."),
        ("FLAVOR", "science", "Flavor of this run"),
        ("OBSERVER", "none", "Observer"),
        ("SYS_SCN", "mean", "System of the scan great circle (e.g., mean)"),
        ("EQNX_SCN", 2000.0, "Equinox of the scan great circle. (years)"),
        ("NODE", scan.NODE, "RA of the great circle's ascending node"),
        ("INCL", scan.INCLINATION, "Great circle's inclination wrt equator"),
        ("XBORE", -22.74, "Boresight x offset from the array center"),
        ("YBORE", 0.0, "Boresight y offset from the array center"),
        ("OBJECT", f"{scan.STRIPE} N", "e.g., 'stripe 50.6 degrees, north strip'"),
        ("EXPTIME", "53.907456", "Exposure time (seconds)"),
        ("SYSTEM", "FK5", "System of the TCC coordinates (e.g., mean)"),
        ("CCDMODE", "DRIFT", "'STARING' or 'DRIFT'"),
        ("C_OBS", 26322, "CCD row clock rate (usec/row)"),
        ("COLBIN", 1, "Binning factor perpendicular to the columns"),
        ("ROWBIN", 1, "Binning factor perpendicular to the rows"),
    ]


def _ccd_cards(key: scan.FieldKey, band: str) -> list[_Card]:
    return [
        ("DAVERS", "none", "Version of DA software"),
        ("SCDMETHD", "sqrtDynamic", "scdMethod"),
        ("SCDWIDTH", 1280, "scdDisplayWidth"),
        ("SCDDECMF", 1, "scdDecimateFactor"),
        ("SCDOFSET", 0, "scdDisplayOffset"),
        ("SCDDYNTH", -18, "scdDynamicThresh"),
        ("SCDSTTHL", 30, "scdStaticThreshL"),
        ("SCDSTTHR", 30, "scdStaticThreshR"),
        ("SCDREDSZ", 471, "scdReduceSize"),
        ("SCDSKYL", 0, "scdSkyLeft"),
        ("SCDSKYR", 0, "scdSkyRight"),
        ("COMMENT", "CCD-specific parameters", ""),
        ("CAMROW", _SCAN_ORDER.index(band) + 1, "Row in the imaging camera"),
        ("BADLINES", 0, "Number of bad lines in frame"),
        ("EQUINOX", 2000.0, ""),
        ("SOFTBIAS", 1000, 'software "bias" added to all DN'),
        ("BUNIT", "nanomaggy", "1 nanomaggy = 3.631e-6 Jy"),
        ("FILTER", band, "filter used"),
        ("CAMCOL", key.camcol, "column in the imaging camera"),
    ]


def _version_cards(key: scan.FieldKey) -> list[_Card]:
    names = ("VERSION", "DERV_VER", "ASTR_VER", "ASTRO_ID", "BIAS_ID", "FRAME_ID", "KO_VER")
    return [
        *((name, "synthetic", "") for name in names),
        ("PS_ID", f"synthetic camCol {key.camcol}", ""),
        ("ATVSN", "synthetic", "ASTROTOOLS version tag"),
    ]


def _vector_cards() -> list[_Card]:
    return [
        ("XTENSION", "IMAGE", "Image Extension"),
        ("BITPIX", -32, ""),
        ("NAXIS", 1, ""),
        ("NAXIS1", scan.COLUMNS, ""),
        ("PCOUNT", 0, ""),
        ("GCOUNT", 1, ""),
    ]


_CODES = {"i4": "J", "f4": "E", "f8": "D"}


def _table_cards(table: NDArray[np.void]) -> list[_Card]:
    names = table.dtype.names or ()
    layouts = [table.dtype[name] for name in names]
    sizes = [int(np.prod(layout.shape)) for layout in layouts]
    repeats = ["" if size == 1 else str(size) for size in sizes]
    codes = []
    for layout, repeat in zip(layouts, repeats, strict=True):
        width = str(layout.itemsize) if layout.itemsize > 1 else ""
        codes.append(f"{width}A" if layout.kind == "S" else repeat + _CODES[layout.base.str[1:]])
    blank: _Card = ("COMMENT", "", "")
    cards: list[_Card] = [
        ("XTENSION", "BINTABLE", "Binary table"),
        ("BITPIX", 8, "Required value"),
        ("NAXIS", 2, "Required value"),
        ("NAXIS1", table.dtype.itemsize, "Number of bytes per row"),
        ("NAXIS2", 1, "Number of rows"),
        ("PCOUNT", 0, "Normally 0 (no varying arrays)"),
        ("GCOUNT", 1, "Required value"),
        ("TFIELDS", len(names), "Number of columns in table"),
        *(blank, ("COMMENT", " *** End of mandatory fields ***", ""), blank, blank),
        *(("COMMENT", " *** Column names ***", ""), blank),
        *((f"TTYPE{i}", name, "") for i, name in enumerate(names, 1)),
        *(blank, ("COMMENT", " *** Column formats ***", ""), blank),
        *((f"TFORM{i}", code, "") for i, code in enumerate(codes, 1)),
    ]
    shaped = [(i, layout.shape) for i, layout in enumerate(layouts, 1) if len(layout.shape) > 1]
    if shaped:
        cards += [blank, ("COMMENT", " *** Column dimensions (2 D or greater) ***", ""), blank]
        cards += [(f"TDIM{i}", f"({', '.join(map(str, reversed(shape)))})", "") for i, shape in shaped]
    return cards


def _sky(key: scan.FieldKey, band: str) -> NDArray[np.void]:
    """Return the binned sky and where each of the frame's columns and rows lies in it."""
    layout = [("ALLSKY", ">f4", (_SKY_ROWS, _SKY_COLUMNS)), ("XINTERP", ">f4", (scan.COLUMNS,))]
    table = np.zeros(1, np.dtype([*layout, ("YINTERP", ">f4", (scan.ROWS,))]))
    centre = (_SKY_BIN - 1) / 2
    rows = key.first_row + np.arange(_SKY_ROWS) * _SKY_BIN + centre
    table["ALLSKY"][0] = sky_counts(key.camcol, band, rows, np.arange(_SKY_COLUMNS) * _SKY_BIN + centre)
    table["XINTERP"][0] = (np.arange(scan.COLUMNS) - centre) / _SKY_BIN
    table["YINTERP"][0] = (np.arange(scan.ROWS) - centre) / _SKY_BIN
    return table


def _transform(key: scan.FieldKey, band: str) -> NDArray[np.void]:
    """Return the frame's asTrans row; A is shifted to rows counted from the frame's own first."""
    coefficients = scan.transform(key.camcol, band)
    coefficients["A"] += coefficients["B"] * key.first_row
    values = dict.fromkeys(_TRANSFORM_NAMES, 0.0) | {
        "RUN": scan.RUN,
        "RERUN": str(scan.RERUN),
        "CAMCOL": key.camcol,
        "FILTER": band,
        "NODE": scan.NODE,
        "INCL": scan.INCLINATION,
        "NAXIS": (scan.COLUMNS, scan.ROWS),
        "FIELD": key.field,
        **coefficients,
        "RICUT": 100.0,
        "MJD": _start(key, band) / 86400,
        "AIRMASS": 1.15,
        "MUERR": 0.02,
        "NUERR": 0.02,
    }
    kinds = dict.fromkeys(_TRANSFORM_NAMES, ">f8") | {
        **dict.fromkeys(("RUN", "CAMCOL", "FIELD"), ">i4"),
        **dict.fromkeys(("MUERR", "NUERR"), ">f4"),
        "RERUN": "S3",
        "FILTER": "S1",
    }
    layout = [(n, ">i4", (2,)) if n == "NAXIS" else (n, kinds[n]) for n in _TRANSFORM_NAMES]
    return np.array([tuple(values[name] for name in _TRANSFORM_NAMES)], np.dtype(layout))

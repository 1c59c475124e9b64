"""What the network is fed with: flux rendered in SDSS's colours, a picture, or flux as it was measured.

Colours and pictures are two doors to the same room. Volunteers of Galaxy Zoo 2 saw JPEGs of 424
pixels at 0.02 x petroR90 arcsec a pixel; four of their pixels are one of a cutout of 96 pixels at
0.08 x petroR90. Flux, for tasks that measure, keeps every band apart and says how well each pixel is
known. Everything here is batched and runs where the tensor lies.

References
----------
.. [1] Lupton et al. 2004, PASP 116, 133 (the asinh colour stretch).
.. [2] sdss/idlutils, ``pro/rgbcolor/djs_rgb_make.pro``; the numbers of SDSS's own frame JPEGs
       (scales 0.4 x (5, 6.5, 9) for i, r, g and nonlinearity 2.25) are those of photoop's
       ``sdss_frame_jpg``.
.. [3] Schlafly & Finkbeiner 2011, ApJ 737, 103, Table 6, R_V = 3.1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "LSST_REDDENING",
    "PICTURE_FACTOR",
    "PICTURE_SCALE",
    "PICTURE_SIZE",
    "REDDENING",
    "SDSS_REDDENING",
    "SDSS_STRETCH",
    "FluxInputs",
    "Inputs",
    "Stretch",
    "from_flux",
    "from_pictures",
    "render",
    "symmetries",
    "to_channels",
]

#: Side in pixels of the JPEGs that volunteers saw, and how many of theirs make one of a cutout's.
PICTURE_SIZE = 424
PICTURE_FACTOR = 4
#: Pictures that are averaged together on a CPU: as numbers they are long, and memory is slower than caches.
_IN_CACHE = 4
#: Scale of a picture whose pixels were averaged so, in arcsec.
PICTURE_SCALE = "0.08 * size"
#: Largest float16: what an infinite pixel counts as.
_BRIGHTEST = 65504.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A colour rendering of surface brightness.

    Attributes
    ----------
    bands
        The bands shown as red, green and blue.
    scales
        What each is multiplied by, per nanomaggy a native pixel.
    nonlinearity
        Where the stretch turns from linear to logarithmic.
    pixel_scale
        Side of the native pixel in arcsec.
    filters
        The survey whose filters they are. A file that does not say is of a time when all were SDSS's.
    """

    bands: str
    scales: tuple[float, float, float]
    nonlinearity: float
    pixel_scale: float
    filters: str = "sdss"

    def __post_init__(self) -> None:
        numbers = (*self.scales, self.nonlinearity, self.pixel_scale)
        if len(self.bands) != 3 or len(numbers) != 5 or not all(0 < number < math.inf for number in numbers):
            raise ValueError(f"bands {self.bands!r} and numbers {numbers}: 3 bands, 5 positive numbers")


@dataclass(frozen=True, slots=True)
class FluxInputs:
    """Flux in channels of its own for each band, and how well each pixel is known. See `to_channels`.

    Attributes
    ----------
    bands
        The bands in the order of the channels, one letter each.
    required
        Those without which an object gets no answer; one of the others may be missing.
    softening
        Surface brightness in nanomaggies per square arcsec at which the scale turns from linear to
        logarithmic, one a band; near the noise of a pixel.
    reddening
        Extinction in magnitudes per E(B-V), one a band.
    pixel_scale
        Arcsec a pixel where the geometry fixes it; None: what each cutout says.
    filters
        See `Stretch`.
    """

    bands: str
    required: str
    softening: tuple[float, ...]
    reddening: tuple[float, ...]
    pixel_scale: float | None = None
    filters: str = "sdss"

    def __post_init__(self) -> None:
        numbers = (*self.softening, *self.reddening, self.pixel_scale or 1.0)
        if not len(self.bands) == len(set(self.bands)) == len(self.softening) == len(self.reddening) > 0:
            raise ValueError(
                f"bands {self.bands!r}: each once, with as many softenings ({len(self.softening)}) and "
                f"reddenings ({len(self.reddening)})"
            )
        if not self.required or set(self.required) - set(self.bands):
            raise ValueError(f"required bands {self.required!r}: at least one of {self.bands!r}")
        if not all(0 < number < math.inf for number in numbers):
            raise ValueError(f"softening, reddening and pixel scale must be positive, found {numbers}")


#: What a bundle may be fed with.
Inputs = Stretch | FluxInputs

#: Extinction per E(B-V) of SDSS's and of LSST's bands [3]_.
SDSS_REDDENING = {"u": 4.239, "g": 3.303, "r": 2.285, "i": 1.698, "z": 1.263}
LSST_REDDENING = {"u": 4.145, "g": 3.237, "r": 2.273, "i": 1.684, "z": 1.323, "y": 1.088}
#: The same by survey.
REDDENING = {"sdss": SDSS_REDDENING, "rubin": LSST_REDDENING}

#: The rendering of SDSS's frame-irg JPEGs [2]_.
SDSS_STRETCH = Stretch("irg", (2.0, 2.6, 3.6), 2.25, 0.396)


def render(flux: Tensor, stretch: Stretch = SDSS_STRETCH) -> Tensor:
    """Render surface brightness in colours.

    Each band is scaled and clipped at 0; all three are then multiplied by
    asinh(b I) / (b I), I their sum, so that colours are kept. Where the brightest would pass
    1, the three are divided by it instead. SDSS also replaces saturated cores (above 100
    nanomaggies a pixel) by the colour around them; that is not done here: they are white or
    nearly so in both.

    Parameters
    ----------
    flux
        Nanomaggies a native pixel in the bands of ``stretch``, shape (n, 3, y, x), finite.
    stretch
        The rendering.

    Returns
    -------
    Tensor
        Red, green, blue in [0, 1], same shape and dtype.
    """
    scales = _constants(stretch.scales, flux.dtype, flux.device)
    bands = (flux * scales[:, None, None]).clamp_(min=0)
    total = bands.sum(dim=1, keepdim=True).mul_(stretch.nonlinearity).clamp_(min=1e-6)
    factor = _asinh(total).div_(total)
    brightest = bands.amax(dim=1, keepdim=True).clamp_(min=1e-6)
    return bands.mul_(torch.minimum(factor, 1 / brightest))


def _asinh(values: Tensor) -> Tensor:
    """Inverse hyperbolic sine of positive values; on a CPU twelve times as fast as `torch.asinh`."""
    squares = values.square()
    return torch.log1p(squares.div_((squares + 1).sqrt_().add_(1)).add_(values))


@functools.lru_cache(maxsize=64)
def _constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers on a device, sent once: each sending waits for all that the stream has to do."""
    # What is made in inference could not be used where gradients are wanted.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def _in_order(images: Tensor, bands: str, wanted: str) -> Tensor:
    """Return images in the order of some bands; indexing with a list would send the list to the device."""
    if bands == wanted:
        return images
    return torch.stack([images[:, bands.index(band)] for band in wanted], dim=1)


def from_flux(images: Tensor, scale: Tensor, bands: str, stretch: Stretch = SDSS_STRETCH) -> Tensor:
    """Turn cutouts into what the network takes.

    Parameters
    ----------
    images
        Nanomaggies a pixel of the cutout, shape (n, len(bands), y, x), any float dtype. A
        pixel that is NaN in any of the bands shown is black.
    scale
        Pixel scale of each cutout in arcsec, shape (n,).
    bands
        The bands of ``images``, one letter each.
    stretch
        The rendering.

    Returns
    -------
    Tensor
        float32, shape (n, 3, y, x), values in [0, 1].
    """
    chosen = _in_order(images, bands, stretch.bands).float()
    known = ~chosen.isnan().any(dim=1, keepdim=True)
    per_native = (stretch.pixel_scale / scale.to(torch.float64)).square().float()
    chosen = torch.nan_to_num(chosen, nan=0.0, posinf=_BRIGHTEST, neginf=0.0)
    return render(chosen.mul_(per_native[:, None, None, None]), stretch).mul_(known)


def to_channels(
    images: Tensor, scale: Tensor, noise: Tensor, extinction: Tensor, inputs: FluxInputs
) -> Tensor:
    """Turn cutouts into what a network takes that measures flux.

    Surface brightness, corrected for extinction where it is known, is divided by the softening s and
    compressed by asinh, as asinh magnitudes are (Lupton, Gunn & Szalay 1999, AJ 118, 1406): linear in
    the noise, logarithmic in the galaxy. How well a pixel is known is s / (s + sigma), sigma its noise in
    the same unit.

    Parameters
    ----------
    images
        Nanomaggies a pixel in the bands of ``inputs``, shape (n, B, y, x), any float dtype, NaN where there
        is no measurement. A band that is 0 throughout was not measured either.
    scale
        Arcsec a pixel, shape (n,).
    noise
        Background sigma of a pixel in nanomaggies, shape (n, B); where it is not a positive number, it
        counts as s.
    extinction
        E(B-V) in magnitudes, shape (n,); NaN: not corrected.
    inputs
        Softening and reddening.

    Returns
    -------
    Tensor
        float32, shape (n, 2 B, y, x), finite: B channels of flux, 0 where it was not measured, then B of
        knowledge in [0, 1], 0 where it was not measured.
    """
    softening = _constants(inputs.softening, torch.float32, images.device)
    reddening = _constants(inputs.reddening, torch.float32, images.device)
    if inputs.pixel_scale is not None:
        scale = torch.full_like(scale, inputs.pixel_scale)
    corrected = torch.pow(10.0, 0.4 * reddening * torch.nan_to_num(extinction.float())[:, None])
    factor = corrected / (softening * scale.float().square()[:, None])
    known = ~images.isnan() & (images != 0).any(dim=-1).any(dim=-1)[:, :, None, None]
    flux = torch.nan_to_num(images.float(), nan=0.0, posinf=_BRIGHTEST, neginf=-_BRIGHTEST)
    flux.mul_(factor[:, :, None, None])
    relative = torch.where(noise > 0, noise.float() * factor, 1.0)
    knowledge = (1 / (1 + relative))[:, :, None, None] * known
    return torch.cat([torch.copysign(_asinh(flux.abs()), flux).mul_(known), knowledge], dim=1)


def from_pictures(pictures: Tensor, size: int) -> Tensor:
    """Turn pictures into what the network takes.

    Parameters
    ----------
    pictures
        uint8, shape (n, side, side, 3): either the side of `PICTURE_SIZE`, which is averaged
        over blocks of 4 x 4 pixels and cut to the centre, or the side of ``size``, which is
        taken as it is.
    size
        Side of the cutout that the network takes.

    Returns
    -------
    Tensor
        float32, shape (n, 3, size, size), values in [0, 1].

    Raises
    ------
    ValueError
        If the pictures have another side.
    """
    side = pictures.shape[1]
    if side not in (size, PICTURE_SIZE):
        raise ValueError(f"pictures of {side} pixels: expected {PICTURE_SIZE} or {size}")
    if side == size:
        return pictures.permute(0, 3, 1, 2).float().div_(255)
    # Cut before anything is as long as four times the picture.
    start = (side // PICTURE_FACTOR - size) // 2 * PICTURE_FACTOR
    centre = slice(start, start + size * PICTURE_FACTOR)
    together = _IN_CACHE if pictures.device.type == "cpu" else max(len(pictures), 1)
    parts = [
        functional.avg_pool2d(part.permute(0, 3, 1, 2).float().div_(255), PICTURE_FACTOR)
        for part in pictures[:, centre, centre].split(together)
    ]
    return torch.cat(parts)


def symmetries(images: Tensor) -> Iterator[Tensor]:
    """Yield the 8 symmetries of the square: 4 rotations, each with its mirror image."""
    for mirrored in (images, images.flip(-1)):
        for turns in range(4):
            yield torch.rot90(mirrored, turns, (2, 3))

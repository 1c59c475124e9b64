"""A cutout store of galaxies whose colours and sizes tell their redshifts, and a table of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gzscale.config import GeometryConfig
from gzscale.cutouts.write import GroupContent, PartitionWriter
from gzscale.storage import open_storage

BANDS = "ugriz"
NOISE = np.array([0.02, 0.01, 0.015, 0.02, 0.06], np.float32)


def draw(count, seed, side=64):
    """Return redshifts, E(B-V) and images: redder, smaller and fainter with redshift, behind dust."""
    rng = np.random.default_rng(seed)
    redshift = rng.uniform(0.02, 0.38, count)
    ebv = rng.uniform(0, 0.2, count).astype(np.float32)
    colours = np.stack(
        [1.2 + 1.5 * redshift, 0.5 + 2.5 * redshift, 0.4 + 0.3 * redshift, 0.3 + 0 * redshift], 1
    )
    colours += rng.normal(0, 0.02, colours.shape)
    r = rng.uniform(15.5, 17.5, count)
    magnitude = np.stack([r + colours[:, 0] + colours[:, 1], r + colours[:, 1], r, r - colours[:, 2],
                          r - colours[:, 2] - colours[:, 3]], 1)  # fmt: skip
    magnitude += ebv[:, None] * np.array([4.239, 3.303, 2.285, 1.698, 1.263])
    flux = 10 ** (0.4 * (22.5 - magnitude))
    sigma = rng.uniform(2, 3, count) * (1.5 - redshift)
    axis = np.arange(side) - (side - 1) / 2
    shape = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * sigma[:, None, None] ** 2))
    shape /= shape.sum(axis=(1, 2), keepdims=True)
    images = flux[:, :, None, None] * shape[:, None]
    images += NOISE[:, None, None] * rng.standard_normal(images.shape)
    return redshift, ebv, images.astype(np.float16)


def write_store(folder, count=600, seed=0, bands=BANDS, blocks=2, first=1):
    """Write a store of some partitions and ``labels.parquet`` below a folder; return redshifts and images."""
    redshift, ebv, images = draw(count, seed)
    images = images[:, [BANDS.index(band) for band in bands]]
    ids = np.arange(first, first + count)
    storage = open_storage(str(folder))
    for block, rows in enumerate(np.array_split(np.arange(count), blocks)):
        shape = (len(rows), len(bands))
        writer = PartitionWriter(storage, f"cutouts/block={block}.zarr")
        content = GroupContent(
            geometry=GeometryConfig(size=64, scale=0.396),
            bands=bands,
            images=images[rows],
            object_id=ids[rows],
            ra=np.zeros(len(rows)),
            dec=np.zeros(len(rows)),
            scale=np.full(len(rows), 0.396),
            coverage=np.ones(shape, np.float32),
            noise=np.broadcast_to(NOISE[[BANDS.index(band) for band in bands]], shape).copy(),
            band_status=np.zeros(shape, np.uint8),
            image_index=np.full((*shape, 1), -1, np.int32),
            sources=(),
        )
        writer.write_group("sky", content)
        writer.close()
    table = pa.table({"object_id": ids, "redshift": redshift, "ebv": ebv})
    pq.write_table(table, folder / "labels.parquet")
    return redshift, images

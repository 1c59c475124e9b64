"""What a GPU makes of each shipped bundle: ceiling, store to predictions, stages, three together.

All are shown cutouts of 96 x 96 pixels, of which each looks at as many as it was trained for. One command for
a machine with a GPU, Python 3.12 and a driver for CUDA 13; it says first what has to be installed, installs
nothing, and ends within five minutes. Without a GPU it runs on the cores, with small numbers. Run:
``python tests/benchmarks/bench_gpu.py [--json OUT] [--svg OUT]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

INSTALL = "python3.12 -m pip install 'torch==2.11.*' ."
#: Partitions, objects of each and seconds of each measurement, on a GPU and on a CPU.
ON_GPU, ON_CPU = (4, 2048, 2.0), (2, 64, 0.1)
#: Seconds after which everything is measured by one call alone.
LIMIT = 180.0
#: Side of the cutouts that every bundle is shown.
SIDE = 96
GOALS = {"store / ceiling": 0.9, "busy": 0.9, "morphology-gz2 images/s": 100_000}


def chosen(names: str) -> list[Path]:
    """Return the shipped bundles in whose names there is one of some parts, separated by commas."""
    from gzscale.models.shipped import SHIPPED, shelf

    every = [path for task in SHIPPED for path in shelf(task)]
    return [path for path in every if any(name in path.stem for name in names.split(","))]


def measure(options: argparse.Namespace, paths: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Write a store and measure some bundles."""
    import roofline
    import torch
    from stores import Group, observed, write_store

    from gzscale.models.bundle import load_bundle
    from gzscale.models.engine import Engine, choose_device
    from gzscale.night.turns import in_hand

    begun = time.monotonic()
    device = choose_device()
    # As many partitions as a night's worker has in hand, and twice as many.
    usual = in_hand(None, 1) if device.type == "cuda" else 1
    beside = (usual, 2 * usual)
    partitions, objects, wanted = ON_GPU if device.type == "cuda" else ON_CPU
    partitions, objects = options.partitions or partitions, options.objects or objects
    groups = {"sdss": Group("ugriz", SIDE, "0.08 * size"), "rubin": Group("ugrizy", SIDE, "0.08 * size")}
    storage, pieces = write_store(folder, groups, partitions, objects)
    sdss, rubin = (roofline.Source(storage, pieces, name) for name in groups)

    def seconds() -> float:
        given = wanted if options.seconds is None else options.seconds
        return given if time.monotonic() - begun < LIMIT else 0.0

    def one(engine: Engine, source: roofline.Source) -> dict[str, Any]:
        seen = observed(source.read(pieces[0]))
        start = time.perf_counter()
        engine.settle()
        settled = time.perf_counter() - start
        found = roofline.ceiling(engine, seen, seconds())
        night = roofline.from_store([engine], source, beside[0], seconds())
        many = roofline.from_store([engine], source, beside[1], seconds())
        best = max(found.values())
        return {
            "side": engine.bundle.geometry.size,
            "looks_at": engine.layout.side,
            "batch": engine.batch,
            "batch_of_a_partition": engine.sizes.within(objects).batch,
            "batch_found_in_s": settled,
            "captured": roofline.is_captured(engine),
            "ceiling": found,
            "memory": roofline.from_memory([engine], seen, seconds()),
            "store": night.rate,
            "store_many": many.rate,
            "store / ceiling": night.rate / best,
            "busy": night.busy,
            "stages": roofline.stages(engine, source, seconds()),
        }

    found: dict[str, Any] = {}
    for path in paths:
        engine = Engine(roofline.shown_as(load_bundle(path), SIDE), device)
        found[path.stem] = one(engine, rubin if "rubin" in path.stem else sdss)
        print(f"{path.stem}: measured after {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

    def three(first: Sequence[Path]) -> dict[str, Any]:
        engines = [Engine(roofline.shown_as(load_bundle(path), SIDE), device) for path in first]
        seen = observed(sdss.read(pieces[0]))
        apart = [roofline.from_memory([engine], seen, seconds()) for engine in engines]
        together = roofline.from_memory(engines, seen, seconds())
        run = roofline.from_store(engines, sdss, beside[0], seconds())
        return {
            "bundles": [path.stem for path in first],
            "side": SIDE,
            "apart": 1 / sum(1 / rate for rate in apart),
            "together": together,
            "gain": together * sum(1 / rate for rate in apart),
            "store": run.rate,
            "busy": run.busy,
        }

    first = [path for path in paths if "rubin" not in path.stem]
    return {
        **roofline.about_machine(device),
        "in_hand": beside,
        "partitions": partitions,
        "objects_of_a_partition": objects,
        "threads": torch.get_num_threads(),
        "bundles": found,
        **({"three": three(first)} if first else {}),
        "goals": GOALS,
        "seconds": time.monotonic() - begun,
    }


def rates(about: Mapping[str, Any]) -> dict[str, float]:
    """Return what a bundle's chart and table show, in the order of an image's way."""
    return {
        **about["stages"],
        **{f"compute ({kind})": rate for kind, rate in about["ceiling"].items()},
        "memory to predictions": about["memory"],
        "store to predictions": about["store"],
        "store to predictions, twice in hand": about["store_many"],
    }


def table(result: Mapping[str, Any]) -> str:
    """Return the figures as lines of text."""
    lines = [f"{result.get('gpu', result['device'])}, torch {result['torch']}, {result['processor']}"]
    for name, about in result["bundles"].items():
        kind = "a CUDA graph" if about["captured"] else "kernel by kernel"
        lines.append(
            f"\n{name}, {about['side']} px (looks at {about['looks_at']}), batch {about['batch']}, of a "
            f"partition {about['batch_of_a_partition']} ({kind}): "
            f"store / ceiling {about['store / ceiling']:.3f}, GPU busy {about['busy']}"
        )
        lines += [f"  {what:<34}{rate:>14,.0f} images/s" for what, rate in rates(about).items()]
    if "three" in result:
        three = result["three"]
        lines.append(
            f"\n{' + '.join(three['bundles'])} at {three['side']} px: together "
            f"{three['together']:,.0f} images/s, one after another {three['apart']:,.0f} "
            f"({three['gain']:.2f} x); from the store {three['store']:,.0f}, GPU busy {three['busy']}"
        )
    return "\n".join(lines)


def chart(bundles: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw each bundle's stages as bars, with the report's own charts; a file by itself, in the light."""
    from matplotlib.figure import Figure

    from gzscale.night.charts import COLOURS, drawing, to_svg

    with drawing():
        figure = Figure(figsize=(9.4, 2.3 * len(bundles)), layout="constrained")
        every = figure.subplots(len(bundles), squeeze=False, sharex=True)[:, 0]
        for axes, (name, about) in zip(every, bundles.items(), strict=True):
            shown = rates(about)
            places = range(len(shown))
            colours = [COLOURS[what.startswith("store to")] for what in shown]
            axes.barh(places, list(shown.values()), color=colours, height=0.7)
            axes.set_yticks(places, list(shown))
            axes.invert_yaxis()
            axes.set(
                xscale="log",
                title=f"{name}, {about['side']} px (looks at {about['looks_at']}), images a second",
            )
            axes.margins(x=0.15)
            axes.grid(axis="x")
            axes.set_axisbelow(True)
            for place, rate in zip(places, shown.values(), strict=True):
                axes.text(rate, place, f" {rate:,.0f}", va="center", fontsize=7)
        svg = to_svg(figure, "roofline", "Images a second of each stage of each bundle")
    style = 'style="--ink:#222;--muted:#666;--rule:#ddd;background:#fff"'
    return svg.replace('class="chart"', f'class="chart" {style}', 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    print(f"What has to be installed, from the root of this repository: {INSTALL}", flush=True)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundles", default="", help="parts of their names, by default all")
    parser.add_argument("--partitions", type=int, help=f"{ON_GPU[0]} on a GPU, {ON_CPU[0]} without one")
    parser.add_argument(
        "--objects", type=int, help=f"of a partition: {ON_GPU[1]} on a GPU, {ON_CPU[1]} without"
    )
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--json", type=Path, default=Path("bench/gpu.json"))
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args(arguments)
    paths = chosen(options.bundles)
    if not paths:
        names = ", ".join(path.stem for path in chosen(""))
        parser.error(f"no bundle has a part of {options.bundles!r} in its name: {names}")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, paths, Path(folder))
    print(table(result))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    picture = options.svg or options.json.with_suffix(".svg")
    picture.write_text(chart(result["bundles"]))
    print(f"\n{result['seconds']:.0f} s; figures in {options.json}, drawn in {picture}")


if __name__ == "__main__":
    main()

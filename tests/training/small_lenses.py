"""A lens finder that is trained in seconds."""

SETTINGS = (
    "mix.lenses=24",
    "pace.epochs=1",
    "pace.batch=16",
    "network.widths=[2,2]",
    "network.blocks=[1,1]",
    "size=32",
    "members=1",
)

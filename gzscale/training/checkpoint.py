"""The state of a fit in one safetensors file, from which it goes on as if it had never stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gzscale.errors import DamageError
from gzscale.training.processes import is_first, share_bytes

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    optimizers: list[torch.optim.Optimizer],
    generator: torch.Generator,
    about: dict[str, Any],
) -> None:
    """Write weights, averages, the optimisers' memory and the state of the draws; whole, or not at all.

    Parameters
    ----------
    path
        The file.
    modules, optimizers, generator
        What is kept; also the state of torch's own draws.
    about
        JSON that `load_checkpoint` compares and gives back.
    """
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{number}/{index}/{key}"] = torch.as_tensor(value)
    tensors["draws/own"], tensors["draws/torch"] = generator.get_state(), torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["draws/cuda"] = torch.cuda.get_rng_state()
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    # Nobody else writes this one, not even a process that should have ended.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(safetensors.torch.save(plain, metadata={"about": json.dumps(about, sort_keys=True)}))
    os.replace(part, path)


def load_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    optimizers: list[torch.optim.Optimizer],
    generator: torch.Generator,
    fingerprint: str,
) -> dict[str, Any] | None:
    """Restore what `save_checkpoint` wrote; of several processes, each restores what the first one has.

    Parameters
    ----------
    path
        The file.
    modules, optimizers, generator
        What is restored, in place.
    fingerprint
        Of the fit: what ``about["fingerprint"]`` must be.

    Returns
    -------
    dict or None
        ``about``; None where there is no file, or it is of another fit.

    Raises
    ------
    DamageError
        If the file is damaged.
    """
    data = share_bytes(path.read_bytes() if is_first() and path.exists() else None)
    if data is None:
        return None
    try:
        length = int.from_bytes(data[:8], "little")
        about: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["about"])
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamageError(f"{path}: a damaged checkpoint ({error}); remove it to begin anew") from error
    if about.get("fingerprint") != fingerprint:
        return None
    for name, module in modules.items():
        module.load_state_dict(_below(tensors, f"{name}/"))
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, f"optimizer/{number}/").items():
            index, _, name = key.partition("/")
            state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    generator.set_state(tensors["draws/own"])
    torch.set_rng_state(tensors["draws/torch"])
    if "draws/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["draws/cuda"])
    return about


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

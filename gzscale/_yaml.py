"""YAML as a configuration needs it: bounded, no aliases, no key twice, nothing guessed."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["parse_yaml"]


class _Loader(yaml.SafeLoader):
    """The safe loader, less what makes a short text long or a plain word something else."""

    # Scalars are told apart further down, not as YAML 1.1 does.
    yaml_implicit_resolvers = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            # Ten lines of aliases of aliases stand for a thousand million values.
            raise yaml.MarkedYAMLError(
                problem=f"alias *{event.anchor}: aliases are not read; write the value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key that is not a name", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
            key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


# YAML 1.2's core schema, so that 1e-3 is a number, and neither is 12:30 the number 750,
# 2026-11-23 a date, 0123 the number 83 or "no" a boolean.
for _kind, _pattern, _first in (
    ("null", r"(?:~|null|)$", ["~", "n", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,17})$", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first)


def parse_yaml(text: str) -> Any:
    """Read one YAML value.

    Parameters
    ----------
    text
        YAML without aliases. Numbers, booleans and null are those of YAML 1.2's core
        schema in decimal; dates and times stay the strings that they are.

    Returns
    -------
    object
        Dicts with string keys, lists, strings, numbers, booleans and None.

    Raises
    ------
    ValueError
        If the text is not such YAML; the message says where.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error

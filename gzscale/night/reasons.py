"""What each quarantine reason means, in words: the docstrings that stand below the codes."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap

from gzscale.errors import Reason

__all__ = ["reason_meanings"]


@functools.cache
def reason_meanings() -> dict[str, str]:
    """Return the meaning of each reason code.

    Python drops strings that stand below an enumeration's members, so they are read from the
    source: the meaning is said once, where the code is.

    Returns
    -------
    dict[str, str]
        Code -> one sentence; a code without one is left out, and so are all where the
        sources are not installed.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(Reason)))
    except OSError:
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    meanings = {}
    for member, below in itertools.pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(below, ast.Expr):
            name = ast.unparse(member.targets[0])
            meanings[Reason[name].value] = " ".join(str(ast.literal_eval(below.value)).split())
    return meanings

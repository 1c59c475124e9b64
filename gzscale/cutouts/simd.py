"""The innermost sum of the resampling as four-lane vector instructions.

Numba leaves sums of a few constant terms scalar (LLVM's SLP pass is off by default), which costs
three times as many loads. LLVM's own vector types are lowered on every platform, to scalars if need be.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

__all__ = ["blended_sum_3", "blended_sum_4"]

_FLAGS = ("contract", "reassoc", "nsz")
_VECTOR = ir.VectorType(ir.FloatType(), 4)
_SIGNATURE = (
    types.Array(types.float32, 1, "C"),
    types.intp,
    types.intp,
    types.Array(types.float32, 1, "C"),
    types.intp,
    types.intp,
    types.float32,
    types.float32,
    types.float32,
    types.float32,
)


def _blended_sum_of_rows(rows: int) -> Any:
    """Make the sum for a number of rows of four source pixels."""

    @intrinsic
    def blended_sum(typingctx, buffer, at, stride, weights, lower, upper, c0, c1, c2, c3):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Sum ``buffer`` times weights that are blended from four tables.

        ``lower`` and ``upper`` are where in ``weights`` the first table of two neighbouring pairs begins;
        the second of each follows it. All hold ``rows`` x 4 weights.
        """

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            data, table = (
                context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 3)
            )

            def load(pointer: Any, index: Any, offset: int) -> Any:
                place = builder.add(index, ir.Constant(index.type, offset))
                address = builder.bitcast(builder.gep(pointer, [place]), _VECTOR.as_pointer())
                return builder.load(address, align=4)

            def spread(scalar: Any) -> Any:
                empty = ir.Constant(_VECTOR, ir.Undefined)
                first = builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0))
                return builder.shuffle_vector(first, empty, ir.Constant(_mask(4), [0] * 4))

            lower, upper = arguments[4], arguments[5]
            shares = [spread(argument) for argument in arguments[6:]]
            at = arguments[1]
            total = None
            for row in range(rows):
                terms = [
                    load(table, lower, 4 * row),
                    load(table, lower, 4 * (rows + row)),
                    load(table, upper, 4 * row),
                    load(table, upper, 4 * (rows + row)),
                ]
                weight = builder.fmul(shares[0], terms[0], flags=_FLAGS)
                for share, term in zip(shares[1:], terms[1:], strict=True):
                    weight = builder.fadd(weight, builder.fmul(share, term, flags=_FLAGS), flags=_FLAGS)
                product = builder.fmul(load(data, at, 0), weight, flags=_FLAGS)
                total = product if total is None else builder.fadd(total, product, flags=_FLAGS)
                at = builder.add(at, arguments[2])
            for lanes in ([2, 3, 2, 3], [1, 0, 1, 0]):
                turned = builder.shuffle_vector(total, total, ir.Constant(_mask(4), lanes))
                total = builder.fadd(total, turned, flags=_FLAGS)
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        return types.float32(*_SIGNATURE), generate

    return blended_sum


def _mask(lanes: int) -> ir.VectorType:
    return ir.VectorType(ir.IntType(32), lanes)


blended_sum_3 = _blended_sum_of_rows(3)
blended_sum_4 = _blended_sum_of_rows(4)

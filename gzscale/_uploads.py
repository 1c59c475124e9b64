"""One object of S3 from a stream of bytes: at once where it is small, in parts where it is large."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gzscale.errors import MissingError, StorageError

__all__ = ["PART_BYTES", "parts_of", "put_parts"]

#: What is longer goes to S3 in parts of this length [bytes]; S3 wants 5 MiB or more.
PART_BYTES = 32 * 2**20


def parts_of(pieces: Iterable[bytes | memoryview]) -> Iterator[bytearray]:
    """Yield the bytes of all pieces in parts of `PART_BYTES`, the last one shorter; nothing of no bytes."""
    part, filled = bytearray(PART_BYTES), 0
    for piece in pieces:
        rest = memoryview(piece)
        while len(rest):
            taken = rest[: PART_BYTES - filled]
            part[filled : filled + len(taken)] = taken
            filled, rest = filled + len(taken), rest[len(taken) :]
            if filled == PART_BYTES:
                yield part
                part, filled = bytearray(PART_BYTES), 0
    if filled:
        del part[filled:]
        yield part


def put_parts(
    call: Callable[..., Any],
    name: str,
    parts: Iterator[bytes | bytearray],
    was_written_by: Callable[[str], bool],
) -> None:
    """Put what has one part at once, and more than one in parts; two are in memory at most.

    Parameters
    ----------
    call
        Makes a request: the client's method and its arguments.
    name
        Key in the bucket.
    parts
        The content, each part but the last `PART_BYTES` long.
    was_written_by
        Whether what is stored there carries a writer's name.

    Raises
    ------
    StorageError
        If a request fails for good; nothing is stored then, and no part is left behind.
    """
    begun: list[bytes | bytearray] = [next(parts, b"")]
    begun.extend(itertools.islice(parts, 1))
    if len(begun) < 2:
        call("put_object", Key=name, Body=begun[0])
        return
    writer = uuid.uuid4().hex
    upload = call("create_multipart_upload", Key=name, Metadata={"writer": writer})["UploadId"]
    try:
        answers: list[dict[str, Any]] = []

        def send(body: bytes | bytearray) -> None:
            number = len(answers) + 1
            answer = call("upload_part", Key=name, UploadId=upload, PartNumber=number, Body=body)
            answers.append({"PartNumber": number, "ETag": answer["ETag"]})

        while begun:  # No name holds a part that is sent: each is as large as a partition's tables.
            send(begun.pop(0))
        for body in parts:
            send(body)
            del body
        try:
            call("complete_multipart_upload", Key=name, UploadId=upload, MultipartUpload={"Parts": answers})
        except MissingError:
            # No such upload any more: an attempt whose answer was lost has completed it.
            if not was_written_by(writer):
                raise
    except BaseException:
        # What could not be finished is not left behind to be paid for.
        with contextlib.suppress(StorageError):
            call("abort_multipart_upload", Key=name, UploadId=upload)
        raise

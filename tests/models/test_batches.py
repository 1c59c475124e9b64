"""How large a batch is: found by trying, remembered, and counts divided into few sizes."""

import pytest
import torch

from gzscale.errors import WorkerError
from gzscale.models.batches import Known, Sizes, find_sizes, padded


def device_of(rates, memory=10**9, said=lambda size: b"same", error=None):
    """Stand in for a device: images a second by size, and how many fit."""
    tried = []

    def measure(size):
        tried.append(size)
        if size > memory:
            raise error or torch.OutOfMemoryError("no memory for so many")
        return rates[size], said(size)

    return measure, tried


RISING = {size: 100.0 * min(size, 512) for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)}


def test_doubled_until_the_device_is_no_faster():
    measure, tried = device_of(RISING)
    assert find_sizes(measure, 64, 128, 4096) == Sizes((64, 128, 256, 512))
    assert tried == [64, 128, 256, 512, 1024]


def test_no_further_than_the_most():
    measure, tried = device_of(RISING)
    assert find_sizes(measure, 64, 128, 256) == Sizes((64, 128, 256))
    assert tried == [64, 128, 256]


def test_where_the_search_begins_need_not_be_faster_than_the_least():
    rates = {64: 100.0, 128: 99.0, 256: 100.0}
    assert find_sizes(device_of(rates)[0], 64, 128, 4096) == Sizes((64, 128))


@pytest.mark.parametrize(("memory", "found"), [(600, 512), (300, 256), (128, 128), (100, 64), (64, 64)])
def test_as_much_as_fits(memory, found):
    sizes = find_sizes(device_of(RISING, memory)[0], 64, 128, 4096)
    assert sizes.batch == found
    assert sizes.same[0] == 64


@pytest.mark.parametrize("memory", [300, 100])
def test_want_of_memory_may_be_the_driver_s_word_and_other_errors_are_told(memory):
    told = torch.AcceleratorError("CUDA error: out of memory")
    assert find_sizes(device_of(RISING, memory, error=told)[0], 64, 128, 4096).batch in (256, 64)
    broken = torch.AcceleratorError("CUDA error: an illegal memory access")
    for least in (64, 512):
        with pytest.raises(torch.AcceleratorError, match="illegal"):
            find_sizes(device_of(RISING, memory, error=broken)[0], least, 2 * least, 4096)


def test_what_others_are_compared_with_is_never_a_smaller_one():
    measure, tried = device_of(RISING, 63)
    with pytest.raises(WorkerError, match=r"hold a batch of 64 images, .*nvidia-smi"):
        find_sizes(measure, 64, 128, 4096)
    assert tried == [64]


@pytest.mark.parametrize(
    ("other", "sizes"),
    [
        ((), (64, 128, 256, 512)),
        ((64,), (64,)),
        ((128,), (64,)),
        ((256,), (64, 128)),
        ((1024,), (64, 128, 256, 512)),
    ],
)
def test_a_size_whose_kernels_round_otherwise_is_not_taken(other, sizes):
    measure, tried = device_of(RISING, said=lambda size: b"other" if size in other else b"same")
    assert find_sizes(measure, 64, 128, 4096) == Sizes(sizes)
    assert len(tried) == len(set(tried))


def test_two_workers_say_the_same_whatever_memory_each_has():
    def said(size):
        return b"one" if size in (64, 256) else b"other"

    found = [find_sizes(device_of(RISING, memory, said)[0], 64, 128, 4096) for memory in (10**9, 200, 100)]
    assert {said(size) for sizes in found for size in sizes.same} == {b"one"}


@pytest.mark.parametrize(
    ("count", "same", "sizes"),
    [
        (2048, (256, 512, 1024, 2048), [2048]),
        (1500, (256, 512, 1024, 2048), [1024, 256, 256]),
        # One between them was never compared.
        (1500, (256, 2048), [256, 256, 256, 256, 256, 256]),
        (1500, (256, 512), [512, 512, 256, 256]),
        (3, (256, 512), [256]),
        (70, (32,), [32, 32, 32]),
        (5, (2,), [2, 2, 2]),
        (0, (32,), []),
    ],
)
def test_a_count_is_divided_into_few_sizes(count, same, sizes):
    divided = list(Sizes(same).parts(count))
    assert [size for _, size in divided] == sizes
    assert [start for start, _ in divided] == [sum(sizes[:number]) for number in range(len(sizes))]


@pytest.mark.parametrize(
    ("count", "within"),
    [
        (8192, (256, 512, 2048)),
        (2048, (256, 512)),
        (1537, (256, 512)),
        (1536, (256,)),
        (900, (256,)),
        (3, (256,)),
    ],
)
def test_a_partition_is_several_blocks(count, within):
    sizes = Sizes((256, 512, 2048))
    assert sizes.within(count) == Sizes(within)
    assert Sizes((32,)).within(count) == Sizes((32,))


def test_below_a_size_are_those_that_say_the_same():
    sizes = Sizes((64, 256, 512))
    assert sizes.below(512) == Sizes((64, 256))
    assert sizes.below(256) == Sizes((64,))
    assert sizes.below(64) is None


def test_sizes_are_known_by_bundle_and_device():
    known, device = Known(), torch.device("cuda:0")
    known.put("abc", device, Sizes((64, 256)))
    known.put("", device, Sizes((64, 128)))
    assert known.get("abc", device) == Sizes((64, 256))
    assert known.get("abc", torch.device("cuda:1")) is None
    assert known.get("", device) is None


def test_a_batch_is_padded_with_its_last_row():
    assert padded(torch.tensor([[1], [2]]), 4).tolist() == [[1], [2], [2], [2]]

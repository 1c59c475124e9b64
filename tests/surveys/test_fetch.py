"""Frames from servers that fail, and the cache that they are kept in."""

import bz2
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from faults import DENIED, SLOW_DOWN, Fault, files
from small_frames import frame, path, rows, sky

from gzscale.errors import ImageError, Reason, StorageError
from gzscale.night.images import WatchedSurvey
from gzscale.surveys import fetch
from gzscale.surveys.ahead import open_ahead
from gzscale.surveys.base import Image
from gzscale.surveys.fetch import Fetcher
from gzscale.surveys.sdss import SdssSurvey

BANDS = "gri"
TREE = {path(100, band): bz2.compress(frame(band=band)) for band in BANDS}


@pytest.fixture(autouse=True)
def brisk(quick_retries, monkeypatch):
    monkeypatch.setattr(fetch, "PIECE", 20_000)


@pytest.fixture
def server(serve):
    return serve(files(dict(TREE)))


def survey_of(server, tmp_path, **options):
    return SdssSurvey(server.url, BANDS, {"cache": str(tmp_path / "cache"), **options})


def ref_of(survey, band="r"):
    cover = survey.find(rows(*sky(128, 150)), np.array([1e-4]))
    return next(ref for ref in cover.images if ref.band == band)


def whole(stored, band="r"):
    return stored.size == len(TREE[path(100, band)])


def cached(tmp_path):
    return sorted(p for p in (tmp_path / "cache" / "files").rglob("*") if p.is_file())


def reason_of(survey, ref):
    with pytest.raises(ImageError) as caught:
        survey.open(ref)
    assert path(100, ref.band) in str(caught.value)
    return caught.value.reason


def test_a_frame_from_a_server_is_the_frame(server, tmp_path):
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)
    server.fail()
    image = survey.open(ref)
    assert whole(image)
    gets = [request for request in server.requests if request[0] == "GET"]
    assert len(gets) == -(-len(TREE[path()]) // fetch.PIECE)
    server.fail()
    np.testing.assert_array_equal(survey_of(server, tmp_path).open(ref).pixels, image.pixels)
    assert {method for method, _ in server.requests} == {"HEAD"}
    assert [p.read_bytes() for p in cached(tmp_path)] == [TREE[path()]]


def test_finding_reads_the_start_of_one_band_only(server, tmp_path, monkeypatch):
    monkeypatch.setattr("gzscale.surveys.fitsfile.FIRST_PIECE", 60_000)
    ref_of(survey_of(server, tmp_path))
    assert {p for m, p in server.requests if m == "GET"} == {f"/{path(100, 'r')}"}
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("status", 500), Fault("status", 503, SLOW_DOWN), Fault("status", 429)],
        [Fault("reset"), Fault("lost"), Fault("reset")],
        [Fault("truncate", method="GET"), Fault("truncate", method="GET")],
        [Fault("status", 502, method="HEAD"), Fault("status", 504, method="GET")],
    ],
)
def test_troubles_that_pass(server, tmp_path, faults):
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)
    server.fail(*faults)
    assert whole(survey.open(ref))
    assert not server.faults


def test_a_server_that_does_not_answer_in_time(server, tmp_path, monkeypatch):
    monkeypatch.setattr("gzscale._remote_storage.READ_TIMEOUT", 0.3)
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)
    server.fail(Fault("stall", seconds=1.0, method="GET"))
    assert whole(survey.open(ref))


def test_a_server_in_trouble_for_good(server, tmp_path):
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)
    server.fail(*[Fault("status", 503, SLOW_DOWN) for _ in range(100)])
    assert reason_of(survey, ref) is Reason.UNREACHABLE_IMAGE
    with pytest.raises(ImageError) as caught:
        survey.state(ref)
    assert caught.value.reason is Reason.UNREACHABLE_IMAGE
    # What could not be asked is not taken for absent.
    cover = survey_of(server, tmp_path).find(rows(*sky(128, 150)), np.array([1e-4]))
    assert not cover.lost
    assert {ref.band for ref in cover.images} == set(BANDS)


def test_a_server_that_refuses(server, tmp_path):
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)
    server.fail(*[Fault("status", 403, DENIED) for _ in range(100)])
    assert reason_of(survey, ref) is Reason.UNREACHABLE_IMAGE
    assert len(server.requests) < 4


def test_a_frame_that_is_not_there(server, tmp_path):
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey, "g")
    survey_of(server, tmp_path)
    gone = type(ref)(ref.name, ref.band, path(105, "g"), "301-1234-3-105")
    assert survey.state(gone) == "absent"
    with pytest.raises(ImageError) as caught:
        survey.open(gone)
    assert caught.value.reason is Reason.MISSING_IMAGE
    assert "survey.root" in str(caught.value)


def test_one_frame_is_an_error_page_and_the_others_are_done(serve, tmp_path):
    server = serve(files(TREE | {path(100, "r"): b"<html><h1>It works!</h1></html>" * 99}))
    survey = survey_of(server, tmp_path)
    cover = survey.find(rows(*sky(128, 150)), np.array([1e-4]))
    opened = dict(open_ahead(survey, cover.images))
    assert [isinstance(opened[ref], Image) for ref in cover.images] == [True, False, True]
    assert opened[cover.images[1]].reason is Reason.NOT_FITS
    assert len(cached(tmp_path)) == 2, "the error page stayed in the cache"


def test_an_empty_file_on_the_server(serve, tmp_path):
    survey = survey_of(serve(files(TREE | {path(): b""})), tmp_path)
    assert reason_of(survey, ref_of(survey)) is Reason.EMPTY_IMAGE


def test_a_server_without_ranges(serve, tmp_path):
    survey = survey_of(serve(files(dict(TREE), ranges=False)), tmp_path)
    assert whole(survey.open(ref_of(survey)))


def test_a_server_that_tells_no_size(serve, tmp_path):
    plain = files(dict(TREE), ranges=False)

    def unsized(method, target, headers, body):
        status, told, content = plain(method, target, headers, body)
        if method == "HEAD" and status == 200:
            told = {"Content-Encoding": "gzip", "Content-Length": "5"}
        return status, told, content

    survey = survey_of(serve(unsized), tmp_path)
    assert whole(survey.open(ref_of(survey)))


def test_an_interrupted_transfer_goes_on_where_it_stopped(server, tmp_path):
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)
    pieces = -(-len(TREE[path()]) // fetch.PIECE)
    # The third piece fails for good: the process gives up.
    answer, count = server.backend, [0]

    def dying(method, target, headers, body):
        count[0] += method == "GET"
        return (403, {}, b"") if method == "GET" and count[0] > 2 else answer(method, target, headers, body)

    server.backend = dying
    assert reason_of(survey, ref) is Reason.UNREACHABLE_IMAGE
    assert [p.stat().st_size for p in cached(tmp_path)] == [2 * fetch.PIECE]
    # A new process, with the server well again, fetches only the rest.
    server.backend = answer
    server.fail()
    assert whole(survey_of(server, tmp_path).open(ref))
    assert sum(method == "GET" for method, _ in server.requests) == pieces - 2
    assert [p.read_bytes() for p in cached(tmp_path)] == [TREE[path()]]


def test_a_changed_file_is_fetched_anew(serve, tmp_path):
    content = dict(TREE)
    server = serve(files(content))
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)
    first, state = survey.open(ref), survey.state(ref)
    content[path()] = bz2.compress(frame(np.full((300, 256), 2.0, np.float32)))
    assert survey.state(ref) != state
    assert survey.open(ref).sha256 != first.sha256


def test_a_copy_that_was_damaged_in_the_cache_is_fetched_once_more(server, tmp_path):
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)
    survey.open(ref)
    [copy] = cached(tmp_path)
    copy.write_bytes(copy.read_bytes()[:-500])
    assert whole(survey.open(ref))
    assert copy.read_bytes() == TREE[path()]


def test_a_file_that_is_damaged_on_the_server_is_fetched_twice_at_most(serve, tmp_path):
    survey = survey_of(serve(files(TREE | {path(): TREE[path()][:-500]})), tmp_path)
    assert reason_of(survey, ref_of(survey)) is Reason.TRUNCATED_IMAGE


def test_the_cache_keeps_to_its_cap_and_drops_what_was_used_longest_ago(server, tmp_path):
    size = max(map(len, TREE.values()))
    survey = survey_of(server, tmp_path, cache_cap=f"{int(2.5 * size)}B")
    refs = {band: ref_of(survey, band) for band in BANDS}
    for used, band in enumerate("gr"):
        survey.open(refs[band])
        for copy in cached(tmp_path):
            if f"frame-{band}" in copy.name:
                os.utime(copy, (1000 + used, 1000 + used))
    survey.open(refs["g"])  # a hit: now r is the one used longest ago
    survey.open(refs["i"])
    assert [p.name.split("-")[1] for p in cached(tmp_path)] == ["g", "i"]


def test_a_cap_smaller_than_one_frame_still_serves_it(server, tmp_path):
    survey = survey_of(server, tmp_path, cache_cap="1B")
    for band in BANDS:
        assert whole(survey.open(ref_of(survey, band)), band)
    assert len(cached(tmp_path)) == 1


def test_many_threads_fetch_a_file_once_and_few_at_a_time(serve, tmp_path):
    answer = files({f"f{i}": b"BZh" + bytes(50_000) for i in range(6)})
    busy, most, gets, lock = [0], [0], [], threading.Lock()

    def watched(method, target, headers, body):
        with lock:
            busy[0] += method == "GET"
            most[0] = max(most[0], busy[0])
            gets.extend([(target, headers.get("Range"))] if method == "GET" else [])
        time.sleep(0.01)
        with lock:
            busy[0] -= method == "GET"
        return answer(method, target, headers, body)

    server = serve(watched)
    fetchers = [Fetcher(server.url, str(tmp_path / "cache"), 10**9, 2) for _ in range(18)]
    got = []
    threads = [
        threading.Thread(target=lambda i=i: got.append(len(fetchers[i].read((f"f{i % 6}",))[1])))
        for i in range(18)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [50_003] * 18
    assert len(gets) == len(set(gets)) == 6 * 3
    assert most[0] <= 2


def test_a_full_disk_below_the_cache_is_said_to_be_one(server, tmp_path, monkeypatch):
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match=r"No space left.*survey\.options\.cache"):
        survey.open(ref)


def test_forgotten_parts_are_cleared(server, tmp_path):
    survey = survey_of(server, tmp_path)
    ref = ref_of(survey)
    old = Path(tmp_path, "cache", "files", "old@1.part")
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    survey.open(ref)
    assert not old.exists()


@pytest.mark.s3
def test_frames_from_s3(s3, tmp_path):
    import boto3

    client = boto3.client("s3", endpoint_url=s3.endpoint)
    for name, stored in TREE.items():
        client.put_object(Bucket=s3.bucket, Key=f"sas/{name}", Body=stored)
    survey = SdssSurvey(f"{s3.url}/sas", BANDS, {"cache": str(tmp_path / "cache")})
    ref = ref_of(survey)
    assert whole(survey.open(ref))
    assert survey.state(ref) not in {"absent", ""}
    assert survey.scan().exposures.tolist() == [[1234, 3, 100]]
    gone = type(ref)(ref.name, ref.band, path(105, "r"), "301-1234-3-105")
    assert survey.state(gone) == "absent"


def test_a_partition_fetches_each_frame_once(server, tmp_path):
    survey = survey_of(server, tmp_path, concurrency=3)
    cover = survey.find(rows(*sky(128, 150)), np.array([1e-4]))
    server.fail()
    opened = dict(open_ahead(survey, cover.images))
    assert survey.transfers == 3
    assert {ref.band: image.size for ref, image in opened.items()} == {
        band: len(TREE[path(100, band)]) for band in BANDS
    }
    pieces = sum(-(-len(stored) // fetch.PIECE) for stored in TREE.values())
    assert sum(method == "GET" for method, _ in server.requests) == pieces
    assert sum(len(p.read_bytes()) for p in cached(tmp_path)) == sum(map(len, TREE.values()))


def test_a_file_that_is_fetched_ahead_costs_no_further_question(server, tmp_path):
    survey = survey_of(server, tmp_path, concurrency=3)
    cover = survey.find(rows(*sky(128, 150)), np.array([1e-4]))
    server.fail()
    watched = WatchedSurvey(survey, server.url)
    assert len(dict(open_ahead(watched, cover.images))) == len(BANDS)
    # One for its state, and one for its size, as where nothing is fetched ahead.
    assert sum(method == "HEAD" for method, _ in server.requests) == 2 * len(BANDS)


def test_into_a_small_cache_nothing_is_fetched_ahead(server, tmp_path):
    survey = survey_of(server, tmp_path, cache_cap="1GB")
    assert survey.transfers == 0
    assert survey_of(server, tmp_path, cache_cap="1GB", concurrency=4).transfers == 4


def test_a_tree_on_this_host_is_not_fetched(tmp_path):
    assert SdssSurvey(str(tmp_path), BANDS, {}).transfers == 0

"""Packing and unpacking of SDSS identifiers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.surveys.sdss_ids import Release, decode_objid, encode_objid

places = st.tuples(
    st.integers(1, 65535), st.integers(1, 6), st.integers(0, 4095), st.integers(0, 65535), st.integers(0, 1)
)


@given(places, st.integers(300, 2047))
def test_dr8_identifiers_come_back(place, rerun):
    run, camcol, field, number, first = place
    ids = decode_objid(encode_objid(Release.DR8, rerun, run, camcol, field, number, first_field=first))
    assert (ids.run, ids.camcol, ids.field, ids.number, ids.first_field) == place
    assert (ids.release, ids.rerun, ids.sky_version) == (Release.DR8, rerun, 2)
    assert ids.locates


@given(places, st.integers(1, 299), st.integers(0, 1))
def test_dr7_identifiers_come_back(place, rerun, sky_version):
    run, camcol, field, number, first = place
    packed = encode_objid(
        Release.DR7, rerun, run, camcol, field, number, first_field=first, sky_version=sky_version
    )
    ids = decode_objid(packed)
    assert (ids.run, ids.camcol, ids.field, ids.number, ids.first_field) == place
    assert (ids.release, ids.rerun, ids.sky_version) == (Release.DR7, rerun, sky_version)


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_number_decodes_and_only_known_ones_locate(objid):
    ids = decode_objid(objid)
    fields = (ids.sky_version, ids.rerun, ids.run, ids.camcol, ids.first_field, ids.field, ids.number)
    bits = "".join(
        f"{int(value):0{width}b}" for value, width in zip(fields, (4, 11, 16, 3, 1, 12, 16), strict=True)
    )
    assert int(bits, 2) == objid & (2**63 - 1)
    if ids.locates:
        release = Release(int(ids.release))
        again = encode_objid(
            release, ids.rerun, ids.run, ids.camcol, ids.field, ids.number, sky_version=ids.sky_version,
            first_field=ids.first_field,
        )  # fmt: skip
        assert again == objid


def test_published_identifiers():
    assert encode_objid(Release.DR8, 301, 3704, 3, 91, 146) == 1237661382772195474
    ids = decode_objid([587722952230174996, 588017703996096547, 1237661382772195474])
    assert ids.release.tolist() == [Release.DR7, Release.DR7, Release.DR8]
    assert ids.sky_version.tolist() == [1, 1, 2]
    assert ids.rerun.tolist() == [40, 41, 301]
    assert (ids.run[0], ids.camcol[0], ids.field[0]) == (745, 2, 518)
    assert ids.locates.all()


def test_the_same_object_has_different_numbers_in_the_two_releases():
    dr7 = encode_objid(Release.DR7, 40, 745, 2, 518, 20)
    dr8 = encode_objid(Release.DR8, 301, 745, 2, 518, 20)
    assert dr7 != dr8
    assert decode_objid(dr7).field == decode_objid(dr8).field


@pytest.mark.parametrize(
    ("release", "rerun", "sky_version"),
    [(Release.DR8, 40, None), (Release.DR7, 301, None), (Release.DR8, 301, 1), (Release.DR7, 40, 2)],
)
def test_a_mixture_of_releases_is_refused(release, rerun, sky_version):
    with pytest.raises(ValueError, match="match by position"):
        encode_objid(release, rerun, 745, 2, 518, 20, sky_version=sky_version)


def test_a_mixture_within_an_array_is_refused():
    with pytest.raises(ValueError, match="rerun 40 is not DR8"):
        encode_objid(Release.DR8, [301, 40], 745, 2, 518, 20)
    with pytest.raises(ValueError, match="release"):
        encode_objid(Release.UNKNOWN, 301, 745, 2, 518, 20)


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="run 65536"):
        encode_objid(Release.DR8, 301, 65536, 3, 91, 146)
    with pytest.raises(ValueError, match="camcol"):
        encode_objid(Release.DR8, 301, 3704, -1, 91, 146)


def test_small_numbers_and_negative_ones_locate_nothing():
    assert not decode_objid(np.array([-1, 0, 1, 579, 10**6, -(2**62)])).locates.any()

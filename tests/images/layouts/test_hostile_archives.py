"""An archive that tries more than to hold images is refused whole: one line, nothing written."""

import contextlib
import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publisher_layouts import imagenet_tar, jpeg, tar_bytes, tiny_imagenet, write_tar, write_zip

from mae_lib.errors import StoreError, StudyError
from mae_lib.images.entries import list_entries, read_entry
from mae_lib.images.layouts import guard
from mae_lib.images.layouts.gzip_slices import GzipSlices
from mae_lib.images.layouts.tree import members_of
from mae_lib.study.definition import Source

GOOD_NAME = "cat/1.jpg"
GOOD = {"cat/1.jpg": jpeg(1), "cat/2.jpg": jpeg(2)}


def tar_with(
    name="x.jpg", kind=tarfile.REGTYPE, content=b"x", link="", pax=None, good=GOOD
) -> bytes:
    buffer = io.BytesIO(tar_bytes(good))
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(content)
        info.pax_headers = pax or {}
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_header_claiming(size: int, kind: bytes) -> bytes:
    """A good tar, then a header that claims more than there is."""
    info = tarfile.TarInfo("cat/3.jpg")
    info.size, info.type = size, kind
    body = tar_bytes(GOOD).rstrip(b"\0")
    return body + bytes(-len(body) % 512) + info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def zip_with(change=None, name="x.jpg", content=b"x", **fields) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for good, inner in GOOD.items():
            archive.writestr(good, inner)
        info = zipfile.ZipInfo("x.jpg")
        info.compress_type = zipfile.ZIP_DEFLATED
        for field, value in fields.items():
            setattr(info, field, value)
        # zipfile cleans names while it writes; the raw one is put in afterwards.
        safe = "y" * len(name.encode())
        info.filename = safe
        archive.writestr(info, content)
    raw = buffer.getvalue().replace(safe.encode(), name.encode())
    return change(raw) if change else raw


def overlapping() -> bytes:
    """A zip whose second member lies inside the bytes of the first: how small bombs are made."""
    alone = io.BytesIO()
    with zipfile.ZipFile(alone, "w") as archive:
        archive.writestr("cat/2.jpg", GOOD["cat/2.jpg"])
    inner = alone.getvalue()[: alone.getvalue().index(b"PK\x01\x02")]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat/1.jpg", inner)
        archive.writestr("cat/2.jpg", GOOD["cat/2.jpg"])
    raw = buffer.getvalue()
    second = raw.rindex(b"PK\x01\x02")
    return raw[: second + 42] + struct.pack("<L", raw.index(inner)) + raw[second + 46 :]


def claiming(size: int):
    def change(raw: bytes) -> bytes:
        third = raw.rindex(b"PK\x01\x02")
        return raw[: third + 24] + struct.pack("<L", size) + raw[third + 28 :]

    return change


def encrypted(raw: bytes) -> bytes:
    third = raw.rindex(b"PK\x01\x02")
    return raw[: third + 8] + struct.pack("<H", 1) + raw[third + 10 :]


def renamed(raw: bytes) -> bytes:
    """The header of the third member names another file than the list at the end."""
    third = raw.rindex(b"PK\x01\x02")
    return raw[: third + 46] + b"zz" + raw[third + 48 :]


TARS = {
    "dots": (lambda: tar_with("../up.jpg"), "leaves the archive's folder"),
    "dots inside": (lambda: tar_with("cat/../../up.jpg"), "leaves the archive's folder"),
    "absolute": (lambda: tar_with("/etc/x.jpg"), "leaves the archive's folder"),
    "drive": (lambda: tar_with("C:/x.jpg"), "leaves the archive's folder"),
    "backslash": (lambda: tar_with("..\\up.jpg"), "leaves the archive's folder"),
    "line break": (lambda: tar_with("a\nb.jpg"), "is no name for a file"),
    "dots folder": (lambda: tar_with("../up", tarfile.DIRTYPE, b""), "leaves the archive's"),
    "link": (lambda: tar_with("l.jpg", tarfile.SYMTYPE, b"", "/etc/passwd"), "no plain file"),
    "hard link": (lambda: tar_with("h.jpg", tarfile.LNKTYPE, b"", GOOD_NAME), "no plain file"),
    "device": (lambda: tar_with("d.jpg", tarfile.CHRTYPE, b""), "no plain file"),
    "pipe": (lambda: tar_with("p.jpg", tarfile.FIFOTYPE, b""), "no plain file"),
    "twice": (lambda: tar_with(GOOD_NAME), "is there twice"),
    "sparse": (
        lambda: tar_with("s.jpg", pax={"GNU.sparse.size": str(2**50), "GNU.sparse.map": "0,1"}),
        "is no plain file",
    ),
    "claims a terabyte": (lambda: tar_header_claiming(2**40, tarfile.REGTYPE), "cut or damaged"),
    "long name of a terabyte": (
        lambda: tar_header_claiming(2**40, tarfile.GNUTYPE_LONGNAME),
        "a header': claims",
    ),
    "cut": (lambda: tar_bytes(GOOD)[:700], "cut or damaged"),
    "cut between members": (lambda: tar_bytes({"1.jpg": b"x" * 512})[:1024], "cut or damaged"),
    "damaged header": (
        lambda: (raw := bytearray(tar_with()), raw.__setitem__(slice(512, 600), b"\x01" * 88))[0],
        "cut or damaged",
    ),
    "no tar": (lambda: b"<html>quota exceeded</html>" * 99, "cut or damaged"),
}
ZIPS = {
    "dots": (lambda: zip_with(name="../up.jpg"), "leaves the archive's folder"),
    "absolute": (lambda: zip_with(name="/etc/x.jpg"), "leaves the archive's folder"),
    "drive": (lambda: zip_with(name="C:/x.jpg"), "leaves the archive's folder"),
    "backslash": (lambda: zip_with(name="..\\up.jpg"), "leaves the archive's folder"),
    "hidden end of name": (lambda: zip_with(name="a.jpg\0../up"), "is no name for a file"),
    "link": (
        lambda: zip_with(external_attr=(stat.S_IFLNK | 0o777) << 16, content=b"/etc/passwd"),
        "is no plain file",
    ),
    "device": (lambda: zip_with(external_attr=(stat.S_IFCHR | 0o666) << 16), "is no plain file"),
    "twice": (lambda: zip_with(name=GOOD_NAME), "is there twice"),
    "bomb": (lambda: zip_with(content=bytes(2**21)), "a bomb"),
    "overlapping": (overlapping, "shares its bytes with another member, a bomb"),
    "claims a gigabyte": (lambda: zip_with(claiming(2**30)), "a bomb"),
    "encrypted": (lambda: zip_with(encrypted), "is encrypted"),
    "another method": (lambda: zip_with(compress_type=zipfile.ZIP_BZIP2), "packed by method 12"),
    "two names": (lambda: zip_with(renamed), "has another name in its header"),
    "cut": (lambda: zip_with()[:-30], "cut or damaged"),
    "cut at the front": (lambda: zip_with()[40:], "cut or damaged|no header"),
    "no zip": (lambda: b"<html>quota exceeded</html>" * 99, "cut or damaged"),
}


def refused(tmp_path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / "inner" / name
    path.parent.mkdir()
    path.write_bytes(content)
    before = sorted(p for p in tmp_path.rglob("*"))
    wanted = Source("x", 1.0, layout="folder", path=f"inner/{name}")
    with pytest.raises(StoreError, match=says) as caught:
        list_entries(wanted, tmp_path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.exit_code == 4
    assert sorted(p for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("trick", TARS)
def test_a_tar_is_refused_whole(tmp_path, trick):
    build, says = TARS[trick]
    refused(tmp_path, "a.tar", bytes(build()), says)


@pytest.mark.parametrize("trick", ["dots", "absolute", "link", "twice", "sparse", "cut"])
def test_a_gzipped_tar_is_refused_whole(tmp_path, trick):
    build, says = TARS[trick]
    refused(tmp_path, "a.tar.gz", gzip.compress(bytes(build())), says)


@pytest.mark.parametrize("trick", ZIPS)
def test_a_zip_is_refused_whole(tmp_path, trick):
    build, says = ZIPS[trick]
    refused(tmp_path, "a.zip", build(), says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "../up.JPEG"}, "leaves the archive's folder"),
        ({"kind": tarfile.SYMTYPE, "content": b"", "link": "/etc/passwd"}, "is no plain file"),
        ({"name": "1.JPEG"}, "is there twice"),
        ({"name": "deep/2.JPEG"}, "<wnid>.tar with images was expected"),
    ],
)
def test_a_tar_inside_imagenets_tar_is_refused_as_well(tmp_path, change, says):
    inner = tar_with(**change, good={"1.JPEG": jpeg(1)})
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", {"n01440764.tar": inner})
    with pytest.raises(StoreError, match=says):
        list_entries(Source("imagenet", 1.0), tmp_path)


def test_a_class_tar_that_is_cut_is_called_by_its_name(tmp_path):
    inner = tar_bytes({"1.JPEG": jpeg(1), "2.JPEG": jpeg(2)})
    for length in (600, 1100, 3000):
        content = {"n01440764.tar": inner[:length], "n01443537.tar": inner}
        write_tar(tmp_path / "ILSVRC2012_img_train.tar", content)
        with pytest.raises(StoreError, match=r"n01440764.tar: cut or damaged after"):
            list_entries(Source("imagenet", 1.0), tmp_path)


ARCHIVES = {
    "a.tar": lambda: tar_bytes(GOOD),
    "a.tgz": lambda: gzip.compress(tar_bytes(GOOD)),
    "a.zip": lambda: zip_with(),
    "ILSVRC2012_img_train.tar": lambda: tar_bytes({"n01440764.tar": tar_bytes(GOOD)}),
}


@pytest.mark.parametrize("name", ARCHIVES)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=8)), min_size=1),
    cut=st.integers(0, 10**6),
)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_bytes_are_changed_an_archive_is_read_or_refused(tmp_path, name, changes, cut):
    raw = bytearray(ARCHIVES[name]())
    for place, content in changes:
        at = place % len(raw)
        raw[at : at + len(content)] = content
    path = tmp_path / name
    path.write_bytes(raw[: len(raw) - cut % len(raw) if cut % 3 == 0 else len(raw)])
    layout = "folder" if name.startswith("a") else "imagenet-tar"
    # Any other exception, a traceback for the user, fails the test.
    with contextlib.suppress(StoreError, StudyError):
        for entry in list_entries(Source("x", 1.0, layout=layout, path=name), tmp_path):
            read_entry(tmp_path, entry)


def test_a_gzip_that_unpacks_without_end_is_refused_before_it_fills_anything(tmp_path):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(2**20)
    content = tar_bytes({"cat/1.jpg": b"x"})[:1024]
    packed = packer.compress(content) + b"".join(packer.compress(block) for _ in range(40))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(packed + packer.flush())
    # 40 MB of zeros: about a thousand to one.
    assert path.stat().st_size < 2**17
    with pytest.raises(StoreError, match="unpacks without end, a bomb"):
        GzipSlices(path).read(39 * 2**20, 10)


def test_a_gzip_that_is_cut_damaged_or_followed_by_more_is_one_line(tmp_path):
    whole = gzip.compress(tar_bytes({f"cat/{i}.jpg": jpeg(i) for i in range(20)}))
    for content, says in (
        (whole[:3000], "cut after"),
        (whole[:3000] + b"\xff" * 64 + whole[3064:], "damaged|cut"),
        (whole + whole, "holds more behind its gzip end"),
    ):
        (tmp_path / "a.tgz").write_bytes(content)
        with pytest.raises(StoreError, match=says):
            list(members_of(tmp_path / "a.tgz"))
            GzipSlices(tmp_path / "a.tgz").read(0, 2**30)


def test_too_many_members_and_too_large_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "MAX_MEMBERS", 1)
    for name, write in (("a.tar", write_tar), ("a.zip", write_zip)):
        with pytest.raises(StoreError, match="one of more than 1 members"):
            list(members_of(write(tmp_path / name, GOOD)))
    monkeypatch.undo()
    monkeypatch.setattr(guard, "MAX_MEMBER_BYTES", 100)
    write_tar(tmp_path / "b.tar", GOOD)
    wanted = Source("x", 1.0, layout="folder", path="b.tar")
    with pytest.raises(StoreError, match="more than 100"):
        read_entry(tmp_path, list_entries(wanted, tmp_path)[0])


def test_a_flipped_bit_in_a_zip_is_found_when_its_image_is_read(tmp_path):
    path = write_zip(tmp_path / "tiny-imagenet-200.zip", tiny_imagenet())
    entries = list_entries(Source("tiny-imagenet", 1.0), tmp_path)
    for entry in entries[:2]:
        whole = bytearray(path.read_bytes())
        whole[entry.offset + 200] ^= 4
        path.write_bytes(whole)
        with pytest.raises(StoreError, match=r"damaged|cut"):
            read_entry(tmp_path, entry)


def test_a_good_archive_of_imagenet_is_not_refused(tmp_path):
    imagenet_tar(tmp_path / "ILSVRC2012_img_train.tar")
    assert len(list_entries(Source("imagenet", 1.0), tmp_path)) == 9

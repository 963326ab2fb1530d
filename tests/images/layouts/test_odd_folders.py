"""A folder that holds more than images ends in one line, and never in a loop or in silence."""

import os
import tarfile

import pytest
from publisher_layouts import jpeg, write_folder

from mae_lib.errors import StoreError
from mae_lib.images.entries import list_entries
from mae_lib.images.inventory import inventory
from mae_lib.images.layouts.tree import members_of
from mae_lib.study.definition import Source

PETS = {"cat/1.jpg": jpeg(1), "dog/1.jpg": jpeg(2)}


def link_above(folder):
    (folder / "dog" / "loop").symlink_to("..")


def link_across(folder):
    (folder / "cat" / "dogs").symlink_to(folder / "dog")
    (folder / "dog" / "cats").symlink_to(folder / "cat")


def pipe(folder):
    os.mkfifo(folder / "dog" / "2.jpg")


def no_utf8(folder):
    with open(os.fsencode(folder) + b"/dog/\xff.jpg", "wb") as file:
        file.write(jpeg(3))


def line_break(folder):
    (folder / "dog" / "a\nb.jpg").write_bytes(jpeg(3))


ODD = {
    "link above": (link_above, "dog/loop: links back to a folder above it; remove the link"),
    "links across": (link_across, "links back to a folder above it; remove the link"),
    "pipe": (pipe, "dog/2.jpg: is no plain file; remove it"),
    "no UTF-8": (no_utf8, "is no name in UTF-8 on one line; rename it"),
    "line break": (line_break, "is no name in UTF-8 on one line; rename it"),
}


@pytest.mark.parametrize("trick", ODD)
def test_a_folder_that_cannot_be_listed_is_one_line_and_hides_no_other_set(tmp_path, trick):
    spoil, says = ODD[trick]
    write_folder(tmp_path / "pets", PETS)
    write_folder(tmp_path / "well", PETS)
    spoil(tmp_path / "pets")
    with pytest.raises(StoreError, match=says) as caught:
        list_entries(Source("pets", 1.0, layout="folder", path="pets"), tmp_path)
    assert caught.value.exit_code == 2
    str(caught.value).encode()
    found = inventory(tmp_path).set_index("place")
    assert says in found.loc["pets", "problem"]
    assert found.loc["well", "images"] == 2


def test_a_link_to_a_folder_that_lies_elsewhere_is_followed(tmp_path):
    write_folder(tmp_path / "away", {"1.jpg": jpeg(1)})
    write_folder(tmp_path / "pets", PETS)
    (tmp_path / "pets" / "cow").symlink_to(tmp_path / "away")
    names = [member.path for member in members_of(tmp_path / "pets")]
    assert names == ["cat/1.jpg", "cow/1.jpg", "dog/1.jpg"]


def test_a_tar_with_a_name_that_is_no_utf8_is_refused(tmp_path):
    write_folder(tmp_path / "pets", PETS)
    with tarfile.open(tmp_path / "pets.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(tmp_path / "pets" / "cat" / "1.jpg", "cat/\udcff.jpg")
    with pytest.raises(StoreError, match="or no UTF-8; the archive is refused"):
        list(members_of(tmp_path / "pets.tar"))

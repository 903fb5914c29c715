"""Settings that would lose something are refused."""

from __future__ import annotations

import msgspec
import pytest

from carelake.core.settings import Settings


@pytest.mark.parametrize(
    "folders",
    [
        {"cool_folder": "colder", "archive_folder": "colder"},
        {"cool_folder": "colder", "archive_folder": "./colder/"},
        {"archive_folder": "vault-cool"},
        {"cool_folder": "vault"},
    ],
)
def test_each_storage_class_has_a_folder_of_its_own(folders: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError, match="two folders"):
        msgspec.convert({"workspace": "w1", "objects": folders}, Settings)


def test_other_folders_are_taken() -> None:
    told = {"workspace": "w1", "objects": {"cool_folder": "/cool", "archive_folder": "/archive"}}
    assert msgspec.convert(told, Settings).objects.cool_folder == "/cool"

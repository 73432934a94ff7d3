"""Julia's hashes against what real Julias print."""

import uuid

import pytest

from headstart.juliahash import crc32c, extension_uuid, hash_value, package_slug, version_slug

UUID = uuid.UUID("2222cccc-2222-4222-8222-22222222222f").int
TREE = bytes.fromhex("0123456789abcdef0123456789abcdef01234567")


def test_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


def test_slugs() -> None:
    """As ``Base.package_slug`` and ``Base.version_slug`` of 1.5.3 print them."""
    assert package_slug(UUID) == "nP2at"
    assert (version_slug(UUID, TREE, 5), version_slug(UUID, TREE, 4)) == ("1UUNu", "1UUN")


@pytest.mark.parametrize(
    ("text", "plain", "seeded"),
    [
        ("", 0xBD32F78D463D7CFB, 0x248264BA33E8EE9A),
        ("a", 0xFA232F94411B00CD, 0x6F2C5EFA9DD222A8),
        ("exactly16bytes!!", 0x3D867B5A32525385, 0x7401C5B2DD07C360),
        ("0123456789abcdefXYZ", 0x4C9BE615294ED85B, 0x0FDB2C1B7B5EFF97),
        ("ünï", 0x9638EEECEF1B0C03, 0x485596CD46B6C7C8),
        ("a" * 40, 0x7F7E237EE4660807, 0x8DAC2FFE722B2497),
    ],
)
def test_texts(text: str, plain: int, seeded: int) -> None:
    """``hash(text)`` and ``hash(text, UInt(12345678901234567))``, printed by 1.5.3."""
    assert (hash_value(text), hash_value(text, 12345678901234567)) == (plain, seeded)


def test_numbers() -> None:
    """The example in ``hash``'s own documentation (base/hashing.jl, 1.10.6)."""
    assert hash_value(10) == 0x95EA2955ABD45275
    assert hash_value(10, 0x95EA2955ABD45275) == 0xD42BAD54A8575B16
    assert hash_value(10.0) == hash_value(10)
    assert hash_value(True) == hash_value(1)  # a value like any other


def test_what_is_not_known_has_no_number() -> None:
    assert hash_value(["a"]) is None
    assert hash_value({"a": [1]}) is None
    assert hash_value(float("nan")) is None
    assert hash_value(1 << 64) is None


def test_tables_hash_in_any_order() -> None:
    assert hash_value({"a": 1, "b": "x"}) == hash_value({"b": "x", "a": 1}) != hash_value({"a": 1})


def test_extension_uuids_are_of_version_5() -> None:
    found = uuid.UUID(int=extension_uuid(UUID, "FooExt"))
    assert found.version == 5
    assert found.variant == uuid.RFC_4122
    assert extension_uuid(UUID, "BarExt") != found.int

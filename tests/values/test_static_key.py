"""What two static keys agree on is remembered, for so many peers."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.errors import HandshakeFailed
from egtp.values.static_key import REMEMBERED_MAX, StaticKey, agree


def static(number: int) -> StaticKey:
    return StaticKey(X25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")))


def test_both_agree_on_what_x25519_says_and_again_on_the_same() -> None:
    ours, theirs = static(1), static(2)
    agreed = agree(ours.secret, theirs.secret.public_key())
    assert [ours.agree(theirs.public) for _ in range(3)] == [agreed] * 3
    assert theirs.agree(ours.public) == agreed
    assert ours.agree(static(3).public) != agreed


def test_so_many_are_remembered_and_the_one_longest_unused_goes() -> None:
    ours, first = static(1), static(2).public
    agreed = ours.agree(first)
    for number in range(REMEMBERED_MAX + 100):
        ours.agree((number + 2).to_bytes(32, "little"))
        assert ours.agree(first) == agreed
    assert len(ours._agreed) == REMEMBERED_MAX
    assert first in ours._agreed
    assert (2).to_bytes(32, "little") not in ours._agreed


def test_a_point_of_low_order_is_refused_each_time() -> None:
    ours = static(1)
    for _ in range(2):
        with pytest.raises(HandshakeFailed, match="low order"):
            ours.agree(bytes(32))
    assert not ours._agreed

"""What the benchmarks' TLS is made of is taken by each version of Python."""

from __future__ import annotations

import ssl
from pathlib import Path

from benchmarks.certificates import client_context, make_certificates, server_context


def test_certificates_stand_the_strict_check_that_python_makes_from_3_13_on(
    tmp_path: Path,
) -> None:
    make_certificates(tmp_path)
    contexts = client_context(str(tmp_path)), server_context(str(tmp_path))
    for context in contexts:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts[0].wrap_bio(back, there)
    server = contexts[1].wrap_bio(there, back, server_side=True)
    left = [client, server]
    for _ in range(4):
        left = [side for side in left if not has_shaken_hands(side)]
    assert left == []
    assert server.getpeercert()


def has_shaken_hands(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True

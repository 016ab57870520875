"""An Oblivious HTTP client of its own: HPKE by pyhpke, framing from RFC 9458 and draft-ietf-ohai-chunked-ohttp.

Arguments: URL of a gateway, its key configuration in hex. Prints the inner status of two requests, one of each form.
"""

import hashlib
import hmac
import sys
import urllib.request

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

URL, CONFIG = sys.argv[1], bytes.fromhex(sys.argv[2])
SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
assert CONFIG[1:3] == bytes.fromhex("0020")
HEADER = CONFIG[:1] + bytes.fromhex("002000010002")
KEY = SUITE.kem.deserialize_public_key(CONFIG[3:35])


def varint(value):
    return bytes([value]) if value < 64 else (value | 0x4000).to_bytes(2, "big")


def text(value):
    return varint(len(value)) + value


def bhttp(path):
    """Known length: control data, no fields, content, no trailer."""
    return b"\0" + text(b"POST") + text(b"https") + text(b"") + text(path) + b"\0" + text(b"content") + b"\0"


def expand(prk, info, length):
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()[:length]


def ask(path, chunked):
    kind = "chunked-" if chunked else ""
    label = b"message/bhttp chunked " if chunked else b"message/bhttp "
    enc, context = SUITE.create_sender_context(KEY, info=label + b"request\0" + HEADER)
    message, body = bhttp(path), HEADER + enc
    if chunked:
        for piece in (message[:5], message[5:]):
            sealed = context.seal(piece, b"")
            body += varint(len(sealed)) + sealed
        body += b"\0" + context.seal(b"", b"final")
    else:
        body += context.seal(message, b"")
    request = urllib.request.Request(URL, body, {"Content-Type": f"message/ohttp-{kind}req"})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["Content-Type"] == f"message/ohttp-{kind}res"
        answer = answer.read()

    nonce, rest = answer[:32], answer[32:]
    prk = hmac.new(enc + nonce, context.export(label + b"response", 32), hashlib.sha256).digest()
    aead, base = AESGCM(expand(prk, b"key", 32)), int.from_bytes(expand(prk, b"nonce", 12), "big")
    if not chunked:
        return aead.decrypt(base.to_bytes(12, "big"), rest, b"")
    plain, counter = b"", 0
    while True:
        size = 1 << (rest[0] >> 6)
        length, rest = int.from_bytes(rest[:size], "big") & ((1 << (8 * size - 2)) - 1), rest[size:]
        sealed, rest = (rest[:length], rest[length:]) if length else (rest, b"")
        plain += aead.decrypt((base ^ counter).to_bytes(12, "big"), sealed, b"" if length else b"final")
        counter += 1
        if not length:
            return plain


def status(message):
    """Of indeterminate length, and the status has two bytes."""
    assert message[0] == 3, message
    return int.from_bytes(message[1:3], "big") & 0x3FFF


print(status(ask(b"/nowhere", False)), status(ask(b"/v1/session", True)))

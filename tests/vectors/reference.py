#!/usr/bin/env python3
"""A second implementation of docs/FORMAT.md, written alongside it; prints tests/vectors/v1.json.

    python3 tests/vectors/reference.py > tests/vectors/v1.json

It shares no code with Coffer (needs only the `cryptography` package): the two agree where the page is enough to
work from. The vectors are frozen: a change in them is a change of the format.
"""

import base64
import hashlib
import hmac
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def label(name):
    return b"coffer/1/" + name.encode()


def be(value, size):
    return value.to_bytes(size, "big")


def lp(*parts):
    return b"".join(be(len(part), 4) + part for part in parts)


def hkdf(ikm, salt, name, *context, size=32):
    return HKDF(hashes.SHA256(), size, salt, label(name) + lp(*context)).derive(ikm)


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def base32hex(data):
    return base64.b32hexencode(data).decode().rstrip("=").lower()


class SplitMix64:
    """The generator of Coffer's tests, so that both sides draw the same keys and salts."""

    def __init__(self, seed):
        self.state = seed

    def draw(self, size):
        out = b""
        while len(out) < size:
            mask = 2**64 - 1
            self.state = (self.state + 0x9E3779B97F4A7C15) & mask
            z = self.state
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            out += (z ^ (z >> 31)).to_bytes(8, "little")
        return out[:size]


class Ring:
    SIZES = {"name": 64, "objname": 64}
    LABELS = "content meta audit rescue name objname salt header-mac commit-mac pin cache".split()
    KINDS = {1: "content", 2: "meta", 3: "audit", 4: "rescue"}

    def __init__(self, volume, epoch, vmk):
        self.volume, self.epoch = volume, epoch
        self.keys = {name: hkdf(vmk, volume, name, size=self.SIZES.get(name, 32)) for name in self.LABELS}
        self.commitment = hkdf(vmk, volume, "vmk-commit", be(epoch, 4))

    def siv(self, key, plain, *associated):
        return AESSIV(self.keys[key]).encrypt(plain, list(associated))

    def name(self, ino, name):
        return self.siv("name", name, label("name"), be(ino, 8))

    def xattr(self, ino, name):
        return self.siv("name", name, label("xattr"), be(ino, 8))

    def component(self, parent, component):
        return base32hex(self.siv("objname", component.encode(), label("objname"), parent.encode()))

    def mac(self, name, *parts):
        return mac(self.keys[name], lp(*parts))

    def object(self, kind, name, salt, pieces):
        suite = 1
        context = be(suite, 1), be(self.epoch, 2), be(kind, 1), self.volume, name
        okm = hkdf(self.keys[self.KINDS[kind]], salt, "object", *context, size=64)
        head = b"CFR1" + be(kind, 1) + be(suite, 1) + be(self.epoch, 2) + salt + okm[32:]
        sealed = [
            AESGCM(okm[:32]).encrypt(bytes(3) + be(last, 1) + be(number, 8), plain, b"")
            for number, last, plain in pieces
        ]
        return head, sealed

    def hedged_salt(self, random, process, count, kind, name):
        """With process id and time 0, as in Coffer's tests."""
        data = lp(random, process, be(0, 4), be(0, 8), be(count, 8), be(kind, 1), name)
        return mac(self.keys["salt"], data)[:24]


CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def recovery_text(code):
    checksum = int.from_bytes(mac(label("recovery-checksum"), code)[:3], "big") >> 4
    bits = int.from_bytes(code, "big") << 20 | checksum
    text = "".join(CROCKFORD[bits >> 5 * at & 31] for at in reversed(range(36)))
    return "-".join(text[at : at + 4] for at in range(0, 36, 4))


FACTORS = {"passphrase": 1, "key-file": 2, "recovery-code": 3}
ROLES = {"data": 1, "admin": 2}


def slot(ring, vmk, seed, public, ident, text, role, factors, salt, n, created):
    stretched = any(kind == "passphrase" for kind, _ in factors)
    n, r, p = (n, 8, 1) if stretched else (0, 0, 0)
    ikm = b""
    for position, (kind, secret) in enumerate(factors):
        if kind == "passphrase":
            digest = hashlib.scrypt(
                secret, salt=salt + be(position, 1), n=n, r=r, p=p, dklen=32, maxmem=2**31 - 1
            )
        else:
            digest = mac(label(kind), secret)
        ikm += be(FACTORS[kind], 1) + digest
    context = lp(
        ring.volume, be(ring.epoch, 4), be(ident, 4), be(ROLES[role], 1), salt, be(n, 8), be(r, 4), be(p, 4), public
    )
    key = hkdf(ikm, salt, "slot", context)
    wrap = AESSIV(hkdf(key, salt, "slot-wrap", size=64))
    out = {"id": ident, "label": text, "role": role, "factors": [kind for kind, _ in factors]}
    if stretched:
        out["kdf"] = {"algorithm": "scrypt", "n": n, "r": r, "p": p}
    out["salt"] = salt.hex()
    out["commitment"] = hkdf(key, salt, "slot-commit").hex()
    out["wrapped_vmk"] = wrap.encrypt(vmk, [label("slot-wrap"), b"vmk", context]).hex()
    if role == "admin":
        out["wrapped_admin_key"] = wrap.encrypt(seed, [label("slot-wrap"), b"admin-key", context]).hex()
    out["created_unix_secs"] = created
    return out


def header(ring, seed, public, revision, created, compression, slots, rotated=None):
    body = {
        "format": 1,
        "features": ["key-epochs"] if rotated else [],
        "volume": base32hex(ring.volume),
        "epoch": ring.epoch,
        "revision": revision,
        "created_unix_secs": created,
        "compression": compression,
        "block_bytes": 65536,
        "admin_public_key": public.hex(),
        "vmk_commitment": ring.commitment.hex(),
        **(rotated or {}),
        "slots": slots,
    }
    body = json.dumps(body, indent=2, ensure_ascii=False).encode()
    front = b"COFFERH1" + be(len(body), 4) + body
    front += ring.mac("header-mac", front)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return front + key.sign(label("header-signature") + lp(front))


def public_half(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def earlier_epoch(old, old_seed, old_vmk, new, new_vmk, new_public, revision):
    """What the header of an epoch says of the first, which it takes the place of."""
    wrap = hkdf(new_vmk, new.volume, "earlier-vmk", size=64)
    ad = [label("earlier-vmk"), be(old.epoch, 4), be(new.epoch, 4)]
    told = lp(new.volume, public_half(old_seed), new_public, be(new.epoch, 4), be(revision, 8), new.commitment)
    return {
        "admin_public_key": public_half(old_seed).hex(),
        "vmk_commitment": old.commitment.hex(),
        "wrapped_vmk": AESSIV(wrap).encrypt(old_vmk, ad).hex(),
        "next_revision": revision,
        "succession": Ed25519PrivateKey.from_private_bytes(old_seed).sign(label("succession") + told).hex(),
    }


def volume_vector():
    """The header that `create` and then `add_slot` make from seed 1, and the two of a rotation in which slot 0 stays."""
    random = SplitMix64(1)
    volume, vmk, seed, code = random.draw(16), random.draw(32), random.draw(32), random.draw(20)
    public = public_half(seed)
    ring = Ring(volume, 1, vmk)
    passphrase, key_file, created, n = "correct horse é".encode(), bytes(range(256)), 1767225600, 2**15
    make = lambda *args: slot(ring, vmk, seed, public, *args, random.draw(32), n, created)
    slots = [
        make(0, "first", "admin", [("passphrase", passphrase)]),
        make(1, "recovery", "admin", [("recovery-code", code)]),
    ]
    first = header(ring, seed, public, 1, created, "zstd", slots)
    slots = slots + [make(2, "für zwei", "data", [("passphrase", passphrase), ("key-file", key_file)])]
    second = header(ring, seed, public, 2, created, "zstd", slots)
    new_vmk, new_seed = random.draw(32), random.draw(32)
    new_public, new_ring = public_half(new_seed), Ring(volume, 2, new_vmk)
    kept = (0, "first", "admin", [("passphrase", passphrase)])
    slots = [slot(new_ring, new_vmk, new_seed, new_public, *kept, random.draw(32), n, created)]
    earlier = [earlier_epoch(ring, seed, vmk, new_ring, new_vmk, new_public, 3)]
    begun, ended = (
        header(new_ring, new_seed, new_public, revision, created, "zstd", slots, {"floor": floor, "earlier": earlier})
        for revision, floor in [(3, 1), (4, 2)]
    )
    return {
        "seed": 1,
        "passphrase": passphrase.hex(),
        "key_file": key_file.hex(),
        "recovery_code": recovery_text(code),
        "created_unix_secs": created,
        "log_n": 15,
        "header_1": first.hex(),
        "header_2": second.hex(),
        "header_3": begun.hex(),
        "header_4": ended.hex(),
        "header_mac": ring.mac("header-mac", b"same keys").hex(),
    }


def vectors():
    vmk, volume = bytes(range(32)), bytes(range(0xA0, 0xB0))
    ring = Ring(volume, 1, vmk)
    objects = []
    for kind, name in [(1, b"d/00/segment"), (2, b"m/component"), (3, b"a/audit"), (4, b"r/rescue")]:
        random, process = SplitMix64(kind).draw(32), bytes([7]) * 16
        salt = ring.hedged_salt(random, process, 0, kind, name)
        pieces = [(0, 0, b"first piece"), (16384, 0, bytes(1000)), (2**40 + 1, 1, b"")]
        head, sealed = ring.object(kind, name, salt, pieces)
        objects.append(
            {
                "kind": kind,
                "name": name.decode(),
                "entropy_seed": kind,
                "process": process.hex(),
                "head": head.hex(),
                "pieces": [
                    {"number": number, "last": bool(last), "plain": plain.hex(), "sealed": bytes_.hex()}
                    for (number, last, plain), bytes_ in zip(pieces, sealed)
                ],
            }
        )
    names = [(1, b"a"), (1, b"Makefile"), (2, b"Makefile"), (2**63, bytes(range(1, 47))), (7, b"\xff" * 255)]
    return {
        "vmk": vmk.hex(),
        "volume": volume.hex(),
        "epoch": 1,
        "working_keys": {name: key.hex() for name, key in ring.keys.items()},
        "vmk_commitment": ring.commitment.hex(),
        "names": [{"dir": ino, "name": name.hex(), "sealed": ring.name(ino, name).hex()} for ino, name in names],
        "xattrs": [{"ino": 7, "name": b"user.tag".hex(), "sealed": ring.xattr(7, b"user.tag").hex()}],
        "components": [
            {"parent": parent, "component": component, "sealed": ring.component(parent, component)}
            for parent, component in [("", "wal"), ("wal", "00000000000000000001.sst"), ("wal", "ü")]
        ],
        "macs": [
            {"label": name, "parts": [b"one".hex(), "", b"three".hex()], "mac": ring.mac(name, b"one", b"", b"three").hex()}
            for name in ["header-mac", "commit-mac", "pin"]
        ],
        "objects": objects,
        "unlocked": volume_vector(),
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=2))

"""Keys, headers and sealed objects of a Coffer volume, from docs/FORMAT.md alone: what coffer-read.py stands on."""

import base64
import hashlib
import hmac
import json
import os
import re
from collections import namedtuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

try:
    from compression import zstd
except ImportError:
    zstd = None

BLOCK = 65_536


class Refused(Exception):
    """What was read is not what a writer of this format has written with this key."""


class RotatedAway(Refused):
    """What was read is sealed with a key of before a rotation: what is in use is not."""


def need(condition, why):
    if not condition:
        raise Refused(why)


# Conventions, labels, derivations ----------------------------------------------------------------------------------


def be(value, size):
    return value.to_bytes(size, "big", signed=value < 0)


def label(name):
    return b"coffer/1/" + name.encode()


def lp(*parts):
    return b"".join(be(len(part), 4) + part for part in parts)


def derive(ikm, salt, name, *parts, size=32):
    return HKDF(hashes.SHA256(), size, salt, label(name) + lp(*parts)).derive(ikm)


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def base32hex(data):
    return base64.b32hexencode(data).decode().rstrip("=").lower()


def un_base32hex(text, what):
    need(re.fullmatch("[0-9a-v]*", text), f"{what}: not base32hex")
    try:
        data = base64.b32hexdecode(text.upper() + "=" * (-len(text) % 8))
    except ValueError as error:
        raise Refused(f"{what}: {error}") from None
    need(base32hex(data) == text, f"{what}: bits are left over")
    return data


def unhex(text, size, what):
    need(isinstance(text, str) and re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text), f"{what}: not {size} bytes in hex")
    return bytes.fromhex(text)


def unseal(key, sealed, ad, what):
    try:
        return AESSIV(key).decrypt(sealed, ad)
    except InvalidTag:
        raise Refused(f"{what}: does not open") from None


def show(name):
    return "".join(chr(b) if 0x20 <= b < 0x7F and b != 0x5C else f"\\x{b:02x}" for b in name)


def signed(public_key, signature, data, what):
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except InvalidSignature:
        raise Refused(f"{what}: the signature is wrong") from None


# Volume header and slots -------------------------------------------------------------------------------------------

HEADER_FIELDS = {
    "format", "features", "volume", "epoch", "revision", "created_unix_secs", "compression", "block_bytes",
    "admin_public_key", "vmk_commitment", "slots",
}  # fmt: skip
EPOCH_FIELDS = {"admin_public_key", "vmk_commitment", "wrapped_vmk", "next_revision", "succession"}
EPOCHS_MAX = 48
SLOT_FIELDS = {"id", "label", "role", "factors", "salt", "commitment", "wrapped_vmk", "created_unix_secs"}
CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f]")
FACTOR_NUMBERS = {"passphrase": 1, "key-file": 2, "recovery-code": 3}


def no_twins(pairs):
    need(len(dict(pairs)) == len(pairs), "header: a field comes twice")
    return dict(pairs)


def check_slot(slot):
    fields = set(SLOT_FIELDS)
    if "passphrase" in slot["factors"]:
        fields.add("kdf")
    if slot["role"] == "admin":
        fields.add("wrapped_admin_key")
    need(set(slot) == fields, "header: a slot has other fields")
    need(slot["role"] in ("data", "admin"), "header: a slot has another role")
    need(1 <= len(slot["label"].encode()) <= 64 and not CONTROL.search(slot["label"]), "header: a slot's label")
    need(1 <= len(slot["factors"]) <= 8 and set(slot["factors"]) <= set(FACTOR_NUMBERS), "header: a slot's factors")
    if kdf := slot.get("kdf"):
        need(set(kdf) == {"algorithm", "n", "r", "p"} and kdf["algorithm"] == "scrypt", "header: another kdf")
        n_is_good = kdf["n"] in [1 << log for log in range(15, 21)]
        need(n_is_good and kdf["r"] == 8 and kdf["p"] in (1, 2, 3, 4), "header: scrypt outside of the limits")


def parse_header(raw, revision):
    need(len(raw) >= 108 and raw[:8] == b"COFFERH1", "header: not one of this format")
    size = int.from_bytes(raw[8:12], "big")
    need(size <= 65_536 and len(raw) == size + 108, "header: another length")
    try:
        body = json.loads(raw[12 : 12 + size], object_pairs_hook=no_twins)
    except ValueError as error:
        raise Refused(f"header: {error}") from None
    need(isinstance(body, dict) and body.get("format") == 1, "header: a later format")
    need(body.get("features") in ([], ["key-epochs"]), "header: a later format")
    rotated = {"floor", "earlier"} if body["features"] else set()
    need(set(body) == HEADER_FIELDS | rotated, "header: other fields")
    need(body["block_bytes"] == BLOCK and body["revision"] == revision, "header: block size or revision")
    need(body["compression"] in ("none", "lz4", "zstd"), "header: another compression")
    slots = body["slots"]
    need(1 <= len(slots) <= 32 and len({slot["id"] for slot in slots}) == len(slots), "header: the slots")
    for slot in slots:
        check_slot(slot)
    admin = unhex(body["admin_public_key"], 32, "header: admin key")
    signed(admin, raw[-64:], label("header-signature") + lp(raw[:-64]), "header")
    if rotated:
        check_epochs(body)
    return body


def check_epochs(body):
    """Each admin key before the newest has named the one that follows."""
    earlier, volume = body["earlier"], un_base32hex(body["volume"], "volume id")
    need(2 <= body["epoch"] <= EPOCHS_MAX and len(earlier) == body["epoch"] - 1, "header: the number of key epochs")
    need(1 <= body["floor"] <= body["epoch"], "header: the oldest key epoch")
    need(all(set(entry) == EPOCH_FIELDS for entry in earlier), "header: an epoch has other fields")
    revisions = [1] + [entry["next_revision"] for entry in earlier] + [body["revision"] + 1]
    need(all(a < b for a, b in zip(revisions, revisions[1:])), "header: the revisions of the key epochs")
    for epoch, (old, new) in enumerate(zip(earlier, earlier[1:] + [body]), 2):
        admin, following = (unhex(entry["admin_public_key"], 32, "header: admin key") for entry in (old, new))
        commitment = unhex(new["vmk_commitment"], 32, "header: commitment")
        told = lp(volume, admin, following, be(epoch, 4), be(old["next_revision"], 8), commitment)
        signature = unhex(old["succession"], 64, "header: succession")
        signed(admin, signature, label("succession") + told, f"header: epoch {epoch}")


def digest(factor, position, slot, given):
    if factor == "key-file":
        return mac(label("key-file"), given[factor])
    kdf, salt = slot["kdf"], bytes.fromhex(slot["salt"]) + be(position, 1)
    return hashlib.scrypt(
        given[factor], salt=salt, n=kdf["n"], r=kdf["r"], p=kdf["p"], maxmem=2**31 - 1, dklen=32
    )


def open_slot(header, slot, given):
    """The volume key, or None if the factors are not this slot's."""
    admin = unhex(header["admin_public_key"], 32, "admin key")
    salt, kdf = unhex(slot["salt"], 32, "salt"), slot.get("kdf") or {"n": 0, "r": 0, "p": 0}
    factors = b"".join(
        be(FACTOR_NUMBERS[factor], 1) + digest(factor, i, slot, given) for i, factor in enumerate(slot["factors"])
    )
    role = {"data": 1, "admin": 2}[slot["role"]]
    context = lp(
        un_base32hex(header["volume"], "volume id"), be(header["epoch"], 4), be(slot["id"], 4), be(role, 1), salt,
        be(kdf["n"], 8), be(kdf["r"], 4), be(kdf["p"], 4), admin,
    )  # fmt: skip
    key = derive(factors, salt, "slot", context)
    if not hmac.compare_digest(derive(key, salt, "slot-commit"), unhex(slot["commitment"], 32, "commitment")):
        return None
    wrap = derive(key, salt, "slot-wrap", size=64)
    vmk = unseal(wrap, unhex(slot["wrapped_vmk"], 48, "slot"), [label("slot-wrap"), b"vmk", context], "slot")
    if slot["role"] == "admin":
        sealed = unhex(slot["wrapped_admin_key"], 48, "slot")
        seed = unseal(wrap, sealed, [label("slot-wrap"), b"admin-key", context], "slot: admin key")
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
        need(public.public_bytes(Encoding.Raw, PublicFormat.Raw) == admin, "slot: another admin key")
    return vmk


def unlock(folder, given):
    numbers = [int(n) for n in os.listdir(f"{folder}/header") if re.fullmatch("[1-9][0-9]*", n)]
    need(numbers, "there is no header")
    with open(f"{folder}/header/{max(numbers)}", "rb") as file:
        raw = file.read()
    header = parse_header(raw, max(numbers))
    slots = [slot for slot in header["slots"] if sorted(slot["factors"]) == sorted(given)]
    vmk = next((vmk for slot in slots[:8] if (vmk := open_slot(header, slot, given))), None)
    need(vmk, "these factors open no slot")
    volume, newest = un_base32hex(header["volume"], "volume id"), header["epoch"]
    need(commits(vmk, volume, newest, header), "header: commits to another volume key")
    vmks, wrap = {newest: vmk}, derive(vmk, volume, "earlier-vmk", size=64)
    for epoch, entry in enumerate(header.get("earlier", []), 1):
        ad = [label("earlier-vmk"), be(epoch, 4), be(newest, 4)]
        vmks[epoch] = unseal(wrap, unhex(entry["wrapped_vmk"], 48, "header: an earlier key"), ad, "header: an earlier key")
        need(commits(vmks[epoch], volume, epoch, entry), "header: commits to another earlier key")
    keys = Keys(vmks, volume, newest, header.get("floor", newest))
    need(hmac.compare_digest(mac(keys.key("header-mac"), lp(raw[:-96])), raw[-96:-64]), "header: the MAC is wrong")
    return header, keys


def commits(vmk, volume, epoch, entry):
    return derive(vmk, volume, "vmk-commit", be(epoch, 4)).hex() == entry["vmk_commitment"]


# Sealed objects ----------------------------------------------------------------------------------------------------

SEGMENT, META = 1, 2
Seal = namedtuple("Seal", "epoch salt commitment")


# Of the first epoch for good.
LIFELONG = ("name", "objname", "commit-mac")


class Keys:
    """The volume keys by epoch. Without a rotation the newest is the first, whatever its number."""

    def __init__(self, vmks, volume, epoch, floor):
        self.vmks, self.volume, self.epoch, self.floor = vmks, volume, epoch, floor

    def key(self, name, size=32, epoch=None):
        epoch = epoch or (min(self.vmks) if name in LIFELONG else self.epoch)
        return derive(self.vmks[epoch], self.volume, name, size=size)

    def object_key(self, seal, kind, name):
        if 0 < seal.epoch < self.floor:
            raise RotatedAway(f"{name}: key epoch {seal.epoch} was rotated away")
        need(seal.epoch in self.vmks, f"{name}: key epoch {seal.epoch} is not the header's")
        working = self.key({SEGMENT: "content", META: "meta"}[kind], epoch=seal.epoch)
        parts = (be(1, 1), be(seal.epoch, 2), be(kind, 1), self.volume, name.encode())
        okm = derive(working, seal.salt, "object", *parts, size=64)
        need(hmac.compare_digest(okm[32:], seal.commitment), f"{name}: the commitment differs")
        return AESGCM(okm[:32])

    def open_name(self, tag, ciphertext, scope, ino):
        return unseal(self.key("name", 64), tag + ciphertext, [label(scope), be(ino, 8)], f"a name in {ino}")


def head(raw, kind, name):
    need(len(raw) >= 64 and raw[:4] == b"CFR1" and raw[4] == kind and raw[5] == 1, f"{name}: another head")
    return Seal(int.from_bytes(raw[6:8], "big"), raw[8:32], raw[32:64])


def piece(key, sealed, number, last, name):
    try:
        return key.decrypt(bytes(3) + be(last, 1) + be(number, 8), sealed, None)
    except (InvalidTag, ValueError):
        raise Refused(f"{name}: piece {number} does not open") from None


class Bucket:
    def __init__(self, folder, keys):
        self.folder, self.keys, self.open_segments = folder, keys, {}

    def read(self, name):
        try:
            with open(f"{self.folder}/{name}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise Refused(f"{name}: not in the bucket") from None

    def list(self, below):
        for folder, _, files in sorted(os.walk(f"{self.folder}/{below}")):
            for file in sorted(files):
                yield os.path.relpath(f"{folder}/{file}", self.folder)

    def engine_path(self, name):
        """The plaintext path of a metadata object: each component is sealed with those above it."""
        key, parent = self.keys.key("objname", 64), b""
        for part in name.split("/")[1:]:
            opened = unseal(key, un_base32hex(part, name), [label("objname"), parent], name)
            parent += b"/" * bool(parent) + opened
        return parent.decode()

    def meta_object(self, name):
        """The plaintext path and the plaintext."""
        path, raw = self.engine_path(name), self.read(name)
        key = self.keys.object_key(head(raw, META, name), META, path)
        pieces = [raw[at : at + 16_400] for at in range(64, len(raw), 16_400)]
        need(pieces, f"{name}: no piece")
        last = len(pieces) - 1
        plain = [piece(key, sealed, i, i == last, name) for i, sealed in enumerate(pieces)]
        need(last == 0 or plain[-1], f"{name}: an empty last piece")
        return path, b"".join(plain)

    def segment(self, id, record=None):
        """The bytes of a segment and its key; its head is compared with its record."""
        if id not in self.open_segments:
            name = base32hex(id)
            name = f"d/{name[:2]}/{name}"
            raw = self.read(name)
            seal = head(raw, SEGMENT, name)
            if record:
                need(record.seal == seal and record.len == len(raw), f"{name}: is not what its record says")
            self.open_segments = {id: (name, raw, self.keys.object_key(seal, SEGMENT, name))}
        return self.open_segments[id]

    def block(self, id, pos, plain, stored, codec, record=None):
        name, raw, key = self.segment(id, record)
        need(64 <= pos and pos + stored + 16 <= len(raw), f"{name}: a block outside")
        data = unpack(piece(key, raw[pos : pos + stored + 16], pos, 0, name), codec, plain, name)
        need(len(data) == plain, f"{name}: a block of another length")
        return data

    def footer(self, id, record=None):
        """The blocks that a segment says it holds: (ino, index, pos, plain, stored, codec)."""
        name, raw, key = self.segment(id, record)
        size = len(raw)
        magnitude = size.bit_length() - 1
        loose = magnitude - magnitude.bit_length()
        need(size <= 8 << 20 and size % (1 << loose) == 0, f"{name}: a length that is not padded")
        start = size - 4 - int.from_bytes(raw[-4:], "big")
        need(64 <= start <= size - 4, f"{name}: the footer's length")
        plain = piece(key, raw[start:-4], start, 1, name)
        need(plain[0] == 1, f"{name}: another footer")
        count = int.from_bytes(plain[1:5], "big")
        need(count <= 65_536 and not any(plain[5 + 21 * count :]), f"{name}: padding that is not zeros")
        blocks, pos = [], 64
        for at in range(5, 5 + 21 * count, 21):
            ino, index, full, stored, codec = (
                int.from_bytes(plain[at + a : at + b], "big") for a, b in ((0, 8), (8, 16), (16, 18), (18, 20), (20, 21))
            )
            blocks.append((ino, index, pos, full + 1, stored + 1, codec))
            pos += stored + 1 + 16
        need(pos == start, f"{name}: the blocks do not end at the footer")
        return blocks


def unpack(data, codec, plain, name):
    if codec == 0:
        return data
    if codec == 1:
        return lz4(data, name)
    need(codec == 2, f"{name}: another codec")
    need(zstd, f"{name}: Zstandard, which this Python does not have")
    try:
        return zstd.decompress(data)
    except zstd.ZstdError as error:
        raise Refused(f"{name}: {error}") from None


def lz4(data, name):
    """One LZ4 block: tokens, literals, and copies from what was written."""
    out, at = bytearray(), 0

    def length(nibble):
        nonlocal at
        total = nibble
        while nibble == 15:
            total, at = total + data[at], at + 1
            if data[at - 1] != 255:
                break
        return total

    try:
        while True:
            token, at = data[at], at + 1
            count = length(token >> 4)
            out += data[at : at + count]
            at += count
            if at >= len(data):
                need(at == len(data), f"{name}: LZ4 ends early")
                return bytes(out)
            back, at = int.from_bytes(data[at : at + 2], "little"), at + 2
            count = length(token & 15) + 4
            need(0 < back <= len(out) and len(out) + count <= BLOCK, f"{name}: LZ4 points outside")
            while count > 0:
                chunk = out[len(out) - back :][:count]
                out += chunk
                count -= len(chunk)
    except IndexError:
        raise Refused(f"{name}: LZ4 ends early") from None

#!/usr/bin/env python3
"""A second reader of Coffer's volumes, written from docs/FORMAT.md; it shares no code with Coffer and writes nothing.

    coffer inspect --records URL --passphrase-file F > records
    coffer-read.py BUCKETDIR --passphrase-file F --records records ls|cat PATH|check|object OBJECT

`ls` prints each path as a line of JSON, with its attributes and a SHA-256 of its contents; bytes of names that are not
printable ASCII, and backslashes, are shown as \\xNN. `check` opens every object and block, decodes every record, follows the
chain of commits and reads every file. `object` writes the plaintext of a metadata object. BUCKETDIR is a copy of the bucket.

Nothing sealed is told before its tag, commitment, MAC or signature was verified. Left out: SlateDB's own files, of which only
the sealing is opened; signatures of accepted rollbacks (`A`); counts and limits that need not hold to decrypt, but for those of
scrypt, key epochs and blocks; the padded lengths of segments; Zstandard; recovery codes.
"""

import argparse
import base64
import hashlib
import hmac
import io
import json
import os
import re
import stat
import struct
import sys
from collections import defaultdict, namedtuple
from pathlib import Path
from types import SimpleNamespace

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

BLOCK, PAGE_BLOCKS, PIECE, TAG, HEAD = 65_536, 1024, 16_384, 16, 64
KINDS = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK]
ROOT, REGULAR, DIRECTORY, SYMLINK = 1, 0, 1, 2
un_be = int.from_bytes


class Refused(Exception):
    """What was read is not what a writer of this format has written with this key."""


class RotatedAway(Refused):
    """What was read is sealed with a key of before a rotation: what is in use is not."""


def need(condition, why):
    if not condition:
        raise Refused(why)


def be(value, size):
    return value.to_bytes(size, "big", signed=value < 0)


def label(name):
    return b"coffer/1/" + name.encode()


def lp(*parts):
    return b"".join(be(len(part), 4) + part for part in parts)


def derive(ikm, salt, name, *parts, size=32):
    return HKDF(hashes.SHA256(), size, salt, label(name) + lp(*parts)).derive(ikm)


def base32hex(data):
    return base64.b32hexencode(data).decode().rstrip("=").lower()


def un_base32hex(text):
    data = base64.b32hexdecode(text.upper() + "=" * (-len(text) % 8))
    need(base32hex(data) == text, f"{text}: not base32hex")
    return data


def verified(why, verify, *args):
    try:
        return verify(*args)
    except (InvalidTag, InvalidSignature):
        raise Refused(why) from None


def unseal(key, sealed, ad, what):
    return verified(f"{what}: does not open", AESSIV(key).decrypt, sealed, ad)


def need_signature(public_key, signature, data, what):
    verified(f"{what}: the signature is wrong", Ed25519PublicKey.from_public_bytes(public_key).verify, signature, data)


def show(name):
    return "".join(chr(b) if 0x20 <= b < 0x7F and b != 0x5C else f"\\x{b:02x}" for b in name)


FACTOR_NUMBERS = {"passphrase": 1, "key-file": 2, "recovery-code": 3}
NO_KDF = SimpleNamespace(n=0, r=0, p=0)
IN_HEX = "admin_public_key vmk_commitment salt commitment wrapped_vmk wrapped_admin_key succession".split()
OF_HEADER = "format features volume epoch revision created_unix_secs compression block_bytes floor earlier slots".split()
OF_PARTS = "next_revision id label role factors kdf algorithm n r p".split()


def header_object(pairs):
    """An object in the header, by the names of its fields."""
    names = {name for name, _ in pairs}
    need(len(names) == len(pairs) and names <= {*IN_HEX, *OF_HEADER, *OF_PARTS}, "header: another field, or one comes twice")
    return SimpleNamespace(**{name: bytes.fromhex(value) if name in IN_HEX else value for name, value in pairs})


def parse_header(raw, revision):
    need(len(raw) >= 108 and raw[:8] == b"COFFERH1", "header: not one of this format")
    need(un_be(raw[8:12]) + 108 == len(raw) <= 65_536 + 108, "header: another length")
    header = json.loads(raw[12:-96], object_pairs_hook=header_object)
    need(header.format == 1 and header.features in ([], ["key-epochs"]), "header: a later format")
    need(header.block_bytes == BLOCK and header.revision == revision, "header: block size or revision")
    header.volume = un_base32hex(header.volume)
    for slot in header.slots:
        kdf = slot.kdf = getattr(slot, "kdf", NO_KDF)
        is_cheap = kdf.n in [1 << log for log in range(15, 21)] and kdf.r == 8 and kdf.p in (1, 2, 3, 4)
        need(is_cheap or kdf is NO_KDF, "header: scrypt outside of the limits")
    need_signature(header.admin_public_key, raw[-64:], label("header-signature") + lp(raw[:-64]), "header")
    if not header.features:
        header.floor, header.earlier = header.epoch, []
    need(len(header.earlier) == header.epoch - 1 and 1 <= header.floor <= header.epoch <= 48, "header: the key epochs")
    # Each admin key before the newest has named the one that follows.
    for epoch, (old, new) in enumerate(zip(header.earlier, [*header.earlier[1:], header]), 2):
        keys, numbers = (old.admin_public_key, new.admin_public_key), (be(epoch, 4), be(old.next_revision, 8))
        told = label("succession") + lp(header.volume, *keys, *numbers, new.vmk_commitment)
        need_signature(old.admin_public_key, old.succession, told, f"header: epoch {epoch}")
    return header


def open_slot(header, slot, given):
    """The volume key, or None if the factors are not this slot's."""
    factors, kdf, is_admin = b"", slot.kdf, slot.role == "admin"
    for position, factor in enumerate(slot.factors):
        factors += be(FACTOR_NUMBERS[factor], 1)
        if factor == "key-file":
            factors += hmac.digest(label("key-file"), given[factor], "sha256")
        else:
            salt = slot.salt + be(position, 1)
            factors += hashlib.scrypt(given[factor], salt=salt, n=kdf.n, r=kdf.r, p=kdf.p, maxmem=2**31 - 1, dklen=32)
    whose = header.volume, be(header.epoch, 4), be(slot.id, 4), be(1 + is_admin, 1), slot.salt
    context = lp(*whose, be(kdf.n, 8), be(kdf.r, 4), be(kdf.p, 4), header.admin_public_key)
    key = derive(factors, slot.salt, "slot", context)
    if not hmac.compare_digest(derive(key, slot.salt, "slot-commit"), slot.commitment):
        return None
    wrap = derive(key, slot.salt, "slot-wrap", size=64)
    if is_admin:
        seed = unseal(wrap, slot.wrapped_admin_key, [label("slot-wrap"), b"admin-key", context], "slot: admin key")
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        need(public == header.admin_public_key, "slot: another admin key")
    return unseal(wrap, slot.wrapped_vmk, [label("slot-wrap"), b"vmk", context], "slot")


def open_piece(key, sealed, number, last, name):
    return verified(f"{name}: piece {number} does not open", key.decrypt, bytes(3) + be(last, 1) + be(number, 8), sealed, None)


def lz4(data, name):
    """One LZ4 block: tokens, literals, and copies from what was written."""
    out, source = bytearray(), io.BytesIO(data)

    def length(part, most=15):
        return part + (length(source.read(1)[0], 255) if part == most else 0)

    while True:
        token = source.read(1)[0]
        out += source.read(length(token >> 4))
        if source.tell() == len(data):
            return bytes(out)
        back, count = int.from_bytes(source.read(2), "little"), length(token & 15) + 4
        need(0 < back <= len(out) and len(out) + count <= BLOCK, f"{name}: LZ4 points outside")
        out += (out[-back:] * (count // back + 1))[:count]


class Bucket:
    """A copy of a bucket, with the volume keys by epoch."""

    def __init__(self, folder, given):
        self.folder, self.open_segments = folder, {}
        revision = max(int(name) for name in os.listdir(folder / "header") if re.fullmatch("[1-9][0-9]*", name))
        raw = (folder / f"header/{revision}").read_bytes()
        self.header = header = parse_header(raw, revision)
        slots = [slot for slot in header.slots if sorted(slot.factors) == sorted(given)]
        vmk = next((vmk for slot in slots[:8] if (vmk := open_slot(header, slot, given))), None)
        need(vmk, "these factors open no slot")
        self.vmks, wrap = {header.epoch: vmk}, derive(vmk, header.volume, "earlier-vmk", size=64)
        for epoch, entry in [(header.epoch, header), *enumerate(header.earlier, 1)]:
            if epoch < header.epoch:
                ad = [label("earlier-vmk"), be(epoch, 4), be(header.epoch, 4)]
                self.vmks[epoch] = unseal(wrap, entry.wrapped_vmk, ad, "header: an earlier key")
            commitment = derive(self.vmks[epoch], header.volume, "vmk-commit", be(epoch, 4))
            need(hmac.compare_digest(commitment, entry.vmk_commitment), f"header: another key of epoch {epoch}")
        expected = hmac.digest(self.key("header-mac", header.epoch), lp(raw[:-96]), "sha256")
        need(hmac.compare_digest(expected, raw[-96:-64]), "header: the MAC is wrong")

    def key(self, name, epoch=1, size=32):
        return derive(self.vmks[epoch], self.header.volume, name, size=size)

    def open_head(self, raw, kind, name, working):
        """The key of a sealed object of this name."""
        need(len(raw) >= HEAD and raw[:6] == b"CFR1" + be(kind, 1) + be(1, 1), f"{name}: another head")
        epoch, salt, commitment = un_be(raw[6:8]), raw[8:32], raw[32:64]
        if 0 < epoch < self.header.floor:
            raise RotatedAway(f"{name}: key epoch {epoch} was rotated away")
        need(epoch in self.vmks, f"{name}: key epoch {epoch} is not the header's")
        parts = be(1, 1), be(epoch, 2), be(kind, 1), self.header.volume, name.encode()
        okm = derive(self.key(working, epoch), salt, "object", *parts, size=64)
        need(hmac.compare_digest(okm[32:], commitment), f"{name}: the commitment differs")
        return AESGCM(okm[:32])

    def metadata(self, name):
        """The plaintext of a metadata object. Each component of its path is sealed with those above it."""
        path, raw, key = b"", (self.folder / name).read_bytes(), self.key("objname", size=64)
        for part in name.split("/")[1:]:
            path += b"/" * bool(path) + unseal(key, un_base32hex(part), [label("objname"), path], name)
        key = self.open_head(raw, 2, path.decode(), "meta")
        pieces = [raw[at : at + PIECE + TAG] for at in range(HEAD, len(raw), PIECE + TAG)]
        plain = [open_piece(key, sealed, i, i == len(pieces) - 1, name) for i, sealed in enumerate(pieces)]
        need(plain and (len(plain) == 1 or plain[-1]), f"{name}: an empty last piece")
        return b"".join(plain)

    def segment(self, id, record=None):
        """The name, the bytes and the key of a segment; its head is compared with its record."""
        if (id, record) not in self.open_segments:
            name = f"d/{base32hex(id)[:2]}/{base32hex(id)}"
            raw = (self.folder / name).read_bytes()
            if record:
                head = be(record.epoch, 2) + record.salt + record.commitment
                need(head == raw[6:HEAD] and record.len == len(raw), f"{name}: is not what its record says")
            self.open_segments = {(id, record): (name, raw, self.open_head(raw, 1, name, "content"))}
        return self.open_segments[id, record]

    def block(self, id, pos, piece, record=None):
        name, raw, key = self.segment(id, record)
        data = open_piece(key, raw[pos : pos + piece.stored + TAG], pos, 0, name)
        need(piece.codec < 2, f"{name}: Zstandard, which this reader does not unpack")
        data = lz4(data, name) if piece.codec else data
        need(len(data) == piece.plain, f"{name}: a block of another length")
        return data

    def check_segment(self, id):
        """Opens the footer, and every block that it names."""
        name, raw, key = self.segment(id)
        start = len(raw) - 4 - un_be(raw[-4:])
        footer = open_piece(key, raw[start:-4], start, 1, name)
        end, pos = 5 + 21 * un_be(footer[1:5]), HEAD
        need(footer[0] == 1 and not any(footer[end:]), f"{name}: another footer, or padding that is not zeros")
        for _, _, plain, stored, codec in struct.iter_unpack(">QQHHB", footer[5:end]):
            self.block(id, pos, RAW._make((plain + 1, stored + 1, codec)))
            pos += stored + 1 + TAG
        need(pos == start, f"{name}: the blocks do not end at the footer")


# Records: the tables of docs/FORMAT.md. A line is a structure, or the letter of a record, and its fields with their types; of
# these a number is a fixed array of so many bytes, and `more` may be missing at the end.
TABLES = """
    time    secs:i64 nanos:u32
    piece   plain:u32 stored:u32 codec:u32
    run     first:u32 segment:16 pos:u32 full:u32 rest:list/piece
    holder  host:bytes uid:u32 pid:u32 device:16 session:16 since:time
    maker   device:16 session:16 commits:u32 counter:u64
    A       ordinal:u64 commit:u64 hash:32 revision:u64 abandoned_commit:u64 abandoned_revision:u64 time:time signature:64
    B       contents:rest
    C       hash:32 device:16 session:16 counter:u64 time:time
    D       name:bytes ino:u64 kind:u32
    E       runs:list/run inline:list/u32
    G       died:u64 born:more/u64
    H       before:32 makers:list/maker times:list/time
    I       kind:u32 perm:u16 uid:u32 gid:u32 nlink:u32 rdev:u32 size:u64 allocated:u64 atime:time mtime:time ctime:time \
            btime:time parent:u64 entries:u64 xattrs:u32 body:body
    L       found:time
    M       counter:u64 commit:u64
    O
    R
    S       len:u32 live:u64 born:u64 epoch:u16 salt:24 commitment:32
    V       features:u64 next_ino:u64 files:u64 bytes:u64 quota_bytes:u64 commit:u64 head:32 holder:option/holder
    X       name:bytes value:bytes
"""
BODIES = ["0", "bytes", "0", "run", "0"]
KEY_BYTES = dict(A=1, B=17, C=9, D=25, E=17, G=17, H=9, I=9, L=17, M=17, O=9, R=33, S=17, V=1, X=25)
STRUCTURES = {}
for structure, *columns in map(str.split, TABLES.strip().splitlines()):
    fields = [column.split(":") for column in columns]
    STRUCTURES[structure] = namedtuple(structure, [name for name, _ in fields]), [form for _, form in fields]
RAW = STRUCTURES["piece"][0](BLOCK, BLOCK, 0)
SHOWN = ("perm", "uid", "gid", "nlink", "rdev", "size", "allocated", "atime", "mtime", "ctime", "btime")


class Body(io.BytesIO):
    """bincode 2's standard configuration, as docs/FORMAT.md tells it."""

    def take(self, count):
        taken = self.read(count)
        need(len(taken) == count, "ends early")
        return taken

    def uint(self, size):
        mark = self.take(1)[0]
        wide = {0xFB: 2, 0xFC: 4, 0xFD: 8}.get(mark, 0)
        need(mark <= 250 or 0 < wide <= size, "an integer that is too wide")
        return int.from_bytes(self.take(wide), "little") if wide else mark

    def value(self, form):
        if form in STRUCTURES:
            make, forms = STRUCTURES[form]
            return checked(form, make(*map(self.value, forms)))
        match form.split("/"):
            case ["u16" | "u32" | "u64"]: return self.uint(int(form[1:]) // 8)
            case ["i64"]: return -(z + 1) // 2 if (z := self.uint(8)) % 2 else z // 2
            case ["bytes"]: return self.take(self.uint(8))
            case ["rest"]: return self.read()
            case ["body"]: return (number := self.uint(4)), self.value(BODIES[number])
            case ["list", each]: return [self.value(each) for _ in range(self.uint(8))]
            case ["option", some]: return self.value(some) if [False, True][self.take(1)[0]] else None
            case ["more", some]: return self.value(some) if self.tell() < len(self.getbuffer()) else None
            case [size]: return self.take(int(size))  # fmt: skip


def checked(form, made):
    """What must be true of a structure beside the types of its fields."""
    if form == "time":
        need(made.nanos < 10**9, "too many nanoseconds")
    if form == "piece":
        is_shorter = 0 < made.stored < made.plain if made.codec else made.stored == made.plain
        need(1 <= made.plain <= BLOCK and made.codec <= 2 and is_shorter, "another piece")
    if form == "run":
        blocks = made.full + len(made.rest)
        need(blocks and made.first + blocks <= PAGE_BLOCKS and made.pos >= HEAD, "a run that is empty or leaves its page")
        need(made.rest[:1] != [RAW], "a run that counts its raw blocks otherwise")
    return made


class Volume:
    """All records by letter, and then by what follows the letter in the key."""

    def __init__(self, bucket, lines):
        self.bucket, self.records = bucket, {letter: {} for letter in KEY_BYTES}
        self.entries, self.xattrs, self.pages = defaultdict(list), defaultdict(dict), defaultdict(list)
        for line in lines:
            key, value = map(bytes.fromhex, line.split(" "))
            letter, body = chr(key[0]), Body(value[1:])
            if key != b"\0":
                need(KEY_BYTES[letter] == len(key) and value[0] == 1, f"record {key.hex()}: another key or version")
                self.records[letter][key[1:]] = body.value(letter)
                need(not body.read(), f"record {key.hex()}: has bytes behind its end")
        self.inodes = {un_be(key): inode for key, inode in self.records["I"].items()}
        need(self.records["V"][b""].features == 0, "the superblock has features of a later version")
        name_key = bucket.key("name", size=64)
        for key, entry in self.records["D"].items():
            name = unseal(name_key, key[8:] + entry.name, [label("name"), key[:8]], f"record {key.hex()}")
            need(1 <= len(name) <= 255 and name not in (b".", b"..") and not set(name) & set(b"/\0"), "a name that is none")
            need(self.inodes[entry.ino].kind == entry.kind, f"{show(name)}: the entry is of another kind")
            self.entries[un_be(key[:8])].append((name, entry.ino))
        for key, xattr in self.records["X"].items():
            name = unseal(name_key, key[8:] + xattr.name, [label("xattr"), key[:8]], f"record {key.hex()}")
            self.xattrs[un_be(key[:8])][show(name)] = xattr.value.hex()
        for key, extents in sorted(self.records["E"].items()):
            self.pages[un_be(key[:8])].append((un_be(key[8:]) * PAGE_BLOCKS, extents.runs, extents.inline))

    def walk(self):
        """Every path and its inode number, parents first."""
        waiting = [(b"", ROOT)]
        while waiting:
            path, ino = waiting.pop()
            yield path or b".", ino
            for name, child in sorted(self.entries[ino], reverse=True):
                inode = self.inodes[child]
                need(inode.kind != DIRECTORY or inode.parent == ino != child, f"inode {child}: has another parent")
                waiting.append((path + b"/" * bool(path) + name, child))

    def blocks(self, ino):
        """Each block that is not a hole, in order: its index, and its record or segment, position and piece."""
        number, what = self.inodes[ino].body
        pages = self.pages[ino] if number == 4 else [(0, [what] * (number == 3), [0] * (number == 2))]
        for first, runs, inline in pages:
            found = [(first + i, be(ino, 8) + be(first + i, 8), 0, None) for i in inline]
            for run in runs:
                pos = run.pos
                for i, piece in enumerate([RAW] * run.full + run.rest, first + run.first):
                    found.append((i, run.segment, pos, piece))
                    pos += piece.stored + TAG
            yield from sorted(found)

    def contents(self, ino):
        """The bytes of a file, in portions."""
        at, size = 0, self.inodes[ino].size
        for block, id, pos, piece in self.blocks(ino):
            start = block * BLOCK
            need(at <= start < size, f"inode {ino}: a block that is twice there or behind its end")
            yield from (bytes(min(BLOCK, start - hole)) for hole in range(at, start, BLOCK))
            record = self.records["S" if piece else "B"].get(id)
            need(record, f"inode {ino}: a block is lost")
            data = self.bucket.block(id, pos, piece, record) if piece else record.contents
            need(0 < len(data) <= BLOCK and not any(data[size - start :]), f"inode {ino}: has contents behind its end")
            yield data[: size - start]
            at = min(start + len(data), size)
        yield from (bytes(min(BLOCK, size - hole)) for hole in range(at, size, BLOCK))

    def describe(self, path, ino):
        inode, xattrs = self.inodes[ino], self.xattrs[ino]
        need(len(xattrs) == inode.xattrs, f"{show(path)}: has another number of attributes")
        shown = {"path": show(path), "ino": ino, "mode": f"{KINDS[inode.kind] | inode.perm:06o}", "xattrs": xattrs}
        shown |= {name: getattr(inode, name) for name in SHOWN}
        if inode.kind == SYMLINK:
            shown["target"] = show(inode.body[1])
        if inode.kind == REGULAR:
            digest = hashlib.sha256()
            for portion in self.contents(ino):
                digest.update(portion)
            shown["sha256"] = digest.hexdigest()
        return shown

    def check_chain(self):
        """Computes the hash of every commit, and compares those that are written down."""
        superblock, made = self.records["V"][b""], {}
        written = [(0, bytes(32)), (superblock.commit, superblock.head)]
        for key, history in self.records["H"].items():
            secs, first = 0, un_be(key)
            written.append((first - 1, history.before))
            makers = [(m.device, m.session, m.counter and m.counter + i) for m in history.makers for i in range(m.commits)]
            need(len(makers) == len(history.times), f"history {first}: another number of commits")
            for number, (maker, time) in enumerate(zip(makers, history.times), first):
                secs += time.secs
                made[number] = (*maker, secs, time.nanos)
        for key, commit in self.records["C"].items():
            written.append((un_be(key), commit.hash))
            made[un_be(key)] = commit.device, commit.session, commit.counter, *commit.time
        need(sorted(made) == list(range(1, superblock.commit + 1)), "the commits are not without gaps")
        key, chain = self.bucket.key("commit-mac"), [bytes(32)]
        for number, (device, session, counter, secs, nanos) in sorted(made.items()):
            parts = be(number, 8), device, session, be(counter, 8), be(secs, 8), be(nanos, 4)
            chain.append(hmac.digest(key, lp(chain[-1], *parts), "sha256"))
        for number, hash in sorted(written):
            need(chain[number] == hash, f"commit {number}: another hash")
        last = {device: (counter, number) for number, (device, _, counter, *_) in sorted(made.items()) if counter}
        need(self.records["M"] == last, "what devices have made last is not what the commits say")


def check(bucket, volume):
    """Opens and reads everything, and tells how much that was."""
    sealed, dead = 0, 0
    for path in sorted(path for path in bucket.folder.glob("[dm]/**/*") if path.is_file()):
        name = str(path.relative_to(bucket.folder))
        try:
            bucket.metadata(name) if name[0] == "m" else bucket.check_segment(un_base32hex(path.name))
            sealed += 1
        except RotatedAway:
            dead += 1
    told = f"header {bucket.header.revision}, {sealed} objects" + (f", {dead} of before a rotation" if dead else "")
    volume.check_chain()
    for id, record in volume.records["S"].items():
        bucket.segment(id, record)
    paths = [volume.describe(path, ino) for path, ino in volume.walk()]
    return f"{told}, {len(volume.records['S'])} segments, {len(paths)} paths\n"


def run(out):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bucket", type=Path, help="a directory with a copy of the bucket")
    parser.add_argument("--passphrase-file", type=Path, help="a file with the passphrase, less a newline at its end")
    parser.add_argument("--key-file", type=Path, help="the key file")
    parser.add_argument("--records", type=Path, default="records", help="what `coffer inspect --records` has written")
    parser.add_argument("command", choices=["ls", "cat", "check", "object"])
    parser.add_argument("path", nargs="?", default="", help="of a file in the volume (cat), of an object (object)")
    args = parser.parse_args()
    secrets = ("passphrase", args.passphrase_file, b"\n"), ("key-file", args.key_file, b"")
    given = {factor: path.read_bytes().removesuffix(end) for factor, path, end in secrets if path}
    bucket = Bucket(args.bucket, given)
    if args.command == "object":
        return out.write(bucket.metadata(args.path))
    volume = Volume(bucket, args.records.read_text("ascii").splitlines())
    if args.command == "check":
        out.write(check(bucket, volume).encode())
    if args.command == "ls":
        for path, ino in volume.walk():
            out.write(json.dumps(volume.describe(path, ino)).encode() + b"\n")
    if args.command == "cat":
        ino = next((ino for path, ino in volume.walk() if path == os.fsencode(args.path)), None)
        need(ino and volume.inodes[ino].kind == REGULAR, f"{args.path}: no such file")
        for portion in volume.contents(ino):
            out.write(portion)


if __name__ == "__main__":
    try:
        run(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except (Refused, OSError) as error:
        sys.exit(f"coffer-read: {error}")
    except (ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
        sys.exit(f"coffer-read: not of this format: {error!r}")

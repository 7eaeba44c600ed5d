#!/usr/bin/env python3
"""A second reader of Coffer's volumes, written from docs/FORMAT.md; it shares no code with Coffer and writes nothing.

    coffer inspect --records URL --passphrase-file F > records
    coffer-read.py BUCKETDIR --passphrase-file F --records records ls|cat PATH|check|object OBJECT

`ls` prints each path as a line of JSON, with its attributes and a SHA-256 of its contents. `check` opens every object,
decodes every record, and compares what they say of each other. `object` writes the plaintext of a metadata object.
Bytes of names that are not printable ASCII, and backslashes, are shown as \\xNN. BUCKETDIR is a copy of the bucket.

Of SlateDB's own files only the sealing is opened; the records in them come from `--records`. Zstandard needs Python 3.14.
"""

import argparse
import hashlib
import json
import os
import re
import stat
import sys
from collections import defaultdict, namedtuple

sys.dont_write_bytecode = True
from coffer_objects import BLOCK, Bucket, Refused, RotatedAway, Seal, base32hex, be, label, lp, mac, need, show, signed  # noqa: E402
from coffer_objects import un_base32hex, unlock  # noqa: E402

PAGE_BLOCKS = 1024
ROOT = 1
LOST_SEGMENT = bytes(16)
KINDS = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK]
DIRECTORY, SYMLINK = 1, 2


# Records -----------------------------------------------------------------------------------------------------------

Inode = namedtuple(
    "Inode", "kind perm uid gid nlink rdev size allocated atime mtime ctime btime parent entries xattrs body"
)
Run = namedtuple("Run", "first segment pos full rest")
Extents = namedtuple("Extents", "runs inline")
Segment = namedtuple("Segment", "len live born seal")
Super = namedtuple("Super", "features next_ino files bytes quota_bytes commit head holder")
Commit = namedtuple("Commit", "hash device session counter time")
History = namedtuple("History", "before devices times")
KEY_BYTES = dict(A=1, B=17, C=9, D=25, E=17, G=17, H=9, I=9, L=17, M=17, O=9, R=33, S=17, V=1, X=25)


class Body:
    """bincode 2's standard configuration, as docs/FORMAT.md tells it."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(self.at + count <= len(self.data), "a record ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def uint(self, size):
        mark = self.take(1)[0]
        wide = {0xFB: 2, 0xFC: 4, 0xFD: 8}.get(mark, 0)
        need(mark <= 250 or 0 < wide <= size, "a record has an integer that is too wide")
        return int.from_bytes(self.take(wide), "little") if wide else mark

    u16 = lambda self: self.uint(2)
    u32 = lambda self: self.uint(4)
    u64 = lambda self: self.uint(8)
    bytes = lambda self: self.take(self.u64())

    def i64(self):
        z = self.u64()
        return -(z + 1) // 2 if z % 2 else z // 2

    def time(self):
        secs, nanos = self.i64(), self.u32()
        need(nanos < 10**9, "a record has a time with too many nanoseconds")
        return secs, nanos

    def list(self, element):
        return [element() for _ in range(self.u64())]

    def run(self):
        first, segment, pos, full = self.u32(), self.take(16), self.u32(), self.u32()
        rest = self.list(lambda: (self.u32(), self.u32(), self.u32()))
        need(full or rest, "an empty run")
        need(first + full + len(rest) <= PAGE_BLOCKS and pos >= 64, "a run that leaves its page")
        for plain, stored, codec in rest:
            good = stored == plain if codec == 0 else 0 < stored < plain
            need(1 <= plain <= BLOCK and codec <= 2 and good, "a run with another piece")
        need(not rest or rest[0] != (BLOCK, BLOCK, 0), "a run that counts its raw blocks otherwise")
        return Run(first, segment, pos, full, rest)

    def inode(self):
        kind, head = self.u32(), (self.u16(), *(self.u32() for _ in range(4)), self.u64(), self.u64())
        need(kind < len(KINDS), "an inode of another kind")
        tail = (*(self.time() for _ in range(4)), self.u64(), self.u64(), self.u32())
        body = self.u32()
        need(body <= 4, "an inode with another body")
        what = self.bytes() if body == 1 else self.run() if body == 3 else None
        return Inode(kind, *head, *tail, (body, what))

    def extents(self):
        extents = Extents(self.list(self.run), self.list(self.u32))
        ends = [(run.first, run.first + run.full + len(run.rest)) for run in extents.runs]
        need(all(a[1] <= b[0] for a, b in zip(ends, ends[1:])), "runs that overlap")
        return extents

    def superblock(self):
        fields = [self.u64() for _ in range(6)] + [self.take(32)]
        need(self.take(1) in (b"\0", b"\1"), "an option that is none")
        held = self.data[self.at - 1]
        holder = (self.bytes().decode(), self.u32(), self.u32(), self.take(16), self.take(16), self.time()) if held else None
        need(fields[0] == 0, "the superblock has features of a later version")
        return Super(*fields, holder)

    def commit(self):
        return Commit(self.take(32), self.take(16), self.take(16), self.u64(), self.time())

    def history(self):
        row = lambda: (self.take(16), self.take(16), self.u32(), self.u64())
        return History(self.take(32), self.list(row), self.list(lambda: (self.i64(), self.u32())))

    def acceptance(self):
        ordinal, commit, hash, *rest = self.u64(), self.u64(), self.take(32), self.u64(), self.u64(), self.u64()
        secs, nanos = self.time()
        parts = (be(ordinal, 8), be(commit, 8), hash, *(be(number, 8) for number in rest))
        return (*parts, be(secs, 8) + be(nanos, 4)), self.take(64)

    def record(self, letter):
        match letter:
            case "A": return self.acceptance()
            case "B": return self.take(len(self.data))
            case "C": return self.commit()
            case "D": return self.bytes(), self.u64(), self.u32()
            case "E": return self.extents()
            case "G": return self.u64(), self.u64() if self.at < len(self.data) else None
            case "H": return self.history()
            case "I": return self.inode()
            case "L": return self.time()
            case "M": return self.u64(), self.u64()
            case "S": return Segment(self.u32(), self.u64(), self.u64(), Seal(self.u16(), self.take(24), self.take(32)))
            case "V": return self.superblock()
            case "X": return self.bytes(), self.bytes()  # fmt: skip


def decode(key, value):
    letter = chr(key[0])
    need(KEY_BYTES.get(letter) == len(key), f"a key that is none: {key.hex()}")
    need(value[0] == 1, f"record {key.hex()}: another version")
    body = Body(value[1:])
    try:
        record = body.record(letter)
        need(body.at == len(body.data), "a record has bytes behind its end")
    except (Refused, UnicodeDecodeError) as error:
        raise Refused(f"record {key.hex()}: {error}") from None
    return record


class Volume:
    """All records by letter, and then by what follows the letter in the key."""

    def __init__(self, bucket, lines):
        self.bucket, self.keys, self.records = bucket, bucket.keys, defaultdict(dict)
        for line in lines:
            key, value = (bytes.fromhex(word) for word in line.rstrip("\n").split(" "))
            if key[0]:
                self.records[chr(key[0])][key[1:]] = decode(key, value)
        self.entries = defaultdict(list)
        for key, (sealed, ino, kind) in sorted(self.records["D"].items()):
            folder = int.from_bytes(key[:8], "big")
            name = self.keys.open_name(key[8:], sealed, "name", folder)
            need(1 <= len(name) <= 255 and name not in (b".", b"..") and not set(name) & set(b"/\0"), "a name that is none")
            need(self.inode(ino).kind == kind, f"{show(name)}: the entry is of another kind")
            self.entries[folder].append((name, ino))
        self.xattrs = defaultdict(dict)
        for key, (sealed, value) in self.records["X"].items():
            ino = int.from_bytes(key[:8], "big")
            self.xattrs[ino][self.keys.open_name(key[8:], sealed, "xattr", ino)] = value

    def inode(self, ino):
        need(be(ino, 8) in self.records["I"], f"there is no inode {ino}")
        return self.records["I"][be(ino, 8)]

    def walk(self):
        """Every path and its inode number, parents first."""
        waiting = [(b"", ROOT)]
        while waiting:
            path, ino = waiting.pop()
            yield path or b".", ino
            for name, child in sorted(self.entries[ino], reverse=True):
                below = path + b"/" * bool(path) + name
                is_here = child != ROOT and self.inode(child).parent == ino
                need(is_here or self.inode(child).kind != DIRECTORY, f"{show(below)}: has another parent")
                waiting.append((below, child))

    def blocks(self, ino):
        """Each block that is not a hole, in order: its index and how to get it."""
        number, what = self.inode(ino).body
        inline = lambda block: (block, ("B", be(ino, 8) + be(block, 8)))
        if number == 2:
            yield inline(0)
        pages = {0: Extents([what], [])} if number == 3 else {}
        if number == 4:
            mine = {key[8:]: page for key, page in self.records["E"].items() if key[:8] == be(ino, 8)}
            pages = {int.from_bytes(page, "big"): extents for page, extents in mine.items()}
        for page, extents in sorted(pages.items()):
            found = [inline(page * PAGE_BLOCKS + block) for block in extents.inline]
            for run in extents.runs:
                pos = run.pos
                for i, (plain, stored, codec) in enumerate([(BLOCK, BLOCK, 0)] * run.full + run.rest):
                    found.append((page * PAGE_BLOCKS + run.first + i, ("S", run.segment, pos, plain, stored, codec)))
                    pos += stored + 16
            need(len({block for block, _ in found}) == len(found), f"inode {ino}: a block is stored twice")
            yield from sorted(found)

    def fetch(self, place):
        if place[0] == "B":
            need(place[1] in self.records["B"], f"record B {place[1].hex()} is missing")
            return self.records["B"][place[1]]
        need(place[1] != LOST_SEGMENT, "a block is lost")
        need(place[1] in self.records["S"], f"segment {base32hex(place[1])} has no record")
        return self.bucket.block(*place[1:], self.records["S"][place[1]])

    def contents(self, ino):
        """The bytes of a file, in portions."""
        at, size = 0, self.inode(ino).size
        for block, place in self.blocks(ino):
            start = block * BLOCK
            need(at <= start < size, f"inode {ino}: a block behind its end")
            yield from (bytes(min(BLOCK, start - hole)) for hole in range(at, start, BLOCK))
            data = self.fetch(place)
            need(not any(data[size - start :]), f"inode {ino}: has contents behind its end")
            data = data[: size - start]
            yield data
            at = start + len(data)
        yield from (bytes(min(BLOCK, size - hole)) for hole in range(at, size, BLOCK))

    def describe(self, path, ino):
        inode = self.inode(ino)
        shown = {name: getattr(inode, name) for name in Inode._fields[1:-4]}
        shown |= {"path": show(path), "ino": ino, "mode": f"{KINDS[inode.kind] | inode.perm:06o}"}
        shown["xattrs"] = {show(name): value.hex() for name, value in sorted(self.xattrs[ino].items())}
        need(len(self.xattrs[ino]) == inode.xattrs, f"{show(path)}: has another number of attributes")
        if inode.kind == SYMLINK:
            shown["target"] = show(inode.body[1])
        if inode.kind == 0:
            digest = hashlib.sha256()
            for portion in self.contents(ino):
                digest.update(portion)
            shown["sha256"] = digest.hexdigest()
        return shown

    def commit_parts(self):
        """Device, session, counter and time of every commit, by number, and the hashes that are written down."""
        parts, hashes = {}, {}
        for key, history in self.records["H"].items():
            number = int.from_bytes(key, "big")
            hashes[number - 1] = history.before
            makers = [(*by, first + i * bool(first)) for *by, count, first in history.devices for i in range(count)]
            need(len(makers) == len(history.times), f"history {number}: another number of commits")
            secs = 0
            for i, (maker, (delta, nanos)) in enumerate(zip(makers, history.times)):
                secs += delta
                parts[number + i] = (*maker, (secs, nanos))
        for key, commit in self.records["C"].items():
            number = int.from_bytes(key, "big")
            parts[number], hashes[number] = commit[1:], commit.hash
        return parts, hashes

    def check_chain(self):
        (superblock,) = self.records["V"].values()
        key, hash, (parts, written) = self.keys.key("commit-mac"), bytes(32), self.commit_parts()
        need(sorted(parts) == list(range(1, superblock.commit + 1)), "the commits are not without gaps")
        for number, (device, session, counter, (secs, nanos)) in sorted(parts.items()):
            need(written.get(number - 1, hash) == hash, f"commit {number - 1}: another hash")
            seconds = secs.to_bytes(8, "big", signed=True)
            hash = mac(key, lp(hash, be(number, 8), device, session, be(counter, 8), seconds, be(nanos, 4)))
        need(superblock.head == hash and written.get(superblock.commit, hash) == hash, "the newest commit: another hash")
        last = {device: (counter, n) for n, (device, _, counter, _) in sorted(parts.items()) if counter}
        need(self.records["M"] == last, "what devices have made last is not what the commits say")
        return superblock

    def check(self):
        """Compares what records and objects say of each other."""
        superblock, names, subdirs, live = self.check_chain(), defaultdict(int), defaultdict(int), defaultdict(int)
        need(superblock.files == len(self.records["I"]), "the superblock counts other inodes")
        for folder, entries in self.entries.items():
            for _, ino in entries:
                names[ino] += 1
                subdirs[folder] += self.inode(ino).kind == DIRECTORY
        stored_bytes, inos = 0, [int.from_bytes(key, "big") for key in self.records["I"]]
        for ino in inos:
            inode, allocated = self.inode(ino), 0
            for _, place in self.blocks(ino):
                allocated += place[3] if place[0] == "S" else len(self.fetch(place))
                if place[0] == "S":
                    live[place[1]] += place[4] + 16
            need(allocated == inode.allocated, f"inode {ino}: stores {allocated} bytes, not {inode.allocated}")
            stored_bytes += allocated
            is_folder = inode.kind == DIRECTORY
            need(names[ino] <= 1 or not is_folder, f"inode {ino}: a directory with two names")
            need(inode.nlink == (2 + subdirs[ino] if is_folder else names[ino]), f"inode {ino}: has other names")
            need(names[ino] or ino == ROOT or be(ino, 8) in self.records["O"], f"inode {ino}: has no name")
            need(inode.entries == len(self.entries[ino]) and ino < superblock.next_ino, f"inode {ino}: its numbers")
        need(stored_bytes == superblock.bytes, "the superblock counts other bytes")
        for id, record in self.records["S"].items():
            need(record.live in (0, live[id]), f"segment {base32hex(id)}: {live[id]} live bytes, not {record.live}")
            for _, _, *block in self.bucket.footer(id, record):
                self.bucket.block(id, *block, record)
        paths = [self.describe(path, ino) for path, ino in self.walk()]
        need(len({path["ino"] for path in paths}) + len(self.records["O"]) == len(inos), "not all inodes are reached")
        return f"{len(paths)} paths, {superblock.commit} commits, {len(self.records['S'])} segments"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bucket", help="a directory with a copy of the bucket")
    parser.add_argument("--passphrase-file", help="a file with the passphrase; a newline at its end is not part of it")
    parser.add_argument("--key-file", help="the key file")
    parser.add_argument("--records", help="what `coffer inspect --records` has written")
    parser.add_argument("command", choices=["ls", "cat", "check", "object"])
    parser.add_argument("path", nargs="?", help="of a file in the volume (cat), or of a metadata object (object)")
    args = parser.parse_args()
    needs_path, needs_records = args.command in ("cat", "object"), args.command in ("cat", "ls")
    if needs_path != bool(args.path) or (needs_records and not args.records):
        parser.error(f"{args.command}: a path too few or too many, or no --records")
    return args


def secrets(args):
    given = {}
    for factor, path in (("passphrase", args.passphrase_file), ("key-file", args.key_file)):
        if path:
            with open(path, "rb") as file:
                given[factor] = file.read()
    if "passphrase" in given:
        given["passphrase"] = given["passphrase"].removesuffix(b"\n")
    return given


def check_acceptance(header, parts, signature):
    """Signed by the newest admin key, or while a rotation is unfinished by one that it takes the place of."""
    believed = header.get("earlier", [])[header.get("floor", 1) - 1 :]
    told = label("acceptance") + lp(un_base32hex(header["volume"], "volume id"), *parts)
    for entry in believed:
        try:
            return signed(bytes.fromhex(entry["admin_public_key"]), signature, told, "acceptance")
        except Refused:
            pass
    signed(bytes.fromhex(header["admin_public_key"]), signature, told, "acceptance")


def run(args, out):
    header, keys = unlock(args.bucket, secrets(args))
    bucket = Bucket(args.bucket, keys)
    if args.command == "object":
        return out.write(bucket.meta_object(args.path)[1])
    if args.command == "check":
        objects, dead = 0, 0
        for name in (*bucket.list("m"), *bucket.list("d")):
            try:
                if name.startswith("m/"):
                    bucket.meta_object(name)
                else:
                    bucket.footer(un_base32hex(name.rsplit("/", 1)[1], name))
                objects += 1
            except RotatedAway:
                dead += 1
        left = f", {dead} of before a rotation" if dead else ""
        out.write(f"header {header['revision']}, {objects} objects{left}\n".encode())
    if args.records:
        with open(args.records, encoding="ascii") as file:
            volume = Volume(bucket, file)
        for parts, signature in volume.records["A"].values():
            check_acceptance(header, parts, signature)
    if args.command == "check" and args.records:
        out.write(volume.check().encode() + b"\n")
    if args.command == "ls":
        for path, ino in volume.walk():
            out.write(json.dumps(volume.describe(path, ino)).encode() + b"\n")
    if args.command == "cat":
        wanted = os.fsencode(args.path)
        ino = next((ino for path, ino in volume.walk() if path == wanted), None)
        need(ino is not None and volume.inode(ino).kind == 0, f"{args.path}: no such file")
        for portion in volume.contents(ino):
            out.write(portion)


if __name__ == "__main__":
    try:
        run(arguments(), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except (Refused, OSError) as error:
        sys.exit(f"coffer-read: {error}")
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        sys.exit(f"coffer-read: not of this format: {error!r}")

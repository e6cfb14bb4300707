"""The members of a tar or zip archive: names, kinds, sizes, and where their bytes lie.

Names are taken as they are unpacked by the usual tools: a leading `/` or `./` is left out. A name
that leads out of the archive (`../x`, `C:/x`) is none that could be opened here, and is only told.
"""

from __future__ import annotations

import posixpath
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, cast

from ckptparse.errors import (
    CheckpointError,
    DataLossError,
    MalformedError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.archives.unpacking import SourceFile, explained
from ckptparse.files.storage import FileKind, Source
from ckptparse.limits import Limits, check_members

__all__ = [
    "Listing",
    "Member",
    "Stretch",
    "find_packed",
    "find_stored",
    "list_local",
    "list_tar",
    "list_zip",
    "most_described",
    "open_zip",
    "weight_of",
]

Stretch = tuple[int | None, int]
"""Offset in the archive, and size; None for zeros that a sparse file leaves out."""

_LEAST_HEADER = 512
"""Bytes of a description of a member that are allowed for each of them, on average."""
_MOST_LINKS = 40
"""Links that are followed one after the other, as Linux does: more are a loop."""
_MOST_PATH = 4096
"""Bytes of a name or of what a link leads to, at most: the longest path on Linux."""
_ZIP_HEADER = 30
"""Bytes of a zip member's local header; after it come the name, the extra field, and the data."""
_MUCH = 1 << 14
"""Bytes of a zip's directory that may have many members."""
_ZIP_MARK = b"PK\x01\x02"
"""With this, each member in the directory of a zip begins."""
_ARRAY_SUFFIX = ".npy"
_ARRAY = 0.5
"""How many members an array of an npz counts as."""
_ZIP_ENTRY_BYTES, _ZIP_LENGTHS = 46, 28
"""Bytes of a member in the directory of a zip without its name, its extra fields and its comment,
and where the lengths of these stand."""
_EXTRA_BYTES = 128
"""Extra fields of so many bytes count as one member. Tools write up to 100 for a member."""
_DIGITS = re.compile(rb"[0-9]{100}")
"""More digits than any number has that describes a member."""
_FROM_WINDOWS = 0
"""The system that made a member, in its header: 0 is MS-DOS and Windows."""
_ENCRYPTED = 0x1
"""The flag of an encrypted member in its header."""
_LINK = 0o120000
"""The type bits of a symbolic link in a Unix mode."""
_KIND = 0o170000
"""The bits of a Unix mode that hold the type of file."""


@dataclass(frozen=True, slots=True)
class Member:
    """A name in an archive."""

    kind: FileKind
    size: int = 0
    """In bytes, unpacked."""
    stretches: tuple[Stretch, ...] = ()
    """Where its bytes lie in a tar."""
    in_zip: zipfile.ZipInfo | None = None
    """What the directory of a zip says of it."""
    target: str | None = None
    """Where a link leads, as it says."""
    leads_to: str | None = None
    """The name in the archive that a link leads to; None if it leads out of it."""
    problem: CheckpointError | None = None
    """Why it cannot be opened."""


@dataclass(slots=True)
class Listing:
    """What an archive holds."""

    members: dict[str, Member] = field(default_factory=dict)
    """By name, parted by `/`."""
    outside: list[str] = field(default_factory=list)
    """Names that lead out of the archive."""
    damage: CheckpointError | None = None
    """Why there may be more members than these, or some are shorter than they say."""
    archive: zipfile.ZipFile | None = None
    """What unpacks the members of a zip."""

    def resolve(self) -> None:
        """Put what links lead to in their place; those that lead nowhere stay links."""
        for name, member in list(self.members.items()):
            if member.target is not None:
                self.members[name] = self._follow(member)

    def _follow(self, link: Member) -> Member:
        current = link
        for _ in range(_MOST_LINKS):
            if current.target is None:
                return current
            found = None if current.leads_to is None else self.members.get(current.leads_to)
            if found is None:
                break
            current = found
        return replace(link, kind="dangling")


def most_described(limits: Limits) -> int:
    """Return how many bytes what describes the members of an archive may take, all together."""
    return min(limits.index_bytes, limits.members * _LEAST_HEADER)


def list_tar(source: Source, limits: Limits, *, packed: int | None = None) -> Listing:
    """List a tar archive: plain, of GNU, with the wide names and sizes of POSIX (pax).

    Args:
        source: The archive, unpacked.
        limits: Bounds on its members.
        packed: Its size as it was packed; None: it was not.

    Raises:
        DataLossError: It cannot be read at all.
        LimitError: It has more members than the limits allow.
    """
    listing = Listing()
    file = SourceFile(source, most=most_described(limits))
    size = source.size if packed is None else packed
    try:
        with explained(source.path):
            for count, info in enumerate(_iter_tar(file, source), 1):
                check_members(limits, count, size, path=source.path)
                _add(listing, info.name, _describe_tar(info, source), later_wins=True)
    except DataLossError as error:
        if not listing.members:
            raise
        listing.damage = error
    for member in listing.members.values():
        listing.damage = listing.damage or member.problem
    listing.members = {name: replace(one, problem=None) for name, one in listing.members.items()}
    listing.resolve()
    return listing


def list_zip(source: Source, limits: Limits) -> Listing:
    """List a zip archive by its directory at the end, wide sizes (zip64) included.

    Raises:
        DataLossError: It has no such directory, or a broken one.
        LimitError: It has more members than the limits allow.
    """
    listing = Listing()
    with explained(source.path):
        archive = listing.archive = open_zip(source, limits)
        infos = archive.infolist()
        windows = not any("/" in info.filename for info in infos)
        for info in infos:
            name = info.filename
            if windows and info.create_system == _FROM_WINDOWS:
                # Some tools of Windows part names by its own sign, against the standard.
                name = name.replace("\\", "/")
            _add(listing, name, _describe_zip(info, archive), later_wins=False)
    listing.resolve()
    return listing


def list_local(source: Source, limits: Limits, damage: CheckpointError) -> Listing:
    """List a zip archive whose directory is gone or broken, by the headers of its members.

    Args:
        source: The archive.
        limits: Bounds on its members.
        damage: What is wrong with its directory.

    Raises:
        CheckpointError: `damage`: no member is there.
        LimitError: It has more members than the limits allow.
    """
    from ckptparse.files.archives.damaged import iter_local_members

    listing = Listing(
        damage=MalformedError(
            f"The directory at the end of the archive is missing or damaged, so its members were "
            f"found by their own headers ({damage.message})",
            path=source.path,
        )
    )
    described, most = 0, most_described(limits)
    for count, (info, start, stop) in enumerate(iter_local_members(source), 1):
        check_members(limits, count, source.size, path=source.path)
        described += len(info.filename)
        if described > most:
            break
        if info.filename.endswith("/"):
            member = Member("directory")
        elif info.flag_bits & _ENCRYPTED:
            member = _encrypted(info)
        else:
            member = Member("file", info.file_size or stop - start, in_zip=info)
        _add(listing, info.filename, member, later_wins=False)
    if not listing.members:
        raise damage
    return listing


def open_zip(source: Source, limits: Limits) -> zipfile.ZipFile:
    """Open a zip archive and read its directory.

    Raises:
        LimitError: It has more members than the limits allow.
        Exception: Whatever `zipfile` raises; see `explained`.
    """
    file = _DirectoryFile(source, limits)
    archive = zipfile.ZipFile(cast(BinaryIO, file))
    file.is_read = True
    count = sum(weight_of(info.filename) for info in archive.filelist)
    check_members(limits, count, source.size, path=source.path)
    return archive


def weight_of(name: str) -> float:
    """Return how many members of an archive one of that name counts as: an array counts half."""
    return _ARRAY if name.endswith(_ARRAY_SUFFIX) else 1


class _DirectoryFile(SourceFile):
    """A zip archive whose directory, which `zipfile` reads at once, is looked at before."""

    def __init__(self, source: Source, limits: Limits) -> None:
        super().__init__(source, most=most_described(limits))
        self._limits = limits
        self.is_read = False
        """Whether the directory has been read."""

    def read(self, size: int | None = -1) -> bytes:
        """Read as `SourceFile` does; count the members before each becomes an object.

        Raises:
            LimitError: There are more than the limits allow.
        """
        data = super().read(size)
        if not self.is_read and len(data) >= _MUCH:
            # Each member begins with this mark: there are no more of them.
            count, path = data.count(_ZIP_MARK), self._source.path
            count = max(count, _count_extra_bytes(data) // _EXTRA_BYTES)
            # At most so many of them are arrays.
            light = (1 - _ARRAY) * min(count, data.count(_ARRAY_SUFFIX.encode()))
            check_members(self._limits, count - light, self._source.size, path=path)
        return data


def _count_extra_bytes(directory: bytes) -> int:
    """Count the bytes of the extra fields of all members, of which `zipfile` takes one by one."""
    count = at = 0
    while directory.startswith(_ZIP_MARK, at) and at + _ZIP_ENTRY_BYTES <= len(directory):
        name, extra, comment = struct.unpack_from("<HHH", directory, at + _ZIP_LENGTHS)
        count += extra
        at += _ZIP_ENTRY_BYTES + name + extra + comment
    return count


def _add(listing: Listing, name: str, member: Member, *, later_wins: bool) -> None:
    plain = _plain_name(name)
    if plain is None:
        listing.outside.append(name)
        return
    if not plain:
        return
    known = listing.members.get(plain)
    if known is not None and known.kind == member.kind == "file" and not later_wins:
        # Tools differ in which they take; so would two readers of one file.
        member = replace(
            member, problem=MalformedError(f"Two members of the archive have the name {plain!r}")
        )
    listing.members[plain] = member


def _plain_name(name: str) -> str | None:
    """Return a name without what does not count; None if it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if len(name) > _MOST_PATH:
        # No file could have it; the names of all directories above it would take its square.
        return None
    if ".." in parts or "\0" in name or (parts and re.fullmatch(r"[A-Za-z]:.*", parts[0])):
        return None
    return "/".join(parts)


def _link(name: str, target: str) -> Member:
    if target.startswith("/"):
        return Member("dangling", target=target)
    place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return Member("dangling", target=target, leads_to=_plain_name(place))


# tar.


class _Described(tarfile.TarInfo):
    """A header of a tar. What describes it further is looked at before it is parsed."""

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # Before 3.12.6 Python takes the square of the time for a run of digits
        # (CVE-2024-6232): hours for a header of a megabyte.
        file = cast(BinaryIO, archive.fileobj)
        position = file.tell()
        if _DIGITS.search(file.read(self.size)):
            raise MalformedError(
                "Expected numbers of fewer than 100 digits in the header of a member, found a "
                "longer one"
            )
        file.seek(position)
        parsed: tarfile.TarInfo = super()._proc_pax(archive)  # type: ignore[misc]
        return parsed


def _iter_tar(file: SourceFile, source: Source) -> Iterator[tarfile.TarInfo]:
    archive = tarfile.TarFile(
        fileobj=cast(BinaryIO, file), errors="surrogateescape", tarinfo=_Described
    )
    position = -1
    while (info := _next(archive)) is not None:
        if info.offset <= position or info.size < 0 or info.offset_data < 0:
            raise MalformedError(
                "A header of the archive leads to an earlier place in it", path=source.path
            )
        position = info.offset
        yield info
    end = archive.offset
    rest = source.read_at(end, min(_LEAST_HEADER, max(0, source.size - end))) if end >= 0 else b""
    if rest.strip(b"\0"):
        raise MalformedError(
            "Expected the header of a member or zeros at the end of the archive, found neither",
            path=source.path,
            offset=end,
        )


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return archive.next()
    except tarfile.ReadError as error:
        # Broken archives and cut ones raise one class of the standard library: only its text tells.
        if "unexpected end of data" in str(error) or "truncated" in str(error):
            raise EOFError from None
        raise


def _describe_tar(info: tarfile.TarInfo, source: Source) -> Member:
    if info.isdir():
        return Member("directory")
    if info.issym():
        return _link(info.name, info.linkname)
    if info.islnk():
        # Unlike the other kind, it names what it leads to from the top of the archive.
        return Member("dangling", target=info.linkname, leads_to=_plain_name(info.linkname))
    if not info.isreg():
        return Member("other")
    sparse: Any = info.sparse
    if sparse is not None:
        return _describe_sparse(info.offset_data, info.size, sparse, source)
    held = max(0, min(info.size, source.size - info.offset_data))
    return Member("file", held, ((info.offset_data, held),), problem=_cut(held, info.size, source))


def _describe_sparse(
    start: int, size: int, pairs: Iterable[tuple[int, int]], source: Source
) -> Member:
    """Lay out a file of which runs of zeros are left out; what is held lies one after another."""
    stretches: list[Stretch] = []
    position = 0
    for offset, length in pairs:
        if offset < position or length < 0 or offset + length > size:
            raise MalformedError("The map of a sparse member is broken", path=source.path)
        if start + length > source.size:
            return Member("file", position, tuple(stretches), problem=_cut(position, size, source))
        stretches += [(None, offset - position), (start, length)]
        position, start = offset + length, start + length
    stretches.append((None, size - position))
    return Member("file", size, tuple(part for part in stretches if part[1]))


def _cut(held: int, size: int, source: Source) -> CheckpointError | None:
    if held == size:
        return None
    return TruncatedError(
        f"The archive was cut off: {size - held} bytes of its last member are missing",
        path=source.path,
    )


# zip.


def _describe_zip(info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> Member:
    if info.filename.endswith(("/", "\\")):
        return Member("directory")
    if info.flag_bits & _ENCRYPTED:
        return _encrypted(info)
    if (info.external_attr >> 16) & _KIND == _LINK and info.file_size <= _MOST_PATH:
        return _link(info.filename, archive.read(info).decode("utf-8", "surrogateescape"))
    return Member("file", info.file_size, in_zip=info)


def _encrypted(info: zipfile.ZipInfo) -> Member:
    return Member(
        "file",
        info.file_size,
        problem=UnsupportedError(
            "The member is encrypted", hint="Unpack the archive with its password first"
        ),
    )


def find_packed(source: Source, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where the bytes of a member of a zip lie, behind a header of its own: offset and size.

    Raises:
        MalformedError: There is no such header, or its bytes lie outside the archive.
    """
    offset, size = info.header_offset, info.compress_size
    if offset + _ZIP_HEADER > source.size:
        raise _no_header(source, offset)
    header = source.read_at(offset, _ZIP_HEADER)
    name_size, extra_size = struct.unpack_from("<HH", header, 26)
    start = offset + _ZIP_HEADER + name_size + extra_size
    if not header.startswith(b"PK\x03\x04") or start + size > source.size:
        raise _no_header(source, offset)
    return start, size


def find_stored(source: Source, info: zipfile.ZipInfo) -> tuple[Stretch, ...]:
    """Return where the bytes of a member lie that is not packed.

    Raises:
        MalformedError: As of `find_packed`, or the member says two sizes.
    """
    start, size = find_packed(source, info)
    if size != info.file_size:
        raise MalformedError(
            f"Expected one size of a member that is not packed, found two: {size} and "
            f"{info.file_size} bytes",
            path=source.path,
            offset=info.header_offset,
        )
    return ((start, size),)


def _no_header(source: Source, offset: int) -> MalformedError:
    return MalformedError(
        "Expected the header of a member and its bytes, found none",
        path=source.path,
        offset=offset,
    )

"""What an archive holds, whatever its format: one record for each member, and the fault of one that cannot be read."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

Read = Callable[[], Iterator[bytes]]

CHUNK: Final = 2**20  # bytes that are held in memory at once
AGAIN: Final = "Download or pack it again."
_CUT_OFF: Final = "it ends too early: it is cut off"


class ArchiveFaultError(Exception):
    """Error for an archive that cannot be read, without the archive's name.

    Attributes:
        reason: What is wrong, a clause.
        hint: What to do about it, a sentence.
    """

    def __init__(self, reason: str, hint: str = AGAIN) -> None:
        """Store the reason and the hint.

        Args:
            reason: What is wrong, a clause.
            hint: What to do about it, a sentence.
        """
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        name: Its path as the archive has it; bytes that are not UTF-8 are lone surrogates.
        kind: What it is; `other` is never unpacked.
        size: Bytes of a file's content; 0 for the other kinds.
        target: Path that a link names, as the archive has it; for `other`, what the member is.
        read: Function that gives a file's content in chunks; to be called before the next member is asked for.
    """

    name: str
    kind: Literal["file", "folder", "symlink", "hardlink", "other"]
    size: int = 0
    target: str = ""
    read: Read = lambda: iter(())


@contextmanager
def raise_archive_faults() -> Iterator[None]:
    """Turn whatever reading or decompressing damaged bytes raises into an `ArchiveFaultError`.

    Nothing may be written in the block: an error of the disk would be taken for one of the archive.

    Raises:
        ArchiveFaultError: When the block raises an error that damaged bytes can cause.
    """
    try:
        yield
    except EOFError as error:
        raise ArchiveFaultError(_CUT_OFF) from error
    except MemoryError as error:
        raise ArchiveFaultError("unpacking it takes more memory than there is") from error
    except UnicodeDecodeError as error:
        raise ArchiveFaultError("a name in it is marked as UTF-8 and is not") from error
    except OSError as error:
        reason = f"the disk says: {error.strerror}" if error.strerror else f"its data are damaged: {error}"
        raise ArchiveFaultError(reason) from error
    except (zlib.error, lzma.LZMAError, ValueError, ArithmeticError) as error:
        raise ArchiveFaultError(f"its data are damaged: {error}") from error

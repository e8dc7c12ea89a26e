"""What can go wrong when a file of numbers that ships with the package is read. It is never a reason not to start."""

from __future__ import annotations

import zipfile
import zlib

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""Absent, cut off, damaged, of another shape, or without a part."""

"""The store of model files: fetched once, checked always, shared by every model that names the same checksum.

    weights_dir/<name>-<first 16 digits of the sha256>.<suffix>   the file, complete and checked
    weights_dir/….verified                                        size, time and checksum at the last check
    weights_dir/….part, ….lock                                    a download under way, and who may write it

A file appears under its name only by a rename after its checksum was right. The lock makes one download of any
number of processes that want the same file. The marker spares reading 16 GB again at each start.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from capibara_agents.errors import WeightsError
from capibara_agents.runtime.sources import CHUNK_BYTES, REPORT_EVERY_S, Source, bring, free_bytes, parse_source
from capibara_agents.settings import ModelSpec, WeightsSource
from capibara_agents.texts import Phrase, phrase

# Left free on the disk beside the file itself, so that a download never fills a system.
DISK_RESERVE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Progress:
    """How far one file is. `rate` is bytes a second since this run began; `verifying` while it is being read back."""

    file: str
    done_bytes: int
    total_bytes: int | None
    rate: float = 0.0
    verifying: bool = False

    @property
    def seconds_left(self) -> float | None:
        if not self.rate or self.total_bytes is None:
            return None
        return max(0.0, (self.total_bytes - self.done_bytes) / self.rate)


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class LocalFiles:
    """The files of one model on this machine."""

    weights: Path
    mmproj: Path | None = None


class WeightStore:
    """Files under `root`. Every method may be called from any thread and any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, weights: WeightsSource) -> Path:
        """Where the file of a source is or would be; a file:// source is used in its place."""
        source = parse_source(weights.source)
        if source.kind == "file":
            return Path(source.place)
        identity = weights.sha256 or hashlib.sha256(weights.source.encode()).hexdigest()
        name = Path(source.name)
        return self.root / f"{name.stem}-{identity[:16]}{name.suffix}"

    def files(self, spec: ModelSpec) -> LocalFiles:
        """Where the model's files are or would be."""
        return LocalFiles(self.path(spec.weights), self.path(spec.mmproj) if spec.mmproj else None)

    def is_present(self, spec: ModelSpec) -> bool:
        """Whether all files of the model are complete here; checksums are not read again."""
        return self.absence(spec) is None

    def absence(self, spec: ModelSpec) -> Phrase | None:
        """A sentence that says which file is missing and what to do; None when all are here."""
        return next((self._absent(spec, w) for w in _sources(spec) if not self._is_complete(w)), None)

    def fetch(self, spec: ModelSpec, on_progress: OnProgress | None = None) -> LocalFiles:
        """Brings what is missing and checks what is new. Blocks for as long as that takes. Raises WeightsError."""
        files = [self._fetch_one(weights, on_progress or _silent) for weights in _sources(spec)]
        return LocalFiles(files[0], files[1] if spec.mmproj else None)

    def require(self, spec: ModelSpec) -> LocalFiles:
        """The files, checked unless the marker vouches for them; nothing is downloaded. Raises WeightsError."""
        return self._checked(spec, _silent, again=False)

    def verify(self, spec: ModelSpec, on_progress: OnProgress | None = None) -> LocalFiles:
        """Reads all files again and compares their checksums. Raises WeightsError when one is absent or wrong."""
        return self._checked(spec, on_progress or _silent, again=True)

    def remove(self, spec: ModelSpec) -> int:
        """Deletes the model's files and partial downloads, never a file:// source; returns the bytes freed."""
        freed = 0
        for weights in _sources(spec):
            if parse_source(weights.source).kind == "file":
                continue
            file = self.path(weights)
            if not file.parent.is_dir():
                continue
            with _locked(_beside(file, ".lock")):
                for victim in (file, _beside(file, ".part"), _beside(file, ".verified")):
                    if victim.exists():
                        freed += victim.stat().st_size
                        victim.unlink()
        return freed

    # ------------------------------------------------------------ one file

    def _checked(self, spec: ModelSpec, on_progress: OnProgress, *, again: bool) -> LocalFiles:
        absence = self.absence(spec)
        if absence:
            raise WeightsError(absence)
        for weights in _sources(spec):
            self._verify_one(weights, on_progress, again=again)
        return self.files(spec)

    def _is_complete(self, weights: WeightsSource) -> bool:
        try:
            size = self.path(weights).stat().st_size
        except OSError:
            return False
        return size > 0 and (weights.size_bytes is None or size == weights.size_bytes)

    def _absent(self, spec: ModelSpec, weights: WeightsSource) -> Phrase:
        source, file = parse_source(weights.source), self.path(weights)
        if source.kind == "file":
            return phrase("weights.absent_file", id=spec.id, file=file)
        return phrase("weights.absent", id=spec.id)

    def _fetch_one(self, weights: WeightsSource, on_progress: OnProgress) -> Path:
        source, file = parse_source(weights.source), self.path(weights)
        if source.kind != "file":
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with _locked(_beside(file, ".lock")):
                    if not self._is_complete(weights):
                        self._download(source, weights, file, on_progress)
            except OSError as error:
                raise WeightsError(_disk_trouble(file, error)) from error
        elif not self._is_complete(weights):
            raise WeightsError(phrase("weights.incomplete", file=file))
        self._verify_one(weights, on_progress, again=False)
        return file

    def _download(self, source: Source, weights: WeightsSource, file: Path, on_progress: OnProgress) -> None:
        part = _beside(file, ".part")
        done_before = part.stat().st_size if part.exists() else 0
        _check_space(file, (weights.size_bytes or 0) - done_before)
        began_at, last = time.monotonic(), 0.0

        def report(done: int, total: int | None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= REPORT_EVERY_S or done == total:
                last = now
                rate = (done - done_before) / max(now - began_at, 1e-6)
                on_progress(Progress(source.name, done, total or weights.size_bytes, max(0.0, rate)))

        bring(source, part, report)
        size = part.stat().st_size
        if weights.size_bytes is not None and size != weights.size_bytes:
            part.unlink()
            raise WeightsError(phrase("weights.size", source=source.text, size=size, expected=weights.size_bytes))
        if weights.sha256 is not None:
            digest = _digest(part, on_progress)
            if digest != weights.sha256:
                part.unlink()
                raise WeightsError(
                    phrase("weights.sum_fetched", source=source.text, digest=digest, expected=weights.sha256)
                )
        part.replace(file)
        if weights.sha256 is not None:
            self._mark(file, weights.sha256)

    def _verify_one(self, weights: WeightsSource, on_progress: OnProgress, *, again: bool) -> None:
        file = self.path(weights)
        if weights.sha256 is None or (not again and self._is_marked(file, weights.sha256)):
            return
        try:
            digest = _digest(file, on_progress)
        except OSError as error:
            raise WeightsError(phrase("wrong.unreadable", file=file, error=error.strerror)) from error
        if digest != weights.sha256:
            self._marker(file).unlink(missing_ok=True)
            raise WeightsError(phrase("weights.sum", file=file, digest=digest, expected=weights.sha256))
        self._mark(file, weights.sha256)

    # ------------------------------------------------------------ markers

    def _marker(self, file: Path) -> Path:
        """Beside a file of the store; for a file:// source, whose folder is not ours, in the store."""
        if file.is_relative_to(self.root):
            return _beside(file, ".verified")
        place = hashlib.sha256(str(file).encode()).hexdigest()[:16]
        return self.root / f"{file.name}-{place}.verified"

    def _is_marked(self, file: Path, sha256: str) -> bool:
        try:
            said = json.loads(self._marker(file).read_text(encoding="ascii"))
            stat = file.stat()
        except (OSError, ValueError):
            return False
        return bool(said == {"sha256": sha256, "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns})

    def _mark(self, file: Path, sha256: str) -> None:
        stat = file.stat()
        text = json.dumps({"sha256": sha256, "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns})
        marker = self._marker(file)
        # Without a marker the file is read again next time; that is no reason to fail.
        with contextlib.suppress(OSError):
            marker.parent.mkdir(parents=True, exist_ok=True)
            draft = _beside(marker, f".{time.monotonic_ns()}")
            draft.write_text(text, encoding="ascii")
            draft.replace(marker)


def _sources(spec: ModelSpec) -> tuple[WeightsSource, ...]:
    return (spec.weights, spec.mmproj) if spec.mmproj else (spec.weights,)


def _silent(_: Progress) -> None:
    """Progress that nobody watches."""


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Waits for the one exclusive lock of the file; the system frees it when its holder dies."""
    with file.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)


def _check_space(file: Path, missing_bytes: int) -> None:
    free = free_bytes(file.parent)
    if missing_bytes > 0 and free < missing_bytes + DISK_RESERVE_BYTES:
        raise WeightsError(
            phrase(
                "weights.no_space", folder=file.parent, free=f"{free / 1e9:.1f}", needed=f"{missing_bytes / 1e9:.1f}"
            )
        )


def _disk_trouble(file: Path, error: OSError) -> Phrase:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return phrase("weights.disk_full", folder=file.parent)
    return phrase("weights.not_written", folder=file.parent, error=error.strerror or error)


def _digest(file: Path, on_progress: OnProgress) -> str:
    """The sha256 of a file, reported as it is read."""
    digest, done, total = hashlib.sha256(), 0, file.stat().st_size
    began_at = last = time.monotonic()
    with file.open("rb") as stream:
        while chunk := stream.read(4 * CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            now = time.monotonic()
            if now - last >= REPORT_EVERY_S:
                last = now
                on_progress(Progress(file.name, done, total, done / max(now - began_at, 1e-6), verifying=True))
    return digest.hexdigest()

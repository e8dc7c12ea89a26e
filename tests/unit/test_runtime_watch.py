"""Pure decisions of the machine room, second part: stuck servers, cores, measured memory, new configurations."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from capibara_agents.config import load
from capibara_agents.errors import ConfigError
from capibara_agents.runtime import watch
from capibara_agents.runtime.cores import Lease, lease, may_work
from capibara_agents.runtime.gguf import Gguf
from capibara_agents.runtime.ledger import Ledger, Measured, corrected_bytes, shape_key
from capibara_agents.runtime.memory import GIB, MAIN_FORMATS, MIB, PROCESS_BYTES, Need, is_repacked, keeps, predict
from capibara_agents.runtime.profiles import build_command
from capibara_agents.runtime.reload import Difference, difference, waits_for_restart
from capibara_agents.runtime.server import is_dying
from capibara_agents.runtime.tuning import profiles, tuning_for
from capibara_agents.runtime.watch import Pulse, Watch, pulse_of
from capibara_agents.settings import ModelSpec, ServerSettings, Settings
from capibara_agents.types import Keeps
from tests.unit.cpuinfo import facts


def spec(**keys: Any) -> ModelSpec:
    base = {"id": "m", "tier": "general", "weights": {"source": "file:///m.gguf"}, "max_tokens": 9, "timeout_s": 9}
    return ModelSpec.model_validate({**base, **keys})


def settings(*specs: ModelSpec, **runtime: Any) -> Settings:
    return Settings.model_validate({"models": specs, "runtime": {"data_dir": "/d", "weights_dir": "/w", **runtime}})


# ---------------------------------------------------------------- stuck servers

STILL, MOVED, REST, SILENT = ((1, 0, 5),), ((1, 0, 6),), ((1, 0, 6),), None


def looks(*seen: tuple[float, Any, int, float]) -> list[bool]:
    """The verdict after each look: (time, marker, slots at work, CPU seconds), with a limit of 10 seconds."""
    watch = Watch(10)
    return [watch.is_hung(at, Pulse(marker, busy, 0, cpu_s)) for at, marker, busy, cpu_s in seen]


@pytest.mark.parametrize(
    ("seen", "hung"),
    [
        ([(0, STILL, 1, 0), (9, STILL, 1, 0), (11, STILL, 1, 0)], True),
        ([(0, STILL, 1, 0), (9, MOVED, 1, 0), (18, MOVED, 1, 0)], False),
        ([(0, STILL, 1, 0), (11, STILL, 0, 0)], False),
        ([(0, SILENT, 0, 0), (11, SILENT, 0, 0)], True),
        ([(0, STILL, 1, 0), (11, STILL, 1, 11)], False),
        ([(0, STILL, 1, 0), (11, SILENT, 0, 11)], False),
        ([(0, STILL, 1, 0), (61, STILL, 1, 61)], True),
        ([(0, STILL, 1, 0), (11, STILL, 1, 1)], True),
        ([(0, SILENT, 0, 0), (9, STILL, 1, 0), (18, STILL, 1, 0)], False),
    ],
    ids=[
        "scheduler stuck, nothing computed", "tokens come", "nothing to do", "stopped", "long batch",
        "long batch, no answer", "endless loop", "idle threads only", "answers again",
    ],
)  # fmt: skip
def test_who_is_hung(seen: list[tuple[float, Any, int, float]], hung: bool) -> None:
    """No token and no CPU time for the limit is hung; burning without a token gets a minute at least."""
    assert looks(*seen)[-1] is hung


def test_a_slow_model_that_burns_gets_four_times_its_limit() -> None:
    """The patience with a long batch follows the model's own limit."""
    watch = Watch(100)
    watch.is_hung(0, Pulse(STILL, 1, 0, 0))
    assert not watch.is_hung(399, Pulse(STILL, 1, 0, 399))
    assert watch.is_hung(401, Pulse(STILL, 1, 0, 401))


def test_suspicion_outlives_the_claim_and_ends_with_a_token() -> None:
    """A client that gave up does not make its stuck server look healthy."""
    watch = Watch(10)
    watch.is_hung(0, Pulse(STILL, 1, 0, 0))
    assert not watch.is_suspicious
    watch.is_hung(5, Pulse(STILL, 1, 0, 0))
    assert watch.is_suspicious
    watch.is_hung(6, Pulse(MOVED, 1, 0, 0))
    assert not watch.is_suspicious


def test_speed_is_tokens_written_between_two_looks() -> None:
    """Twenty tokens in two seconds are ten a second; at rest there is no speed."""
    watch = Watch(10)
    watch.is_hung(0, Pulse(STILL, 1, 10, 0))
    watch.is_hung(2, Pulse(MOVED, 1, 30, 0))
    assert watch.tokens_per_second == 10
    watch.rest()
    assert watch.tokens_per_second is None


def test_pulse_of_slots() -> None:
    """llama-server's slots count; whatever is not a list of slots is no answer."""
    slot = {"is_processing": True, "id_task": 3, "n_prompt_tokens_processed": 7, "next_token": [{"n_decoded": 2}]}
    assert pulse_of([slot, {"id": 1, "is_processing": False}], 1.5) == Pulse(((3, 7, 2), (-1, 0, 0)), 1, 2, 1.5)
    assert pulse_of({"error": 1}, 0).marker is None


STAT = "4242 (llama-server :)) {state} 1 2 3 0 -1 {flags} " + "0 " * 21 + "{pending} 0 0 0"


@pytest.mark.parametrize(
    ("state", "flags", "pending", "dying"),
    [("S", 0x400000, 0, False), ("R", 0x400004, 0, True), ("Z", 0, 0, True), ("R", 0x400000, 256, True)],
    ids=["serves", "exits", "has exited", "was sent SIGKILL"],
)
def test_a_dying_process_is_known_before_its_exit(state: str, flags: int, pending: int, dying: bool) -> None:
    """Read from the kernel's own line, whatever the process calls itself."""
    assert is_dying(STAT.format(state=state, flags=flags, pending=pending)) is dying
    assert not is_dying("nonsense")


def test_sigkill_shows_before_the_process_can_act_on_it() -> None:
    """The place of each field in the line of this very kernel: a process that is stopped has not begun to exit."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        stat = Path(f"/proc/{process.pid}/stat")
        assert not is_dying(stat.read_text())
        process.send_signal(signal.SIGKILL)
        assert is_dying(stat.read_text())
    finally:
        process.kill()
        process.wait()


# ---------------------------------------------------------------- cores


@pytest.mark.parametrize(
    ("threads", "cores", "held", "expected"),
    [
        (16, 48, [], range(16)),
        (16, 48, [Lease(16, tuple(range(16)))], range(16, 32)),
        (24, 48, [Lease(16, tuple(range(16)))], range(16, 40)),
        (16, 32, [Lease(16, tuple(range(16)))], range(16, 32)),
        (16, 30, [Lease(16, tuple(range(16)))], ()),
        (2, 4, [Lease(1)], range(2)),
        (3, 4, [Lease(2)], ()),
        (48, 48, [], ()),
        (1, 48, [], ()),
        (2, 6, [Lease(2, (0, 1)), Lease(2, (4, 5))], (2, 3)),
    ],
    ids=["first", "second", "larger", "exactly", "too few", "beside one that floats", "floating ones count",
         "all cores", "a single thread", "a gap"],
)  # fmt: skip
def test_lease(threads: int, cores: int, held: list[Lease], expected: Any) -> None:
    """Disjoint cores where they fit, none where the threads of all would be more than the cores."""
    assert lease(threads, range(cores), held) == Lease(threads, tuple(expected))


def test_leases_are_disjoint_for_any_cores() -> None:
    """Physical cores need not be numbered in a row; what was leased once is not leased twice."""
    cores, held = (0, 2, 4, 6, 8, 10), []
    for _ in range(4):
        held.append(lease(2, cores, held))
    assert [one.cores for one in held] == [(0, 2), (4, 6), (8, 10), ()]
    assert held[1].mask == "0x50"


@pytest.mark.parametrize(
    ("threads", "busy", "cores", "allowed"),
    [(8, 0, 4, True), (2, 2, 4, True), (3, 2, 4, False), (1, 4, 4, False)],
    ids=["alone", "fits", "too many", "all taken"],
)
def test_may_work(threads: int, busy: int, cores: int, allowed: bool) -> None:
    """Beside others only while the cores suffice for all."""
    assert may_work(threads, busy, cores) is allowed


def command(flags: set[str], chosen: Lease, *, repacked: bool = False, **keys: Any) -> list[str]:
    made = build_command(
        spec(**keys),
        binary=Path("/b"),
        flags=frozenset(flags),
        lease=chosen,
        model_file=Path("/m"),
        mmproj_file=None,
        api_key="k",
        crowded=False,
        repacked=repacked,
    )
    return list(made.arguments)


def test_leased_cores_reach_the_command_line() -> None:
    """A mask names any set of cores; a server that shares has none."""
    given = command({"--cpu-mask", "--cpu-strict"}, Lease(2, (1, 3)))
    assert given[given.index("--cpu-mask") + 1] == "0xa"
    assert "--cpu-mask" not in command({"--cpu-mask"}, Lease(2))


# ---------------------------------------------------------------- templates

TEMPLATES = {"--jinja", "--no-jinja", "--chat-template"}


@pytest.mark.parametrize(
    ("template", "switch"),
    [(None, "--jinja"), ("mistral-v1", "--no-jinja"), ("{{ messages[0].content }}", "--jinja")],
    ids=["the file's own", "a name", "a text"],
)
def test_a_template_by_name_needs_jinja_off(template: str | None, switch: str) -> None:
    """With Jinja on, a template's name is itself taken for the template, and is all the model would read."""
    given = command(TEMPLATES, Lease(1), chat_template=template)
    assert [flag for flag in given if flag in ("--jinja", "--no-jinja")] == [switch]


# ---------------------------------------------------------------- memory

NEED = Need(weights_bytes=1000, cache_bytes=500, compute_bytes=100, prompt_cache_bytes=50)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (None, 1650 + PROCESS_BYTES),
        (Measured(ready_bytes=1400, peak_bytes=1400), 1550),
        (Measured(ready_bytes=1400, peak_bytes=1900), 1900),
        (Measured(ready_bytes=2000, peak_bytes=2050), 2150),
    ],
    ids=["never seen", "held less", "once held more", "holds more from the start"],
)
def test_prediction_is_corrected_by_what_was_measured(measured: Measured | None, expected: int) -> None:
    """What is held from the start is then known; what use adds stays predicted until it was seen."""
    assert corrected_bytes(NEED, measured) == expected


def test_ledger_outlives_the_process(tmp_path: Path) -> None:
    """What was measured is there after a restart; a broken file counts as nothing known."""
    ledger = Ledger(tmp_path)
    ledger.note("k", 100, just_ready=False)
    assert ledger.get("k") is None
    ledger.note("k", 100, just_ready=True)
    ledger.note("k", 300, just_ready=False)
    ledger.note("k", 200, just_ready=False)
    assert Ledger(tmp_path).get("k") == Measured(100, 300)
    (tmp_path / "memory.json").write_text('{"k": 3}')
    assert Ledger(tmp_path).get("k") is None


def test_shape_changes_with_what_takes_memory() -> None:
    """Slots, context and weights make another shape; a time limit does not."""
    key = shape_key(spec(), GIB, "v")
    assert key == shape_key(spec(timeout_s=30), GIB, "v")
    others = [shape_key(spec(slots=2), GIB, "v"), shape_key(spec(), GIB + 1, "v"), shape_key(spec(), GIB, "w")]
    assert key not in others


def test_what_a_server_keeps_of_earlier_prompts() -> None:
    """Tokens for the bytes of its cache; with windows each prompt takes more, and where one does not fit, none."""
    plain = {"block_count": 10, "embedding_length": 1024, "attention.head_count": 8}
    gguf = Gguf(1, 1, {"general.architecture": "a", **{f"a.{key}": value for key, value in plain.items()}})
    token_bytes = 10 * 2 * 1024 * 2
    assert keeps(spec(slots=3), gguf) == Keeps(slots=3, tokens=256 * MIB // token_bytes)
    assert keeps(spec(extra_args=("--cache-ram", "0")), gguf).tokens == 0
    windowed = {**gguf.metadata, "general.architecture": "gemma2", "gemma2.attention.sliding_window": 100}
    windowed |= {f"gemma2.{key}": value for key, value in plain.items()}
    half = keeps(spec(), Gguf(1, 1, windowed))
    assert (half.tokens, half.prompt_tokens) == (2 * 256 * MIB // token_bytes, 300)


def test_prompt_cache_follows_the_arguments() -> None:
    """--cache-ram among the extra arguments is what the server gets, so it is what is predicted."""
    assert predict(spec(), Gguf(1, 1, {})).prompt_cache_bytes == 256 * MIB
    assert predict(spec(extra_args=("--cache-ram", "0")), Gguf(1, 1, {})).prompt_cache_bytes == 0


def test_rearranged_weights_are_not_mapped() -> None:
    """Mapping the file too would hold twice what is copied into another order; other files are mapped."""
    given = command({"--load-mode"}, Lease(1), repacked=True)
    assert given[given.index("--load-mode") + 1] == "none"
    assert "--load-mode" not in command({"--load-mode"}, Lease(1))


@pytest.mark.parametrize(
    ("cpu", "file_type", "repacked"),
    [
        ("x86-64-v4", 15, True),
        ("x86-64-v4", 7, False),
        ("neoverse-v2", 7, True),
        ("neoverse-v2", 3, False),
        ("armv8-0", 2, False),
    ],
    ids=["Q4_K on AVX-512", "Q8_0 on AVX-512", "Q8_0 on a V2", "Q4_1 on a V2", "Q4_0 without dotprod"],
)
def test_what_is_rearranged_is_the_profiles_to_say(cpu: str, file_type: int, repacked: bool) -> None:
    """The same list as `engine check` compares with, for the CPU at hand."""
    formats = tuning_for(facts(cpu), GIB).repacked
    assert is_repacked(Gguf(1, 1, {"general.file_type": file_type}), formats) is repacked


def test_every_rearranged_format_has_a_file_type() -> None:
    """A profile cannot name a format that no file would ever be recognised by."""
    named = {name for profile in profiles() for tuning in profile.sizes.values() for name in tuning.repacked}
    assert named == set(MAIN_FORMATS.values())


# ---------------------------------------------------------------- new configurations


def test_difference_of_configurations() -> None:
    """Only what the server process would see makes it restart."""
    old = settings(spec(id="same"), spec(id="slots"), spec(id="limit"), spec(id="gone"))
    new = settings(spec(id="same"), spec(id="slots", slots=3), spec(id="limit", timeout_s=1), spec(id="new"))
    assert difference(old, new) == Difference(("new",), ("gone",), ("slots",), ("limit",))
    assert difference(old, old).is_empty


def test_another_engine_restarts_all_and_another_folder_is_refused() -> None:
    """The data folder is locked and the children belong to it: it cannot move under them."""
    old = settings(spec())
    assert difference(old, settings(spec(), llama_server="/other")).restarted == ("m",)
    with pytest.raises(ConfigError, match="data_dir"):
        difference(old, settings(spec(), data_dir="/elsewhere"))


def test_keys_that_wait_for_a_restart_are_named() -> None:
    """What only a start reads is named by its key; what is taken over is not."""
    old = settings(spec())
    assert waits_for_restart(old, settings(spec(slots=9), queue_limit=3)) == ()
    moved = settings(spec(), load_wait_s=7).model_copy(update={"server": ServerSettings(port=1, ping_s=9)})
    assert waits_for_restart(old, moved) == ("server.ping_s", "server.port", "runtime.load_wait_s")


ADDED = """
models:
  mine: {tier: general, max_tokens: 9, timeout_s: 9, weights: {source: "file:///m.gguf"}}
  phi-4-mini: {slots: 3}
"""


def test_what_a_file_no_longer_says_is_taken_back(tmp_path: Path) -> None:
    """A model that the file had added goes with its lines; a shipped one becomes as it ships, also by `null`."""
    file = tmp_path / "capibara.yaml"

    def read(text: str) -> Settings:
        file.write_text(text)
        runtime = {"data_dir": tmp_path, "weights_dir": tmp_path}
        return load(file, flags={"fleet": "tiny", "runtime": runtime}, environ={}).settings

    before = read(ADDED)
    assert difference(before, read("models: {phi-4-mini: {slots: 3}}")) == Difference((), ("mine",), (), ())
    for text in ("", "models:\n", "models: {phi-4-mini: null}"):
        assert difference(before, read(text)) == Difference((), ("mine",), ("phi-4-mini",), ())


@pytest.mark.parametrize("listed", [True, False])
def test_the_time_of_what_a_process_has_started_counts_too(listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper may stay in between; also where the kernel does not list children."""
    if not listed:
        monkeypatch.setattr(watch.Path, "exists", lambda _: False)
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        ["sh", "-c", '"$0" -c "$1"; true', sys.executable, burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as wrapper:
        assert wrapper.stdout is not None
        wrapper.stdout.readline()
        assert watch.cpu_seconds(wrapper.pid) >= 0.25
        wrapper.communicate(b"\n")

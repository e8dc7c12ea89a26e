"""What the commands of the terminal show, in both languages, over answers that are prepared; and what they refuse."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from rich.console import Console

from capibara_agents.errors import BadQuestion, CapibaraError, ModelUnavailable
from capibara_agents.settings import Settings
from capibara_agents.terminal import Terminal, bench, chat, compare, consensus, data, graph, trials
from capibara_agents.terminal.respondent import Said, There, Turn, body_of, tokens_per_second
from capibara_agents.terminal.streaming import MarkdownStream, split_finished
from capibara_agents.types import Language, Request
from tests.fakes import GPT, MISTRAL, PHI, QWEN

LANGUAGES: tuple[Language, ...] = ("es", "en")


def candidate(model: str, content: str = "Madrid.", *, tokens: int = 11, wait_ms: float = 2000) -> dict[str, Any]:
    return {
        "model": model,
        "attempt": 1,
        "sample": 1,
        "content": content,
        "error": None,
        "usage": {"prompt_tokens": 7, "completion_tokens": tokens},
        "timings": {"wait_ms": wait_ms, "ttft_ms": 100.0, "total_ms": wait_ms + 100.0 + 500.0},
    }


def said(model: str = PHI, content: str = "Madrid.", *, accepted: bool = True, **trace: Any) -> Said:
    check = {"name": "language", "passed": accepted, "reason": "" if accepted else "verify.loop"}
    whole = {
        "plan": {"mode": "single", "models": [model], "reason": {"code": "route.named", "values": {"model": model}}},
        "candidates": [candidate(model, content)],
        "ballot": {"method": "pass", "agreement": 1.0},
        "verdict": {"accepted": accepted, "degraded": False, "candidate": f"1:{model}", "checks": [check]},
        "timings_ms": {"classify": 4.0},
    }
    return Said(content, {**whole, **trace})


def voted() -> Said:
    """Two agree, one does not, one is dead."""
    numbers = ((PHI, "84", 0), (QWEN, "84", 0), (MISTRAL, "[red]90[/red]", 1))
    votes = [
        {
            "model": model,
            "answer": {"kind": "number", "value": value, "unit": "", "confidence": 1.0},
            "weight": 1.25,
            "cluster": cluster,
        }
        for model, value, cluster in numbers
    ]
    ballot = {
        "winner": f"1:{PHI}",
        "method": "weighted",
        "agreement": 2 / 3,
        "confidence": 0.6,
        "calibrated": False,
        "votes": votes,
        "absent": {GPT: "model_crashed"},
    }
    models = [PHI, QWEN, MISTRAL, GPT]
    values = {"domain": "math", "level": "simple", "count": 4, "models": ", ".join(models)}
    plan = {"mode": "consensus", "models": models, "reason": {"code": "route.consensus", "values": values}}
    return said(PHI, "84", plan=plan, ballot=ballot)


class Prepared:
    """A respondent that says what it is given, and remembers what it was asked."""

    where = None

    def __init__(self, *answers: Said | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[list[Turn], Request]] = []

    def prepare(self) -> None:
        """Always ready."""

    def ask(
        self,
        messages: Sequence[Turn],
        request: Request,
        *,
        on_text: Callable[[str], None] | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> Said:
        self.asked.append((list(messages), request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if on_text:
            on_text(answer.content)
        return answer

    def route(self, messages: Sequence[Turn], request: Request) -> dict[str, Any]:
        self.asked.append((list(messages), request))
        return {
            "reason": "Porque sí.", "mode": "single", "models": [PHI], "model": PHI, "tier": "fast_response",
            "domain": "math", "language": "es", "confidence": 0.9, "complexity": 0.2, "complexity_level": "simple",
            "signals": [], "without_strongest": None, "neighbours": [],
        }  # fmt: skip

    def fleet(self) -> dict[str, Any]:
        return {"models": [{"id": PHI, "state": "ready"}]}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prepared]:
    """Has every command ask a Prepared of these answers."""

    def prepare(*given: Said | Exception) -> Prepared:
        prepared = Prepared(*given)

        @contextmanager
        def respondent(settings: Settings, terminal: Terminal) -> Iterator[Prepared]:
            yield prepared

        for module in (chat, compare, consensus, trials):
            monkeypatch.setattr(module, "respondent", respondent)
        return prepared

    return prepare


Capture = pytest.CaptureFixture[str]
Answers = Callable[..., Prepared]


def flat(text: str) -> str:
    """Without the line breaks of a narrow terminal."""
    return " ".join(text.split())


# ---------------------------------------------------------------- figures


def test_speed_counts_what_came_after_the_first_token() -> None:
    """Ten more tokens in half a second; waiting and reading are no part of it. One token has no speed."""
    assert tokens_per_second(candidate(PHI)) == pytest.approx(20.0)
    assert tokens_per_second(candidate(PHI, tokens=1)) is None


def test_percentiles_are_measured_values() -> None:
    """Nearest rank: p99 of a few samples is the worst of them, and never better than what was seen."""
    samples = [bench.Sample(first_s=ms / 1000, last_s=ms / 1000 + 1, tokens=11) for ms in (30, 10, 20)]
    figures = bench.figures_of(PHI, "direct", samples)
    assert (figures.ttft_ms_p50, figures.ttft_ms_p99, figures.tokens_per_second_p50) == (20.0, 30.0, 10.0)


# ---------------------------------------------------------------- consensus


@pytest.mark.parametrize(
    ("language", "words"), [("es", ("acuerdo", "número", "grupo")), ("en", ("agreement", "number", "cluster"))]
)
def test_a_ballot_as_a_table(
    settings: Settings, answers: Answers, capsys: Capture, language: Language, words: tuple[str, ...]
) -> None:
    """Voters, canonical answers, weights, clusters, agreement, confidence, and who was missing; no markup is obeyed."""
    prepared = answers(voted())
    consensus.run(settings, consensus.Election("12*7?", voters=["phi4:mini", QWEN]), Terminal(language), as_json=False)
    out = flat(capsys.readouterr().out)
    assert all(word in out for word in (*words, PHI, QWEN, MISTRAL, "1.25", "67 %", "60 %", "model_crashed", "[red]90"))
    assert prepared.asked[0][1].voters == (PHI, QWEN)
    assert prepared.asked[0][1].model == "capibara-consensus"


def test_a_vote_that_did_not_decide_is_not_shown_as_one(settings: Settings, answers: Answers, capsys: Capture) -> None:
    """Somebody answered alone in the end; who was asked before, and what of it, is shown."""
    first = candidate(PHI, "[b]no")
    dead = {**candidate(PHI, ""), "sample": 2, "error": "model_crashed"}
    last = {**candidate(MISTRAL, "Sí."), "attempt": 2}
    answers(
        said(MISTRAL, candidates=[first, dead, last], verdict={**said().trace["verdict"], "candidate": f"2:{MISTRAL}"})
    )
    consensus.run(settings, consensus.Election("x"), Terminal("en"), as_json=False)
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"No vote decided this: {MISTRAL} answered alone." in shown
    assert shown[-3:] == [f"1 {PHI} [b]no", f"1 {PHI}#2 no answer: model_crashed", f"2 {MISTRAL} Sí."]


@pytest.mark.parametrize("wrong", [{"voting": "loud"}, {"voters": ["nobody"]}, {"max_voters": 9}, {"max_tokens": 0}])
def test_a_wrong_election_is_refused_before_anything_starts(settings: Settings, wrong: dict[str, Any]) -> None:
    """As every wrong use."""
    with pytest.raises(BadQuestion):
        consensus.Election("x", **wrong).request(settings)


# ---------------------------------------------------------------- compare


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_models_side_by_side_with_the_one_that_failed(
    settings: Settings, answers: Answers, capsys: Capture, language: Language
) -> None:
    """Each asked by its own name; a failure is a row and not the end."""
    dead = ModelUnavailable("It is not up.", model_id=QWEN)
    prepared = answers(said(PHI, "Uno."), dead, *(said(spec.id, "Tres.") for spec in settings.models[2:]))
    compare.run(settings, "¿?", [], Terminal(language), max_tokens=5, as_json=False)
    out = flat(capsys.readouterr().out)
    assert [request.model for _, request in prepared.asked] == [spec.id for spec in settings.models]
    assert all(
        word in out
        for word in ("100 ms", "20.0", "2.0 s", "Uno.", "It is not up.", Terminal(language).text("compare.failed"))
    )


def test_compared_as_json(settings: Settings, answers: Answers, capsys: Capture) -> None:
    """Alone on standard output; errors beside answers."""
    answers(said(PHI), CapibaraError("gone"))
    compare.run(settings, "¿?", [PHI, "qwen_coder"], Terminal("en"), max_tokens=None, as_json=True)
    first, second = json.loads(capsys.readouterr().out)["models"]
    assert (first["content"], first["ttft_ms"], first["error"]) == ("Madrid.", 100.0, None)
    assert (second["id"], second["content"], second["error"]) == (QWEN, None, "gone")


def test_when_nobody_answers_the_command_failed(settings: Settings, answers: Answers) -> None:
    """Exit status 1, by the error that main makes it of."""
    answers(CapibaraError("gone"))
    with pytest.raises(CapibaraError, match="No model"):
        compare.run(settings, "¿?", [PHI], Terminal("en"), max_tokens=None, as_json=True)


# ---------------------------------------------------------------- chat


def talk(settings: Settings, monkeypatch: pytest.MonkeyPatch, *lines: str, as_json: bool = False) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    chat.run(settings, "capibara", None, Terminal("es"), as_json=as_json)


def test_a_conversation_is_kept_whole(
    settings: Settings, answers: Answers, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second question comes after the first and its answer; answers go to standard output, figures beside."""
    prepared = answers(said(content="Hola."), said(content="Adiós."))
    talk(settings, monkeypatch, "uno", "", "dos", "/exit", "tres")
    told = capsys.readouterr()
    assert told.out == "Hola.\nAdiós.\n"
    assert "primer token" in told.err
    roles = [(turn["role"], turn["content"]) for turn in prepared.asked[1][0]]
    assert roles == [("user", "uno"), ("assistant", "Hola."), ("user", "dos")]


def test_a_failed_question_is_no_part_of_the_conversation(
    settings: Settings, answers: Answers, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, the chat goes on, and from a pipe the status is 1 in the end."""
    prepared = answers(CapibaraError("gone"), said())
    with pytest.raises(CapibaraError, match="1"):
        talk(settings, monkeypatch, "uno", "dos")
    assert "gone" in capsys.readouterr().err
    assert [turn["content"] for turn in prepared.asked[1][0]] == ["dos"]


def test_a_vote_on_the_last_question_takes_the_place_of_its_answer(
    settings: Settings, answers: Answers, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same question to several; the conversation then goes on from what they found."""
    prepared = answers(said(content="83"), voted(), said())
    talk(settings, monkeypatch, "¿Cuánto es 12*7?", "/vote", "¿Seguro?")
    assert prepared.asked[1][1].model == "capibara-consensus"
    assert [turn["content"] for turn in prepared.asked[1][0]] == ["¿Cuánto es 12*7?"]
    assert [turn["content"] for turn in prepared.asked[2][0]] == ["¿Cuánto es 12*7?", "84", "¿Seguro?"]
    assert "acuerdo" in capsys.readouterr().out


def test_the_commands_of_a_chat(
    settings: Settings, answers: Answers, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/model changes who is asked, /stats counts, /route decides only, /history shows, /clear forgets, /help lists."""
    prepared = answers(said(MISTRAL, "Hola."), said(MISTRAL, "Otra vez."))
    commands = ("/model mistral_balanced", "uno", "/stats", "/route", "/history", "/clear", "dos", "/help")
    talk(settings, monkeypatch, *commands)
    out = flat(capsys.readouterr().out)
    assert prepared.asked[0][1].model == MISTRAL
    assert [turn["content"] for turn in prepared.asked[-1][0]] == ["dos"]
    assert all(
        word in out
        for word in (f"1 ({MISTRAL} 1)", "7 + 11", "Porque sí.", "[tú] uno", *map("/{}".format, chat.COMMANDS))
    )


@pytest.mark.parametrize("line", ["/fly", "/model gpt-4", "/vote", "/route"])
def test_a_wrong_command_is_said_and_the_chat_goes_on(
    settings: Settings, answers: Answers, capsys: Capture, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """An unknown command or model, or nothing yet to vote on."""
    answers(said(content="Hola."))
    with pytest.raises(CapibaraError):
        talk(settings, monkeypatch, line, "uno")
    told = capsys.readouterr()
    assert told.err.count("Error:") == 1
    assert told.out == "Hola.\n"


def test_a_chat_as_json_is_a_line_an_answer(
    settings: Settings, answers: Answers, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Question, answer and decision."""
    answers(said(content="Hola."), said(content="Adiós."))
    talk(settings, monkeypatch, "uno", "dos", as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["question"], line["content"]) for line in lines] == [("uno", "Hola."), ("dos", "Adiós.")]
    assert lines[0]["capibara"]["answered_by"] == PHI


# ---------------------------------------------------------------- streaming


def test_paragraphs_are_finished_and_blocks_of_code_are_not_torn() -> None:
    """An empty line ends a paragraph, but not inside a fence."""
    assert split_finished("uno\n\ndos") == ("uno\n\n", "dos")
    assert split_finished("```\na\n\nb\n") == ("", "```\na\n\nb\n")
    assert split_finished("```\na\n\nb\n```\n\nc") == ("```\na\n\nb\n```\n\n", "c")


def test_a_streamed_answer_ends_as_its_whole_text() -> None:
    """Whatever the pieces were; what was only waited for leaves no trace."""
    file = io.StringIO()
    with MarkdownStream(Console(file=file, force_terminal=False, width=40)) as stream:
        stream.waiting("Cargando")
        for piece in ("Pri", "mero.\n", "\n* uno\n* d", "os\n"):
            stream(piece)
    text = flat(file.getvalue())
    assert "Primero." in text
    assert text.endswith("• uno • dos")
    assert "Cargando" not in text


# ---------------------------------------------------------------- test


def test_the_menu_tries_what_is_chosen(
    settings: Settings, answers: Answers, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong number is said; models by number, the router's examples; the end of the input ends it."""
    prepared = answers(said(QWEN, "Hola."))
    monkeypatch.setattr(sys, "stdin", io.StringIO("9\n1\n2\n¿Qué tal?\n2\n\n"))
    trials.run(settings, trials.Wanted(), Terminal("es"), as_json=False)
    told = capsys.readouterr()
    assert "Elige" in told.err
    assert prepared.asked[0][1].model == QWEN
    assert prepared.asked[0][0][0]["content"] == "¿Qué tal?"
    assert len(prepared.asked) == 1 + len(trials.ROUTED)
    assert "Hola." in told.out


@pytest.mark.parametrize("language", LANGUAGES)
def test_health_fails_with_the_model_that_gives_nothing(
    settings: Settings, answers: Answers, capsys: Capture, language: Language
) -> None:
    """Named, with why; the others are well, and the status is 1."""
    answers(*(CapibaraError("gone") if spec.id == QWEN else said(spec.id) for spec in settings.models))
    with pytest.raises(CapibaraError, match="health"):
        trials.run(settings, trials.Wanted("health"), Terminal(language), as_json=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) == 5
    assert [QWEN in line for line in lines] == ["gone" in line for line in lines]


def test_trials_as_json(settings: Settings, answers: Answers, capsys: Capture) -> None:
    """By name, one object."""
    answers()
    trials.run(settings, trials.Wanted("router", "¿2+2?"), Terminal("es"), as_json=True)
    found = json.loads(capsys.readouterr().out)["router"]
    assert found["ok"]
    assert found["result"][0]["model"] == PHI


@pytest.mark.parametrize("wanted", [trials.Wanted("fly"), trials.Wanted(), trials.Wanted("model", model="nobody")])
def test_a_trial_that_there_is_not(settings: Settings, wanted: trials.Wanted) -> None:
    """Refused before anything starts; JSON has no menu."""
    with pytest.raises(BadQuestion):
        trials.run(settings, wanted, Terminal("en"), as_json=True)


# ---------------------------------------------------------------- data, graph


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_kept_as_a_table(language: Language) -> None:
    """Counts, sizes, ages; nothing where nothing is known."""
    now_s = 1_700_000_000.0
    rows = [
        {"kind": "responses", "count": 3, "size_bytes": 5000, "oldest_s": now_s - 3 * 86_400, "newest_s": now_s - 60},
        {"kind": "votes", "count": 0, "size_bytes": 0, "oldest_s": None, "newest_s": None},
    ]
    console = Console(file=io.StringIO(), width=200)
    console.print(data.table(rows, Terminal(language), now_s=now_s))
    out = flat(console.file.getvalue())  # type: ignore[attr-defined]
    assert all(word in out for word in ("responses 3 4.9 KiB", "(3 d)", Terminal(language).text("data.what.votes")))


def test_nothing_is_deleted_without_a_yes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a pipe nobody can be asked."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(BadQuestion, match="--yes"):
        data.delete(settings, ["responses"], Terminal("en"), yes=False, as_json=False)


def test_the_drawing_has_every_node_and_every_way() -> None:
    """In the order of a request, with what leads elsewhere named beside."""
    edges = [
        graph.Edge("START", "a", False), graph.Edge("a", "b", False), graph.Edge("b", "a", True),
        graph.Edge("b", "END", True),
    ]  # fmt: skip
    assert graph.ordered(edges) == ["START", "a", "b", "END"]
    drawing = graph.drawn(edges)
    assert [word for word in drawing.split() if word in ("START", "a", "b", "END")] == ["START", "a", "b", "a", "END"]
    assert "..> a" in drawing
    nodes = graph.ordered(graph.edges())
    assert nodes[0] == "START"
    assert set(nodes) >= {"classify", "route", "generate", "vote", "verify", "END"}


# ---------------------------------------------------------------- a running service


def service(answer: Callable[[httpx.Request], httpx.Response]) -> There:
    client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://127.0.0.1:1")
    return There(client, Terminal("en"))


def test_a_stream_of_the_service_is_told_piece_by_piece() -> None:
    """Comments and empty chunks are no text; the decision rides on the last chunk."""
    trace = dict(said(content="Hola.").trace)

    def chunk(delta: dict[str, Any], finish: str | None = None, **rest: Any) -> str:
        return f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': finish}], **rest})}\n\n"

    reading = f": reading: {PHI} 512 of 2048 tokens\n\n"
    body = ": ping\n\n" + reading
    body += chunk({"content": "Ho"}) + chunk({"content": "la."}) + chunk({}, "stop", capibara=trace)
    pieces: list[str] = []
    progress: list[str] = []
    one = service(lambda request: httpx.Response(200, text=body + "data: [DONE]\n\n"))
    question = [{"role": "user", "content": "x"}]
    assert one.ask(question, Request(), on_text=pieces.append, on_progress=progress.append).content == "Hola."
    assert pieces == ["Ho", "la."]
    assert progress[1:] == [f"{PHI} reads: 25 %"]


@pytest.mark.parametrize("streamed", [True, False])
def test_what_the_service_refuses_is_told_in_its_words(streamed: bool) -> None:
    """A 404 is wrong use, a 503 a failure; half a stream is one too."""
    error = {"error": {"message": "No such model."}}
    on_text = (lambda piece: None) if streamed else None
    with pytest.raises(BadQuestion, match="No such model"):
        service(lambda request: httpx.Response(404, json=error)).ask([], Request(), on_text=on_text)
    with pytest.raises(CapibaraError, match="No such model"):
        service(lambda request: httpx.Response(503, json=error)).ask([], Request(), on_text=on_text)
    with pytest.raises(CapibaraError, match="broke off"):
        service(lambda request: httpx.Response(200, text="")).ask([], Request(), on_text=on_text)


def test_the_body_says_what_was_asked_and_no_more() -> None:
    """Defaults are left to the service."""
    request = Request.model_validate({"model": PHI, "voting": "simple", "sampling": {"max_tokens": 5}})
    assert body_of([{"role": "user", "content": "x"}], request) == {
        "model": PHI,
        "messages": [{"role": "user", "content": "x"}],
        "capibara": {"voting": "simple"},
        "max_tokens": 5,
    }

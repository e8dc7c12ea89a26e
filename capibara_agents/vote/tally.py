"""Who said what: equal answers gathered into clusters. Pure values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from capibara_agents.answers import same
from capibara_agents.types import Canonical, Value
from capibara_agents.vote.traits import traits

Equal = Callable[[Canonical, Canonical], bool]


class Cluster(Value):
    """Voters who gave the same answer, in the order in which they were asked."""

    voters: tuple[str, ...]
    traits: dict[str, float] = Field(default_factory=dict, description="See traits.py.")
    logprobs: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="Voter -> mean, min, tail log-probability of its words, where known."
    )


class Tally(Value):
    """The answers of those who were asked, before anybody is weighed."""

    domain: str
    clusters: tuple[Cluster, ...]
    silent: tuple[str, ...] = Field((), description="Asked, and gave no answer.")

    @property
    def asked(self) -> frozenset[str]:
        """Everybody who was asked."""
        return frozenset([*self.silent, *(voter for cluster in self.clusters for voter in cluster.voters)])

    def among(self, voters: frozenset[str]) -> Tally:
        """What this tally would be if only `voters` had been asked; clusters keep their order."""
        heard = (
            cluster.model_copy(update={"voters": kept})
            for cluster in self.clusters
            if (kept := tuple(voter for voter in cluster.voters if voter in voters))
        )
        silent = tuple(voter for voter in self.silent if voter in voters)
        return Tally(domain=self.domain, clusters=tuple(heard), silent=silent)


class Round(Value):
    """A recorded vote whose truth is known: for each cluster, whether its answer was right."""

    tally: Tally
    right: tuple[bool, ...]


def cluster_numbers(answers: Sequence[Canonical], equal: Equal = same) -> list[int]:
    """The cluster of each answer, numbered by first appearance; a cluster is known by its first answer.

    `equal` need not be transitive: an answer joins the first cluster whose first answer it equals.
    """
    leaders: list[Canonical] = []
    numbers = []
    for answer in answers:
        known = next((n for n, leader in enumerate(leaders) if equal(leader, answer)), None)
        if known is None:
            known = len(leaders)
            leaders.append(answer)
        numbers.append(known)
    return numbers


def tally_of(
    answers: Mapping[str, Canonical | None],
    *,
    domain: str,
    question: str = "",
    choices: Sequence[str] = (),
    equal: Equal = same,
    logprobs: Mapping[str, Mapping[str, float]] | None = None,
) -> Tally:
    """The tally of the voters' answers, in their order; None: asked, and gave none."""
    given = {voter: answer for voter, answer in answers.items() if answer is not None}
    numbers = cluster_numbers(list(given.values()), equal)
    clusters = []
    for number in range(max(numbers, default=-1) + 1):
        members = tuple(voter for voter, at in zip(given, numbers, strict=True) if at == number)
        known = {voter: dict(logprobs[voter]) for voter in members if voter in logprobs} if logprobs else {}
        clusters.append(Cluster(voters=members, traits=traits(given[members[0]], question, choices), logprobs=known))
    silent = tuple(voter for voter, answer in answers.items() if answer is None)
    return Tally(domain=domain, clusters=tuple(clusters), silent=silent)

"""Several answers to one question: whom to ask, what the answers weigh, which one wins. Pure.

policy.py    who is let into a vote, who is asked next, when to stop, side by side or by turns
ballot.py    candidates -> ballot
tally.py     who said what, equal answers gathered
traits.py    what an answer looks like in the light of its question
weights.py   what each voter's word is worth, learned from recorded votes; fitting.py and stopping.py do the sums
recorded.py  recorded votes out of judged ballots
"""

from capibara_agents.vote.ballot import Matter, count, pass_through
from capibara_agents.vote.policy import admit, next_voter, prior_weights, schedule
from capibara_agents.vote.recorded import round_of
from capibara_agents.vote.tally import Cluster, Round, Tally, tally_of
from capibara_agents.vote.weights import VoteWeights, learn

__all__ = [
    "Cluster",
    "Matter",
    "Round",
    "Tally",
    "VoteWeights",
    "admit",
    "count",
    "learn",
    "next_voter",
    "pass_through",
    "prior_weights",
    "round_of",
    "schedule",
    "tally_of",
]

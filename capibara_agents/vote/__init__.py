"""Several answers to one question: whom to ask, what the answers weigh, which one wins. Pure.

policy.py    who is let into a vote, who is asked next, when to stop, side by side or by turns
ballot.py    candidates -> ballot
tally.py     who said what, equal answers gathered
synthesis.py one answer written out of several free texts
overtaking.py  whether those who are left can change who wins
samples.py   several answers of one model as voters
sureness.py  what a voter's own log-probabilities say, where it has been shown
traits.py    what an answer looks like in the light of its question
weights.py   what each voter's word is worth, learned from recorded votes; fitting.py and stopping.py do the sums
recorded.py  recorded votes out of judged ballots
method.py    which method of learning weights are of
"""

from capibara_agents.vote.ballot import NOTHING_RUN, Matter, Runs, count, deciding, pass_through, said, words
from capibara_agents.vote.method import learning_method
from capibara_agents.vote.policy import admit, next_voter, prior_weights, schedule
from capibara_agents.vote.recorded import judged_round, tally_of_ballot
from capibara_agents.vote.samples import sampled, samples_that_pay, with_samples
from capibara_agents.vote.sureness import Finding, Sureness, learn_sureness
from capibara_agents.vote.synthesis import can_be_written, question_to_writer
from capibara_agents.vote.tally import Cluster, Round, Tally, tally_of
from capibara_agents.vote.weights import ENOUGH_ROUNDS, VoteWeights, learn

__all__ = [
    "ENOUGH_ROUNDS",
    "NOTHING_RUN",
    "Cluster",
    "Finding",
    "Matter",
    "Round",
    "Runs",
    "Sureness",
    "Tally",
    "VoteWeights",
    "admit",
    "can_be_written",
    "count",
    "deciding",
    "judged_round",
    "learn",
    "learn_sureness",
    "learning_method",
    "next_voter",
    "pass_through",
    "prior_weights",
    "question_to_writer",
    "said",
    "sampled",
    "samples_that_pay",
    "schedule",
    "tally_of",
    "tally_of_ballot",
    "with_samples",
    "words",
]

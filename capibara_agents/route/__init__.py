"""Which models answer a question: a pure function of what it is, what was asked for and what the fleet can do.

    able.py     who can take it at all: images, tools, context         -> the models, or why none can
    table.py    domain x level x quality                               -> the tier that should answer, and how sure
    worth.py    recorded outcomes, loading, queues, memory, quality    -> what asking each model is worth
    cascade.py  when a small model drafts first, and who takes over
    votes.py    who votes, and whether a vote that nobody asked for may be held now
    plans.py    all of it together                                     -> Plan

No clock, no log, no I/O. The first attempt is chosen here; later attempts walk the chain that the first one laid
down, so a rejected answer and a failed model go the same way.
"""

from capibara_agents.route.able import weights_bytes
from capibara_agents.route.plans import chain_of, first_plan, next_plan
from capibara_agents.route.situation import Situation
from capibara_agents.route.table import TABLE

__all__ = ["TABLE", "Situation", "chain_of", "first_plan", "next_plan", "weights_bytes"]

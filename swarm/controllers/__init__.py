"""The leader's duties, one a file: pure reconcilers from a frozen view to commands.

Each looks at the whole cluster (decisions beside observations) and says what should be decided next; a driver proposes
what it says. A controller that must remember something (since when, how many lately) is a small class whose memory begins anew
with each leadership: a new leader judges by what it saw itself.

Pure: no I/O, no clock, no randomness of its own.
"""

from swarm.controllers.drain import drain_wishes
from swarm.controllers.heal import settle_moves
from swarm.controllers.lead import LeadController, heir_of
from swarm.controllers.replace import Replacing, Wishes
from swarm.controllers.rotation import RotationConfig, RotationController
from swarm.controllers.verdict import VerdictController
from swarm.controllers.voters import VoterController, VotersConfig

__all__ = [
    "LeadController",
    "Replacing",
    "RotationConfig",
    "RotationController",
    "VerdictController",
    "VoterController",
    "VotersConfig",
    "Wishes",
    "drain_wishes",
    "heir_of",
    "settle_moves",
]

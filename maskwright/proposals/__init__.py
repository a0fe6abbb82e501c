"""Region proposals without a network: where they come from, and where they are kept."""

from .sources import Proposals, Source, make_source
from .store import ProposalStore

__all__ = ["ProposalStore", "Proposals", "Source", "make_source"]

"""How a decode worker shares its room among prefill workers before they ask. The decode role is the writer.

Credit is cumulative per link: what may be used now is what was issued less what was reserved. Issuing is
lowered again when room shrinks or another link needs it more. The credits outstanding over all links never
exceed the room that exists.
"""

from pdcluster_worker.core.effects import CreditsOut
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.wire import Heartbeat

IDLE_SHARE = 8
"""A link without known demand counts as if it asked for one part in so many of the room."""


class CreditLink:
    __slots__ = ("demand_blocks", "demand_requests", "sent", "sequence", "used_blocks", "used_requests")

    def __init__(self) -> None:
        self.used_blocks = 0
        self.used_requests = 0
        self.demand_blocks = 0
        self.demand_requests = 0
        self.sequence = 0
        self.sent: tuple[int, int, bool] | None = None


class Credits:
    """Counts start anew with every handshake of a link."""

    def __init__(self) -> None:
        self._links: dict[PeerId, CreditLink] = {}

    def add(self, peer: PeerId) -> None:
        self._links[peer] = CreditLink()

    def remove(self, peer: PeerId) -> None:
        self._links.pop(peer, None)

    def used(self, peer: PeerId, blocks: int) -> None:
        """A Reserve on credit has arrived, whatever became of it."""
        link = self._links.get(peer)
        if link is not None:
            link.used_blocks += blocks
            link.used_requests += 1

    def heard(self, peer: PeerId, heartbeat: Heartbeat) -> None:
        """The prefill side's own count wins over ours: it includes what was lost on the way."""
        link = self._links.get(peer)
        if link is not None:
            link.demand_blocks = heartbeat.demand_blocks
            link.demand_requests = heartbeat.demand_requests
            link.used_blocks = heartbeat.reserved_blocks
            link.used_requests = heartbeat.reserved_requests

    def outstanding(self) -> tuple[int, int]:
        """Blocks and requests that could still be reserved on what was sent, over all links."""
        sent = [(link, link.sent) for link in self._links.values() if link.sent is not None]
        blocks = sum(max(total[0] - link.used_blocks, 0) for link, total in sent)
        return blocks, sum(max(total[1] - link.used_requests, 0) for link, total in sent)

    def offers(self, blocks: int, requests: int, draining: bool) -> list[tuple[PeerId, CreditsOut]]:
        """Divide the room by demand; returns what each link has to be told, if it differs from the last word."""
        links = list(self._links.values())
        block_shares = divide(blocks, [link.demand_blocks for link in links])
        request_shares = divide(requests, [link.demand_requests for link in links])
        offers = []
        for (peer, link), share, share_requests in zip(self._links.items(), block_shares, request_shares, strict=True):
            total = (link.used_blocks + share, link.used_requests + share_requests, draining)
            if total != link.sent:
                link.sent = total
                link.sequence += 1
                offers.append((peer, CreditsOut(link.sequence, *total)))
        return offers


def divide(room: int, demands: list[int]) -> list[int]:
    """Whole shares, never more than the room in all: what small demands ask for first, so that a backlog at one link
    starves no other; what is left over in proportion to demand. Links without demand keep a foothold."""
    if room <= 0:
        return [0] * len(demands)
    floor = 1 + room // (IDLE_SHARE * max(len(demands), 1))
    wants = [max(demand, floor) for demand in demands]
    shares = [0] * len(demands)
    left = room
    for place, link in enumerate(sorted(range(len(wants)), key=wants.__getitem__)):
        shares[link] = min(wants[link], left // (len(wants) - place))
        left -= shares[link]
    total = sum(wants)
    return [share + left * want // total for share, want in zip(shares, wants, strict=True)]

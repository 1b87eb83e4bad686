"""Uploaded distributions: what a file says of itself, and whether it may be kept. Blocking, for a thread.

Nothing is unpacked to disk and nothing of an archive is believed that was not compared: every installer must see the
same members, whichever of an archive's records it reads. All refusals are :class:`teepi.errors.BadUpload`.
"""

from teepi.distributions.digests import check_digests
from teepi.distributions.inspection import Distribution, claimed_release, inspect, inspect_docs
from teepi.distributions.zips import Member, content, listed_members

__all__ = [
    "Distribution",
    "Member",
    "check_digests",
    "claimed_release",
    "content",
    "inspect",
    "inspect_docs",
    "listed_members",
]

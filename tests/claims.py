"""What a long run claims, and how it is shown: a line a claim."""

from typing import NamedTuple


class Claim(NamedTuple):
    claim: str
    measured: str
    holds: bool


def show(claims):
    for claim in claims:
        print(f"    {claim.claim:<46} {claim.measured:<50} {'holds' if claim.holds else 'FAILS'}", flush=True)

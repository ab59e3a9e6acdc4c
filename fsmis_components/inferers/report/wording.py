"""Counts, volumes and lists as a person would say them."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 scan", "2 scans"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listing(names: Sequence[str]) -> str:
    """Names in a row: "liver", "liver and spleen", "liver, kidney and spleen"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def in_ml(volume: float) -> str:
    """Millilitres to what a reader needs: "1523.4", below ten "2.96"."""
    return f"{volume:.1f}" if volume >= 10 else f"{volume:.2f}"

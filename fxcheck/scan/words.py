"""Keys and the mixing of single 64-bit words, for the hashes of ``classes``."""

from __future__ import annotations

import secrets
from functools import lru_cache

PADDING, INPUT, TAP, BRANCH, SALT = range(5)
"""What a key is for."""
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
"""Splitmix64's finaliser, a bijection that leaves no linear structure: shift, factor."""

_WORD = 1 << 64
_KEYS = (secrets.randbits(64), secrets.randbits(64))


@lru_cache(maxsize=4096)
def key(which: int, *purpose: int) -> int:
    """The unsigned 64-bit key of one hash for one purpose; odd keys for taps and branches, which multiply."""
    word = _KEYS[which]
    for number in purpose:
        word = mixed_word(mixed_word(word + number) + _KEYS[which])
    return word | 1 if purpose[0] in (TAP, BRANCH) else word


def mixed_word(word: int) -> int:
    """The finaliser of one word, unsigned."""
    for shift, factor in ROUNDS:
        word %= _WORD
        word = (word ^ (word >> shift)) * factor % _WORD
    return word


def signed(word: int) -> int:
    """The 64-bit word as PyTorch's int64 holds it."""
    return (word + (_WORD >> 1)) % _WORD - (_WORD >> 1)


def unsigned(word: int) -> int:
    """The word that PyTorch's int64 holds."""
    return word % _WORD

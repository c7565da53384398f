"""What ``fxcheck proxies`` and ``fxcheck analyze --proxies`` call: measure, load, compare, look up."""

from fxcheck.ops.proxy_catalogue import DTYPES, catalogue, known_operators
from fxcheck.ops.saved import Saved, SavedFirst
from fxcheck.records.proxy_table import Change, ProxyRow, ProxyTable, diff
from fxcheck.records.proxy_table import read_table as load

__all__ = [
    "DTYPES", "Change", "ProxyRow", "ProxyTable", "Saved", "SavedFirst", "catalogue", "diff", "known_operators", "load",
]  # fmt: skip

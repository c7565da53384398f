"""Reports built by hand, for tests of what the gate makes of them."""

from __future__ import annotations

from fxcheck.records.finding import Diagnostic, Verdict, weakest
from fxcheck.records.proxy import Proxy
from fxcheck.records.report import Bias, Conditions, LayerReport, Report, Structure

YES = Conditions(True, True, True, True, True, True)


def diagnostic(code: str, location: str = "") -> Diagnostic:
    return Diagnostic(code, f"what {code} says", f"what {code} asks for", location)


def layer(
    name: str, verdict: str = "runtime", *codes: str, line: int = 1, source: str = "", op: str = "relu", ad: float = 0.0,
    tie: str = "",
) -> LayerReport:  # fmt: skip
    return LayerReport(
        0, 0, name, f"net.py:{line}", ("linear",), op, None, (), False, (Proxy(0.0, 0.0, ad, 1.0, 1.0 - ad),), Bias("none"),
        Verdict(verdict), None, tuple(diagnostic(code) for code in codes), source, tie,
    )  # fmt: skip


def report(*layers: LayerReport, diagnostics: tuple[Diagnostic, ...] = ()) -> Report:
    verdict = Verdict.UNCOVERED if diagnostics else weakest([one.verdict for one in layers])
    structure = Structure(1, 1, len(layers), len(layers), 0, 0, 0, False, ())
    return Report("net.py", "2.14.1", "train", None, (), verdict, None, None, YES, structure, layers, diagnostics)

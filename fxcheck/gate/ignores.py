"""Findings that somebody decided to accept, by module path or on the line itself, and ignores that match nothing."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from fxcheck.records.gate import GateFinding, Standing
from fxcheck.records.gate_config import Ignore

_COMMENT = re.compile(r"#\s*fxcheck:\s*ignore\b(?:\s*\[([^\]]*)\])?[ \t:]*(.*)")


@dataclass(frozen=True)
class Comment:
    """``# fxcheck: ignore[FX101, FX301] reason``."""

    codes: tuple[str, ...]
    reason: str

    @property
    def flaw(self) -> str:
        """Why it ignores nothing; empty if it does."""
        if not self.codes:
            return "names no code"
        return "" if self.reason else "gives no reason"


def comment_in(line: str) -> Comment | None:
    """The comment at the end of a source line."""
    found = _COMMENT.search(line)
    if found is None:
        return None
    codes = tuple(code.strip() for code in (found[1] or "").split(",") if code.strip())
    return Comment(codes, found[2].strip())


@dataclass
class Ignores:
    """Applies ignores to the findings of model after model, and remembers which were of use."""

    entries: Sequence[Ignore]
    used: set[Ignore] = field(default_factory=set)
    used_lines: set[tuple[str, int, str]] = field(default_factory=set)
    """Path, line and code of comments that matched."""
    files: dict[str, SourceFile] = field(default_factory=dict)
    """Source files below the working directory that layers and findings point to."""

    def look_at(self, path: str, line: int, source: str) -> None:
        """A model has code on this line, with this text: comments in the file are the user's.

        A file of the same name that holds another text on that line is not the one that was run.
        """
        file = SourceFile(path)
        if path not in self.files and source.strip() and file.line(line).strip() == source.strip():
            self.files[path] = file

    def text_at(self, path: str, line: int) -> str:
        """The text of a line of a file that was looked at; empty for any other."""
        return self.files[path].line(line).strip() if path in self.files else ""

    def apply(self, findings: Iterable[GateFinding], layer_lines: dict[str, tuple[str, int, str]]) -> list[GateFinding]:
        """The findings, with those that are ignored marked.

        Args:
            findings: of one model.
            layer_lines: by layer, path, number and text of the line it comes from: a comment there counts too when
                the finding points elsewhere.
        """
        out = []
        for finding in findings:
            places = [(finding.path, finding.line, finding.source)]
            places += [layer_lines[finding.layer]] if finding.layer in layer_lines else []
            by_line = (reason for place in places for reason in self._by_line(finding.code, *place))
            reason = [*self._by_entries(finding), *by_line]
            out.append(replace(finding, standing=Standing.IGNORED, reason=reason[0]) if reason else finding)
        return out

    def _by_entries(self, finding: GateFinding) -> list[str]:
        matching = [entry for entry in self.entries if _matches(entry, finding)]
        self.used.update(matching)
        return [entry.reason for entry in matching]

    def _by_line(self, code: str, path: str, line: int, source: str) -> list[str]:
        comment = comment_in(source)
        if comment is None or comment.flaw or code not in comment.codes:
            return []
        self.used_lines.add((path, line, code))
        return [comment.reason]

    def unused(self) -> tuple[str, ...]:
        """A sentence for each ignore that matched nothing; to be asked when every configured model was analysed."""
        sentences = [f"{entry} matches nothing; remove it" for entry in self.entries if entry not in self.used]
        for path, file in sorted(self.files.items()):
            for line, comment in file.comments.items():
                sentences += self._unused_codes(f"{path}:{line}", path, line, comment)
        return tuple(sentences)

    def _unused_codes(self, where: str, path: str, line: int, comment: Comment) -> list[str]:
        if comment.flaw:
            return [f"{where}: fxcheck: ignore {comment.flaw}, so it ignores nothing; "
                    "write # fxcheck: ignore[FX101] reason"]  # fmt: skip
        left = [code for code in comment.codes if (path, line, code) not in self.used_lines]
        return [f"{where}: fxcheck: ignore[{', '.join(left)}] matches nothing; remove it"] if left else []


@dataclass(frozen=True)
class SourceFile:
    """A file below the working directory; one that is not there has no lines."""

    path: str

    @cached_property
    def lines(self) -> list[str]:
        try:
            return Path(self.path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []

    def line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    @cached_property
    def comments(self) -> dict[int, Comment]:
        """By line, those that are comments of Python and not text in a string."""
        found = {}
        try:
            for token in tokenize.generate_tokens(io.StringIO("\n".join(self.lines) + "\n").readline):
                comment = comment_in(token.string) if token.type == tokenize.COMMENT else None
                if comment is not None:
                    found[token.start[0]] = comment
        except (tokenize.TokenError, SyntaxError):
            return {}
        return found


def _matches(entry: Ignore, finding: GateFinding) -> bool:
    paths = (finding.layer, finding.layer.partition("/")[0])
    here = any(fnmatchcase(path, entry.layer) for path in paths)
    return here and entry.code in ("*", finding.code) and entry.model in ("", finding.model)

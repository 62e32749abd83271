"""One message for everything that is wrong with the data of a run."""

from __future__ import annotations

SHOWN = 20  # a systematic mistake, such as a wrong folder, would fill the screen 270,000 times


class Problems:
    """Collects what is wrong, by kind (the key of a record), and raises it as one ValueError."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, kind: str, line: str) -> None:
        """Note one problem; `line` names the file, the entry and the key."""
        self._lines.setdefault(kind, []).append(line)

    def raise_if_any(self, where: str) -> None:
        """Raise the ValueError that lists every problem, of each kind the first `SHOWN` and a count."""
        if not self._lines:
            return
        total = sum(map(len, self._lines.values()))
        message = [f"{total} problem{'s' if total > 1 else ''} in {where}:"]
        for kind, lines in self._lines.items():
            message += lines[:SHOWN]
            if len(lines) > SHOWN:
                message.append(f"... and {len(lines) - SHOWN} more about {kind}")
        raise ValueError("\n  ".join(message))

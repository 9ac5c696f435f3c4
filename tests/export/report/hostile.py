"""A report in which every text from outside is hostile, and what of it becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

HOSTILE = (
    "<img src=x onerror=alert(1)> *a* _b_ `c` **d** [e](http://f.example) ![g](http://h.example/i.png) ``j`` ~~k~~ "
    "<http://l.example> &lt; $m$ n|o \\*p\\*\n\n# q\n"
)
SHOWN = "<img src=x onerror=alert(1)> *a* _b_ "  # the part of it that every place has room for


class Markup(HTMLParser):
    """Elements that none of our pages has, unless it is made by such a text; and the text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what nothing of ours is."""
        target = dict(attrs).get("href") or dict(attrs).get("src") or ""
        if tag in ("em", "del", "s") or "example" in target or target == "x":
            self.found.append(f"{tag} {target}")

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.text += data


def _time(reason: str) -> dict[str, Any]:
    seconds = {"step": 1.0}
    numbers = {"images_per_second": 1.0, "peak_memory_bytes": 1, "threads": 1, "epochs": []}
    return {"seconds_per_part": seconds, "device": reason, "precision": "fp32"} | numbers


def spoil(report: dict[str, Any], reason: str = HOSTILE) -> dict[str, Any]:
    """Put a text wherever names and messages stand in a report.json; returns it."""
    report["dataset"]["warnings"] = [f"warned: {reason}"]
    report["dataset"]["notes"] = [f"noted: {reason}"]
    report["device"]["hardware"]["cpu"] = reason
    report["device"]["software"]["system"] = reason
    for row in report["targets"]:
        row |= {"status": "failed", "reason": reason}
    for check in report["checks"]:
        check |= {"status": "fail", "detail": reason}
    for row in report["training"]:
        row["time_reason"] = reason
    for entry in report["certificate"]["methods"].values():
        entry["reasons"] = [reason]
        for row in entry["accuracy"].get("per_class") or []:
            row["class"] = f"{row['class']} {reason}"
    report["benchmark"]["optimization"] = {"ort_fp32": {"status": "failed", "reason": reason}}
    report["benchmark"]["machine"] = {
        "before": dict.fromkeys(("load_1m", "cpu_mhz", "cpu_celsius", "governor"), reason),
        "after": dict.fromkeys(("load_1m", "cpu_mhz", "cpu_celsius", "governor"), reason),
        "throttled": [reason],
        "gpu_processes": [{"name": reason, "pid": 1}],
    }
    report["training"][0] |= {"time": _time(reason)}
    report["changed"] = {f"artifacts/pixel_contrast-s0/{reason}": reason}
    return report

"""The report as one self-contained HTML page and as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from reproduce.report.figures.spec import RenderedFigure
from reproduce.report.page.document import Content
from reproduce.report.text.tables import escape_markdown

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("reproduce.report.page"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_KEY_FIGURE = "pareto"  # shown first: accuracy against what it costs
_MOST_PRINTED = 100  # rows; longer tables are on the screen and in their CSV file only
_NOT_DRAWING = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
_IDS = re.compile(r'(\bid="|url\(#|(?:xlink:)?href="#)')


def render_page(content: Content, records: Mapping[str, Any] | None = None) -> str:
    """The HTML page; all text from trials is escaped.

    Args:
        records: the trials' details (``trial_records``); None: a page without them.
    """
    return _ENVIRONMENT.get_template("page.html.jinja").render(
        content=content,
        key_figure=next((f for f in content.figures if f.name == _KEY_FIGURE), None)
        or next(iter(content.figures), None),
        most_printed=_MOST_PRINTED,
        drawings={figure.name: inline_svg(figure) for figure in content.figures},
        records=records,
        embedded=None if records is None else embedded_json(records),
        script=_asset("page.js"),
    )


def embedded_json(data: Mapping[str, Any]) -> Markup:
    """JSON for a script element, escaped so that no text can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _asset(name: str) -> Markup:
    """A file of this package, unchanged."""
    assert _ENVIRONMENT.loader is not None
    return Markup(_ENVIRONMENT.loader.get_source(_ENVIRONMENT, name)[0])


def inline_svg(figure: RenderedFigure) -> Markup:
    """A figure's SVG for embedding: ids are made unique, references to other files are removed."""
    svg = _NOT_DRAWING.sub("", figure.svg.read_text("utf-8")).strip()
    svg = _IDS.sub(lambda match: match[1] + figure.name + "-", svg).replace("xlink:href", "href")
    opening, rest = svg.split(">", 1)
    width, height = (re.search(rf'{side}="([\d.]+)pt"', opening) for side in ("width", "height"))
    assert width is not None
    assert height is not None
    box = f"0 0 {width[1]} {height[1]}"
    # The markup is safe, since this program wrote it; the alternative text is escaped.
    kind = "tall" if float(height[1]) > 1.1 * float(width[1]) else "wide"
    head = Markup('<svg class="{}" viewBox="{}" style="--width: {}pt" role="img" aria-label="{}">')
    return head.format(kind, box, width[1], figure.alt) + Markup(rest)


def markdown_page(content: Content) -> str:
    """The report as Markdown, which refers to the figures' files."""
    lines = ["# Layer freezing: report", ""]
    lines += [f"> **Note:** {escape_markdown(text)}\n" for text in content.notices]
    lines += [escape_markdown(content.headline), ""]
    if content.numbers is not None:
        lines += [content.numbers.markdown(), "", escape_markdown(content.numbers.note), ""]
    lines += [f"- {escape_markdown(text)}" for text in (content.tally, *content.findings)]
    if content.verdicts:
        lines += ["", "## The paper's claims", ""]
        lines += [f"- {escape_markdown(text)}" for text in content.evidence]
        lines += [""]
        lines += ["| claim | section | statement | verdict | reason |", "|---|---|---|---|---|"]
        for claim in content.verdicts:
            name = f"{claim.id} (our reading)" if claim.reading else claim.id
            cells = (name, claim.section, claim.statement, f"**{claim.verdict}**", claim.outcome)
            lines.append(f"| {' | '.join(map(escape_markdown, cells))} |")
    if content.proof:
        lines += ["", "## Freeze proof", ""]
        lines += [
            f"- {'' if c.good else '**does not hold for every trial:** '}{escape_markdown(c.sentence)}"
            for c in content.proof
        ]
    for figure in content.figures:
        lines += ["", f"## {figure.heading}", "", f"![{figure.alt}](figures/{figure.png.name})"]
        lines += ["", escape_markdown(figure.caption)]
    for table in content.tables:
        lines += ["", f"## {table.title}", "", escape_markdown(table.whole_note), "", table.markdown()]
    lines += [
        "",
        "## What the paper leaves open",
        "",
        "| setting | value | question |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {escape_markdown(' · '.join(values))} | {question} |"
        for name, question, values in content.open_questions
    ]
    lines += ["", "## Provenance", ""]
    for group, facts in content.origins.items():
        lines += [f"### {group}", ""]
        lines += [
            f"- {escape_markdown(fact.name)}: {escape_markdown(' · '.join(fact.values))}" for fact in facts
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"

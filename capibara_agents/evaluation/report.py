"""A report as one HTML file that needs no other, with its pictures beside it as PNG files."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from capibara_agents.errors import ConfigError
from capibara_agents.evaluation.tables import Sheet
from capibara_agents.texts import phrase
from capibara_agents.types import Language

PAGE = "report.html"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } .wide { overflow-x: auto }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { background: #f6f1ea }
dt { font-weight: 600 } dd { margin: 0 0 .4rem 1rem } code { background: #f3f3f3; padding: 0 .2rem }
img { max-width: 100%; height: auto }
"""


def make_folder(folder: Path) -> None:
    """The folder of a report; ConfigError when it cannot be made. Made before anything is measured."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(phrase("rows.report_not_made", folder=folder, error=error.strerror)) from error


def write(folder: Path, page: str, pictures: Mapping[str, bytes]) -> Path:
    """Write page and pictures (name without ending -> PNG); the path of the page. ConfigError when it cannot."""
    try:
        for name, png in pictures.items():
            (folder / f"{name}.png").write_bytes(png)
        (folder / PAGE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(phrase("rows.report_not_written", folder=folder, error=error.strerror)) from error
    return folder / PAGE


def page(
    title: str, facts: Mapping[str, str], sheets: Sequence[Sheet], pictures: Mapping[str, bytes], language: Language
) -> str:
    """The HTML text: what was run (`facts`), the tables, the pictures inside it."""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    tables = "".join(_table(sheet) for sheet in sheets)
    images = "".join(
        f'<p><img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'
        for name, png in pictures.items()
    )
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><dl>{listed}</dl>{tables}{images}</body></html>\n"
    )


def _table(sheet: Sheet) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in sheet.head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in sheet.rows)
    return f'<h2>{escape(sheet.title)}</h2><div class="wide"><table><tr>{head}</tr>{rows}</table></div>'

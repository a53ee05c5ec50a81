"""How the pages beside the results are made from `templates/`."""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"


def new_environment():
    """A Jinja environment that escapes every text; jinja2 is imported only when a page has to be made."""
    from jinja2 import Environment, FileSystemLoader

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )

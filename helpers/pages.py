"""How the pages beside the results are made from `templates/`."""

import base64
import io
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"


def webp_uri(image, quality: int) -> str:
    """A Pillow image as a data URI, packed as WebP; quality: 0 to 100."""
    packed = io.BytesIO()
    image.save(packed, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"


def new_environment():
    """A Jinja environment that escapes every text; jinja2 is imported only when a page has to be made."""
    from jinja2 import Environment, FileSystemLoader

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )

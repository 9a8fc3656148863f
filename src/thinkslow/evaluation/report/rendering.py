"""Pages from the templates of this package."""

import re
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

SHARED = "thinkslow.evaluation.report"
"""The package whose templates every page may include: figures, tables and styles."""

CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that HTML forbids or that reverse the text around them; terminals obey some."""


def rendered(package: str, template: str, **content: Any) -> str:
    """A page. Texts are escaped, control characters too, and a name without content is an error.

    Args:
        package: the package with the template, in its folder `templates`.
        template: the name of its file.
        content: what the template reads, by name.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(one, "templates") for one in (package, SHARED)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**content)
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), page)

"""Pages from the templates of this package."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

SHARED = "thinkslow.evaluation.report"
"""The package whose templates every page may include: figures, tables and styles."""


def rendered(package: str, template: str, **content: Any) -> str:
    """A page. Texts are escaped, and a name without content is an error.

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
    return environment.get_template(template).render(**content)

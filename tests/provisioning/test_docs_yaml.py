"""Every piece of configuration in the documentation is one the program takes."""

import re
from pathlib import Path

import pytest

from provisioning.loader import load_config

DOCS = Path(__file__).parents[2] / "docs"
OF_OTHER_PROGRAMS = ("# prometheus.yml\n",)
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{place}")
    for page in sorted(DOCS.glob("*.md"))
    for place, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL), 1)
    if not block.startswith(OF_OTHER_PROGRAMS)
]


def test_the_documentation_shows_configuration() -> None:
    assert len(BLOCKS) > 5


@pytest.mark.parametrize("block", BLOCKS)
def test_a_configuration_of_the_documentation_is_taken(tmp_path: Path, block: str) -> None:
    file = tmp_path / "dialcast.yaml"
    file.write_text(block)
    load_config(file, {})

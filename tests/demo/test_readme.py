"""The README names every setting, and no other."""

import re
from pathlib import Path


def test_the_settings_table_names_what_the_settings_module_reads(repository: Path) -> None:
    source = (repository / "msha" / "settings.py").read_text()
    read = set(re.findall(r'environment\.\w+\(\s*"([A-Z_]+)"', source))
    table = (repository / "README.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))
    assert read, "the pattern no longer finds what settings.py reads"
    assert documented == read


def test_every_decision_is_in_the_index(repository: Path) -> None:
    records = {path.name for path in (repository / "docs" / "decisions").glob("[0-9]*.md")}
    index = (repository / "docs" / "decisions" / "README.md").read_text()
    assert records == set(re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index))

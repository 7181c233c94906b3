"""What README shows is true: its configuration loads, its mistakes are told as it says, its middleware works."""

import re
from pathlib import Path

import pytest

from gateway.settings.complaints import ConfigError
from gateway.settings.load import load
from tests.serving import serving

README = (Path(__file__).parent.parent / "README.md").read_text()
CONFIG = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
ENVIRONMENT = {"OPENAI_API_KEY": "a", "GROQ_API_KEY": "b", "TEAM_A_KEY": "c"}


def test_its_configuration_loads():
    """Word for word."""
    assert load(CONFIG, name="gateway.yaml", environment=ENVIRONMENT).settings.chain


def test_its_mistakes_are_told_as_it_says():
    """Line, column and cure."""
    wrong = CONFIG.replace("fallbacks: [gpt-4o-mini]", "fallbacks: [gtp-4o-mini]").replace("ttl: 1h", "ttl: soon")
    with pytest.raises(ConfigError) as caught:
        load(wrong, name="gateway.yaml", environment=ENVIRONMENT)
    assert f"```\n{caught.value}\n```" in README


async def test_its_middleware_works(tmp_path, monkeypatch):
    """Twenty lines, in somebody's own package."""
    example = re.search(r"```python\n(from gateway.core.errors.*?)```", README, re.DOTALL)[1]
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "hours.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    for opens, status in ((0, 200), (24, 403)):
        room = f'{{use: "my_package.hours:OfficeHoursOptions", opens: {opens}}}'
        async with serving(f"providers: {{echo: }}\nmodels: {{mock: echo/echo}}\nchain: [{room}]\n") as gateway:
            assert (await gateway.ask()).status_code == status

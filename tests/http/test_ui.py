"""The vendored pages behind /docs and /redoc need nothing from elsewhere."""

import re
from pathlib import Path

import pytest

import gateway.http
from gateway.core.call import PATHS
from gateway.http.docs import CALLS

UI = Path(gateway.http.__file__).parent / "ui"
SCRIPTS = ["swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_vendored_file_asks_for_no_source_map_font_or_picture_elsewhere(name):
    """A page that fetches tells a third party who reads it, and is broken without the internet."""
    text = (UI / name).read_text(encoding="utf-8")
    assert not re.search(r"sourceMappingURL=[\w.-]+\.map", text)
    assert not re.search(r"""(?:src|href):\s*["']https?://[^"']+\.(?:svg|png|css|js|woff2?)["']""", text)
    assert not re.search(r"""(?:@import|url\()\s*["']?https?://""", text)


def test_each_vendored_package_comes_with_its_licence_and_version():
    """Their licences ask for the text, and VERSIONS.md is how the next one refreshes them."""
    versions = (UI / "VERSIONS.md").read_text()
    assert "Apache License" in (UI / "swagger-ui.LICENSE").read_text()
    assert "MIT License" in (UI / "redoc.LICENSE").read_text()
    assert all(name in versions for name in SCRIPTS)
    version = re.search(r"`redoc` \| ([\d.]+)", versions)
    assert version is not None
    assert f'Version: "{version[1]}"' in (UI / "redoc.LICENSE").read_text()


def test_every_path_that_names_a_model_is_described():
    """What can be asked for and is not in the description is not found."""
    assert {f"/v1{path}" for path in PATHS} <= set(CALLS)

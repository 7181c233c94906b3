"""Azure is OpenAI at another address; what differs is in its address, its header and its first event."""

import json

import pytest

from gateway.core.secret import Secret
from gateway.providers.azure import AzureOptions
from tests.providers.test_golden import attempt

RESOURCE = "https://sea.openai.azure.com"


def azure(**options):
    return AzureOptions(api_key=Secret("k"), **{"base_url": RESOURCE, **options}).build("azure")


@pytest.mark.parametrize("base_url", [RESOURCE, f"{RESOURCE}/", f"{RESOURCE}/openai", f"{RESOURCE}/openai/v1/"])
def test_the_address_may_be_copied_from_any_page(base_url):
    """Azure's pages show it in four forms."""
    url = azure(base_url=base_url).request(attempt({"messages": []}, "m")).url
    assert url == f"{RESOURCE}/openai/v1/chat/completions"


def test_a_deployments_name_cannot_lead_elsewhere():
    """A pattern lets clients write part of the model's name."""
    url = azure(api_version="2024-10-21").request(attempt({"messages": []}, "../a?b#c d")).url
    assert url == f"{RESOURCE}/openai/deployments/..%2Fa%3Fb%23c%20d/chat/completions?api-version=2024-10-21"


def test_the_key_goes_into_azures_header_and_nowhere_else():
    """It is not a bearer token there."""
    headers = azure(headers={"X-Team": "sea"}).request(attempt({"messages": []}, "m")).headers
    assert headers == {"content-type": "application/json", "api-key": "k", "x-team": "sea"}


def test_versions_that_do_not_know_stream_options_are_not_sent_any():
    """They answer 400 to every stream otherwise; the usage is estimated then."""
    streamed = attempt({"stream": True, "stream_options": {"include_usage": True}, "messages": []}, "m")
    assert b"stream_options" not in azure(api_version="2024-06-01").request(streamed).body
    for version in ("2024-09-01-preview", "2024-10-21", ""):
        sent = json.loads(azure(api_version=version).request(streamed).body)
        assert sent["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("version", ["v1", "preview", "2024-10-21&x=y", "24-1-1"])
def test_what_is_no_version_is_refused_with_the_cure(version):
    """Otherwise every call would be a 404 without a reason."""
    with pytest.raises(ValueError, match="leave it out for the v1 API"):
        AzureOptions(api_version=version)


def test_it_is_off_until_it_has_a_key_and_an_address():
    """There is no address that would do for all."""
    assert "AZURE_OPENAI_API_KEY" in AzureOptions(base_url=RESOURCE).off()
    assert "base_url" in AzureOptions(api_key=Secret("k")).off()
    assert AzureOptions(api_key=Secret("k"), base_url=RESOURCE).off() == ""
    assert AzureOptions().price_table() == "azure"

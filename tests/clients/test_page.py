"""The page of the clients is the one that the pinned versions, and the programs that are run, make."""

from tests.clients.page import PAGE, as_expected, page


def test_the_page_is_of_the_pinned_versions_and_of_the_code_that_is_run():
    """After a change of either, `GATEWAY_WRITE_CLIENTS=1 python3 run.py clients` makes it so, if all goes well."""
    assert PAGE.read_text() == page(as_expected)

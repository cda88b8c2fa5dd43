"""Addresses of job servers."""

import pytest

from gearwsgi.errors import ConfigError


@pytest.mark.parametrize("servers", ["", "a:b:c:d", "host:99999", ["x y"], 17, "embedded,other", "ftp://x"])
def test_a_server_list_that_cant_be_parsed_says_what_would_be_right(servers: object) -> None:
    from gearwsgi import GearmanMiddleware

    with pytest.raises(ConfigError, match="server"):
        GearmanMiddleware(lambda environ, start: [], servers=servers)
